"""Weights of fairseq's model under the names of transformers' models, and back. No weight changes."""

from torch import Tensor

# (fairseq's prefix, transformers'); the first that fits
PRETRAINED = (
    ("encoder.bert.lm_head.", "lm_head."),
    ("encoder.bert.sentence_head.dense.", "lambda_bert.pooler.dense."),
    ("encoder.bert.sentence_head.out_proj.", "sentence_classifier."),
    ("encoder.bert.", "lambda_bert.core."),
)


def prefixes(head: str | None = None, per_token: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the pairs of prefixes of a pretrained model, or of one with a fine-tuned head of this name in fairseq."""
    if head is None:
        return PRETRAINED
    dense = "transform.dense." if per_token else "lambda_bert.pooler.dense."
    of_head = (
        (f"classification_heads.{head}.dense.", dense),
        (f"classification_heads.{head}.out_proj.", "classifier."),
    )
    return (*of_head, PRETRAINED[-1])


def renamed(weights: dict[str, Tensor], pairs: tuple[tuple[str, str], ...], wanted: set[str]) -> dict[str, Tensor]:
    """Return the weights whose new names are ``wanted``, under these names."""
    found = {}
    for name, weight in weights.items():
        new = next((new + name.removeprefix(old) for old, new in pairs if name.startswith(old)), None)
        if new in wanted:
            found[new] = weight
    return found


def reversed_pairs(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((new, old) for old, new in pairs)
