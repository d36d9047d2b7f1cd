"""The content lambdas of many texts, written to an array on the disk."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fairseq_lambda.files import output
from fairseq_lambda.inspection.reader import Text, is_lambda_layer, reader, reading

MAX_TOKENS = 8192  # of a batch, including padding
WINDOW = 4096  # texts sorted by length together


def lambdas(
    model,
    texts: Sequence[Text],
    path: str | os.PathLike,
    tokenizer=None,
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return the content lambdas of texts as a memory-mapped array (texts, lambda layers, k, v), float32.

    It is written to ``path`` in numpy's format, whole or not at all; later, ``numpy.load(path, mmap_mode="r")`` opens
    it. Attention layers have no lambda and are left out. Memory is that of one batch, whatever the number of texts.

    Args:
        model, tokenizer: see :func:`fairseq_lambda.inspection.reader`.
        texts: each a text, a pair of texts, or ids (n,).
        path: an .npy file to write; an earlier one is replaced.
        max_tokens: of a batch, including padding; a longer text is read alone.
        progress: called with (texts done, texts in all) after each batch.

    Raises:
        ValueError: no texts, a model without content lambdas, or a text that the model cannot read; the message gives
            its index.
    """
    reads = reader(model, tokenizer)
    layers = [i for i, m in enumerate(reads.mixings) if is_lambda_layer(m) and m.k_proj is not None]
    if not layers:
        raise ValueError("this model has no layer with a content lambda")
    if not len(texts):
        raise ValueError("texts is empty")
    first = reads.mixings[layers[0]]
    shape = (len(texts), len(layers), first.dim_k, first.dim_v)
    path = Path(path)
    with output(path) as unfinished:
        array = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)
        for done, rows, batch in batches(reads, texts, max_tokens):
            tokens, padding = reads.padded(batch)
            with reading(reads.core):
                found = reads.core(tokens, padding, return_lambdas=True).lambdas
            array[rows] = torch.stack([found[i] for i in layers], dim=1).float().cpu().numpy()
            if progress is not None:
                progress(done, len(texts))
        array.flush()
        del array
    return np.load(path, mmap_mode="r")


def batches(reads, texts: Sequence[Text], max_tokens: int = MAX_TOKENS):
    """Yield batches of texts of similar length: (texts so far, rows, ids of these rows).

    Raises:
        ValueError: a text that cannot be encoded or is too long for the model; the message gives its index.
    """
    done = 0
    for start in range(0, len(texts), WINDOW):
        window = {}
        for row in range(start, min(start + WINDOW, len(texts))):
            try:
                window[row] = reads.ids(texts[row])
            except ValueError as error:
                raise ValueError(f"texts[{row}]: {error}") from error
            if len(window[row]) > reads.core.max_positions:
                raise ValueError(
                    f"texts[{row}] has {len(window[row])} tokens, but the model has {reads.core.max_positions} "
                    "positions: shorten it"
                )
        rows: list[int] = []
        for row in sorted(window, key=lambda row: len(window[row])):
            if rows and (len(rows) + 1) * len(window[row]) > max_tokens:
                done += len(rows)
                yield done, rows, [window[r] for r in rows]
                rows = []
            rows.append(row)
        done += len(rows)
        yield done, rows, [window[r] for r in rows]
