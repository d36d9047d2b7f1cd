"""A labelled file as the binarised splits that training reads."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder, data_file_path, index_file_path

from fairseq_lambda.finetuning.examples import Example
from fairseq_lambda.finetuning.labels import NO_LABEL, Labels
from fairseq_lambda.finetuning.words import word_pieces

Encode = Callable[[str], list[int]]  # a text as ids of pieces, without <s> and </s>


def prefix(split: str, what: str) -> str:
    """Return the name of a split's files without their endings; ``what`` is input0, input1 or label."""
    return f"{split}.{what}"


def write_split(
    folder: Path, split: str, examples: Iterable[Example], labels: Labels, encode: Encode, name: str, dictionary
) -> int:
    """Write the pieces and targets of ``examples``; return how many there are.

    Texts become ``SPLIT.input0`` and, of pairs, ``SPLIT.input1``, fairseq's memory-mapped lists of ids, each with a
    ``</s>`` at its end. Targets become ``SPLIT.label.npy``: (n,) or (n, labels). For tagging they are a list as well,
    ``SPLIT.label``: for each piece the word's label plus one if a word starts there, else 0.

    Args:
        name: of the file, for errors.
        dictionary: fairseq's.

    Raises:
        ValueError: a label that is not among ``labels``, or a pair among single texts.
    """
    dtype = np.uint16 if max(len(dictionary), labels.outputs + 1) < 2**16 else np.int32
    eos = [dictionary.eos()]
    builders = {
        what: MMapIndexedDatasetBuilder(data_file_path(str(folder / prefix(split, what))), dtype=dtype)
        for what in [f"input{i}" for i in range(labels.texts)] + ["label"] * (labels.objective == "tagging")
    }
    targets = []
    for example in examples:
        target = labels.target(example, name)
        if labels.objective == "tagging":
            pieces, starts = word_pieces(example.words, encode)
            marks = np.full(len(pieces) + 1, NO_LABEL)
            marks[starts] = target
            builders["input0"].add_item(torch.tensor(pieces + eos))
            builders["label"].add_item(torch.from_numpy(marks + 1))
        for i, text in enumerate(example.texts):
            builders[f"input{i}"].add_item(torch.tensor(encode(text) + eos))
        targets.append(target if labels.objective != "tagging" else 0)
    for what, builder in builders.items():
        builder.finalize(index_file_path(str(folder / prefix(split, what))))
    if labels.objective != "tagging":
        kind = {"classification": np.int64, "regression": np.float32, "multilabel": np.uint8}[labels.objective]
        np.save(folder / f"{prefix(split, 'label')}.npy", np.array(targets, dtype=kind))
    return len(targets)
