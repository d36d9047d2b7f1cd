"""Checks that a converted model has to pass before it is written: equal weights, logits and ids."""

import random
import unicodedata

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of logits, in float32
SENTENCES = 1000
# put between words: white space of many kinds, a ligature, an accent, a character that no vocabulary has
ODD = (" ", "  ", "\t", "\u00a0", "\u2581", "\u3000", "\ufb01", "e\u0301", "\u2603")
BETWEEN = (" ", *ODD, "<mask>", " <mask> ", "(<mask>", "<unk>")


class NotEqual(ValueError):
    """The two models differ, so nothing was written; the message says where, in one line."""


def check_weights(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> int:
    """Return how many tensors were compared, bit by bit.

    Raises:
        NotEqual: one is missing or differs.
    """
    for name, weight in ours.items():
        if name not in theirs:
            raise NotEqual(f"the converted model has no {name}: nothing was written")
        if weight.dtype != theirs[name].dtype or not torch.equal(weight, theirs[name]):
            raise NotEqual(f"the weight {name} differs after conversion: nothing was written")
    return len(ours)


@torch.no_grad()
def check_logits(fairseq_logits, transformers_logits, options) -> float:
    """Return the largest difference between two functions of token ids (b, n), right-padded, over three batches.

    Raises:
        NotEqual: the difference is above ``TOLERANCE``.
    """
    generator, worst = torch.Generator().manual_seed(1), 0.0
    longest = min(options.length_limit, 64)
    for length in {longest, longest // 2 + 1, min(9, longest)}:
        tokens = torch.randint(4, options.vocab_size, (4, length), generator=generator)
        tokens[:, 0], tokens[:, -1] = 0, options.eos_idx
        tokens[1:, length // 2], tokens[1:, length // 2 + 1] = options.eos_idx, options.eos_idx  # pairs
        tokens[2, length - length // 4 :] = options.padding_idx
        for ours, theirs in zip(fairseq_logits(tokens), transformers_logits(tokens), strict=True):
            real = tokens.ne(options.padding_idx) if ours.shape[:2] == tokens.shape else slice(None)
            worst = max(worst, (ours[real].float() - theirs[real].float()).abs().max().item())
    if not worst <= TOLERANCE:
        raise NotEqual(f"logits differ by {worst:.1e}, more than {TOLERANCE:.0e}: nothing was written")
    return worst


def check_ids(encode, tokenizer, processor) -> int:
    """Check that ``encode`` (text to ids) and the tokenizer agree on ``SENTENCES`` sentences; return their number.

    The sentences consist of pieces of the vocabulary and of odd characters, the same each time. Several marks on one
    letter may be encoded in Unicode's canonical order, into which a fast tokenizer puts them.

    Raises:
        NotEqual: they disagree; the message has the first such sentence.
    """
    rng, size = random.Random(1), processor.get_piece_size()
    pieces = [i for i in range(size) if not processor.is_control(i) and not processor.is_unknown(i)]
    for _ in range(SENTENCES):
        parts = [processor.decode(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(rng.randint(1, 3))]
        text = "".join(part + rng.choice(BETWEEN) for part in parts)
        ours, theirs = list(encode(text)), tokenizer(text, truncation=False).input_ids
        if theirs not in (ours, list(encode(unicodedata.normalize("NFKC", text)))):
            raise NotEqual(f"the tokenizer encodes {text!r} as {theirs}, but fairseq as {ours}: nothing was written")
    return SENTENCES
