"""Perplexity of the same masked tokens, read with more or less of the text around them.

Samples of different lengths are not comparable: in a long one, fewer tokens are next to the start or the end of a
sentence. So long samples are read whole, and then the same tokens with the same masks in shorter windows.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from fairseq import utils

from fairseq_lambda.models.hub_interface import LambdaBertHubInterface

TOKENS_PER_BATCH = 8192


def windows(tokens: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the start of each window over ``tokens``, (windows,), and the window of each token, (tokens,).

    A token belongs to the window with the nearest middle. Windows start a quarter of their width apart, so a token has
    at least three eighths of the width on both sides, unless the text ends first.
    """
    last, step = max(0, tokens - width), max(1, width // 4)
    starts = np.append(np.arange(0, last, step), last)
    middles = starts + (min(width, tokens) - 1) / 2
    return starts, np.abs(np.arange(tokens)[:, None] - middles).argmin(1)


def in_windows(source: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a sample ``<s> text </s>`` in windows of ``width`` tokens, (windows, width), and each token's place.

    Each window has its own ``<s>`` and ``</s>``. The place is the row and the column of each token of the text, two
    arrays (tokens,).
    """
    text = source[1:-1]
    starts, row = windows(len(text), width - 2)
    columns = np.arange(min(width - 2, len(text)))
    pieces = text[starts[:, None] + columns]
    first, last = (np.full((len(starts), 1), source[i]) for i in (0, -1))
    return np.hstack([first, pieces, last]), row, 1 + np.arange(len(text)) - starts[row]


def masked_samples(hub: LambdaBertHubInterface, length: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the tokens, the masked places and their labels for each validation sample of up to ``length`` tokens.

    A sample is one text, even if the model was trained on pairs: most windows of a pair would lie in one half.
    """
    task = hub.task
    before = task.cfg.tokens_per_sample, task.sentence_objective
    task.cfg.tokens_per_sample, task.sentence_objective = length, "none"
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    task.cfg.tokens_per_sample, task.sentence_objective = before
    for index in range(len(dataset)):
        sample = dataset[index]
        source, target = sample["source"].numpy(), sample["target"].numpy()
        at = np.flatnonzero(target != dataset.pad)
        if len(at):
            yield source, at, target[at]


@torch.no_grad()
def losses(hub: LambdaBertHubInterface, tokens, rows, columns, labels) -> torch.Tensor:
    """Return the loss of the labels at these places in a batch without padding: (labels,), in nats."""
    parts = []
    step = max(1, TOKENS_PER_BATCH // tokens.shape[1])
    for start in range(0, len(tokens), step):
        chosen = np.flatnonzero((rows >= start) & (rows < start + step))
        if len(chosen) == 0:
            continue
        batch = torch.from_numpy(tokens[start : start + step])
        places = torch.from_numpy((rows[chosen] - start) * tokens.shape[1] + columns[chosen])
        lengths = torch.full((len(batch),), batch.size(1))
        inputs = {"src_tokens": batch, "src_lengths": lengths, "masked_tokens": places, "has_padding": False}
        inputs["labels"] = torch.from_numpy(labels[chosen])
        inputs = utils.move_to_cuda(inputs) if hub.device.type == "cuda" else inputs
        wanted = inputs.pop("labels")
        logits, _ = hub.model(**inputs)
        parts.append(torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none").cpu())
    return torch.cat(parts)


def perplexities(hub: LambdaBertHubInterface, lengths: list[int]) -> dict[str, dict]:
    """Return for each length the perplexity of the validation tokens, read in windows of that many tokens.

    The samples and masks are those of the greatest length that the model has positions for.

    Returns:
        ``mlm_ppl``; ``ratio``, this perplexity over that at the shortest length, and its ``standard_error`` over
        samples, which are independent; ``masked_tokens``.
    """
    lengths = sorted(n for n in lengths if n <= hub.model.max_positions())
    sums = {n: [] for n in lengths}  # per sample
    counts = []
    for source, at, labels in masked_samples(hub, lengths[-1]):
        counts.append(len(at))
        for n in lengths:
            batch, row, column = in_windows(source, n)
            sums[n].append(losses(hub, batch, row[at - 1], column[at - 1], labels).sum().item())
    total, found = sum(counts), {}
    for n in lengths:
        difference = np.array(sums[n]) - np.array(sums[lengths[0]])
        ratio = math.exp(difference.sum() / total)
        error = ratio * difference.std(ddof=1) * len(counts) ** 0.5 / total
        entry = {"mlm_ppl": math.exp(sum(sums[n]) / total), "ratio": ratio, "standard_error": error}
        found[str(n)] = {**entry, "masked_tokens": total}
    return found
