"""What all tasks share: a dictionary with ``<mask>``, and checkpoints that can be used without a data folder."""

from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask
from fairseq.tasks.fairseq_task import StatefulContainer

from fairseq_lambda.symbols import MASK, difference


class SymbolsTask(FairseqTask):
    """A task over one dictionary, which checkpoints hold together with the SentencePiece model.

    Args:
        cfg: the options.
        dictionary: fairseq's; ``<mask>`` is added if it is missing, and ``mask_idx`` is its id.
    """

    OTHER_DICTIONARY = ""  # what to do about a checkpoint with another dictionary

    def __init__(self, cfg, dictionary: Dictionary):
        super().__init__(cfg)
        self.dictionary = dictionary
        self.mask_idx = dictionary.add_symbol(MASK)
        self._sentencepiece = None

    def read_sentencepiece(self, folder: str | Path) -> None:
        """Use the SentencePiece model of a data folder, if it has one."""
        model = Path(folder) / "sentencepiece.model"
        if model.is_file():
            self._sentencepiece = torch.from_numpy(np.fromfile(model, dtype=np.uint8))

    def __getstate__(self) -> dict:
        # without the data, which is on the disk, and fairseq's state container, which cannot be copied
        return {**vars(self), "datasets": {}, "dataset_to_epoch_iter": {}, "state": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, state=StatefulContainer())

    def state_dict(self) -> dict:
        """Return what a checkpoint needs to be usable on its own; fairseq stores it as ``task_state``.

        ``symbols``: the dictionary's, a list of str, ``<mask>`` included. ``sentencepiece``: the
        model file beside dict.txt, (bytes,) uint8; left out if there is none.
        """
        state = {"symbols": list(self.dictionary.symbols)}
        if self._sentencepiece is not None:
            state["sentencepiece"] = self._sentencepiece
        return state

    def load_state_dict(self, state: dict) -> None:
        """Check that a checkpoint fits this dictionary; use its SentencePiece model if there is no other.

        Raises:
            ValueError: it was trained with another dictionary.
        """
        theirs = state.get("symbols")
        if theirs is not None and (found := difference(theirs, self.dictionary.symbols)):
            raise ValueError(f"the checkpoint was trained with another dictionary: {found}. {self.OTHER_DICTIONARY}")
        if self._sentencepiece is None:
            self._sentencepiece = state.get("sentencepiece")

    @staticmethod
    def dictionary_from_state(state: dict) -> Dictionary:
        """Return the dictionary of a checkpoint's ``task_state``, ``<mask>`` included.

        Raises:
            ValueError: the state belongs to none of these tasks.
        """
        dictionary = Dictionary()
        for symbol in state.get("symbols", []):
            dictionary.add_symbol(symbol)
        if dictionary.symbols != state.get("symbols"):
            raise ValueError(
                "the checkpoint's task_state has no dictionary that starts with <s> <pad> </s> "
                "<unk>: use one trained with --task masked_lm_sop"
            )
        return dictionary

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary
