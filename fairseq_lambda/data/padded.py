"""What all datasets share: the lengths of samples, and batches padded on the right."""

import numpy as np
import torch
from fairseq.data import FairseqDataset, data_utils


class PaddedDataset(FairseqDataset):
    """Samples of different lengths, each a dict with ``id`` and ``source``, (size,) int64.

    Args:
        pad: id of padding.
        longest: maximum length of a sample, including special symbols.
        length_multiple: batches are padded to a multiple of this many tokens, but not beyond ``longest``.
        training: whether epochs differ.
    """

    sizes: np.ndarray  # (samples,), including special symbols

    def __init__(self, pad: int, longest: int, length_multiple: int, training: bool):
        self.pad, self.longest, self.length_multiple, self.training = pad, longest, length_multiple, training

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        return not self.training  # the order, and in pretraining the indices, belong to an epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    num_tokens = size

    def num_tokens_vec(self, indices) -> np.ndarray:
        return self.sizes[indices]

    def batch_of(self, samples: list[dict]) -> dict:
        """Return ``id`` (b,), ``nsentences`` b, ``ntokens`` without padding, and ``net_input``.

        ``net_input`` has ``src_tokens`` (b, n), ``src_lengths`` (b,) and ``has_padding``.
        """
        lengths = torch.tensor([len(sample["source"]) for sample in samples])
        width = min(-(-int(lengths.max()) // self.length_multiple) * self.length_multiple, self.longest)
        source = self.padded([sample["source"] for sample in samples], width)
        return {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(lengths.sum()),
            "net_input": {
                "src_tokens": source,
                "src_lengths": lengths,
                "has_padding": bool(lengths.min() < source.size(1)),
            },
        }

    def padded(self, rows: list[torch.Tensor], width: int) -> torch.Tensor:
        return data_utils.collate_tokens(rows, self.pad, pad_to_length=width)
