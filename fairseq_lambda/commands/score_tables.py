"""Scores of fine-tuned models as Markdown tables."""

import re

from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.finetuning.metrics import NOT_PERCENT, mean_and_deviation, names_of

TITLES = {
    "accuracy": "accuracy", "matthews": "Matthews", "macro_f1": "macro F1", "micro_f1": "micro F1", "f1": "F1",
    "exact_match": "exact match", "pearson": "Pearson", "spearman": "Spearman", "mse": "squared error",
    "span_f1": "span F1", "span_precision": "span precision", "span_recall": "span recall",
}  # fmt: skip


def title(name: str, labels: Labels) -> str:
    """Return the heading of a score; that of a single label's F1 names the label."""
    return f"F1 of {escaped(labels.names[1])}" if name == "f1" else TITLES[name]


def cell(name: str, value: float) -> str:
    """Return a score: a percentage, or a correlation to three digits."""
    return f"{value:.3f}" if name in NOT_PERCENT else f"{100 * value:.1f} %"


def table(splits: dict[str, dict], labels: Labels) -> str:
    """Return the scores of each split."""
    names = names_of(labels)
    rows = [["split", "texts", "shortened", *(title(name, labels) for name in names)]]
    for split, scores in splits.items():
        rows.append([split, f"{scores['texts']:,}", f"{scores['shortened']:,}", *(cell(n, scores[n]) for n in names)])
    return markdown(rows)


def seeds_table(results: list[dict], seeds: list[int], labels: Labels) -> str:
    """Return the scores of each seed, then their mean and standard deviation."""
    names = names_of(labels)
    rows = [["split", "seed", *(title(name, labels) for name in names)]]
    for split in results[0]["splits"]:
        scores = [result["splits"][split] for result in results]
        rows += [[split, str(s), *(cell(n, values[n]) for n in names)] for s, values in zip(seeds, scores, strict=True)]
        spread = {name: mean_and_deviation([values[name] for values in scores]) for name in names}
        rows.append([split, "mean (deviation)", *(f"{cell(n, m)} ({cell(n, d)})" for n, (m, d) in spread.items())])
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Return rows, the header first, as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def escaped(piece: str) -> str:
    """Return a piece of text as Markdown shows it in a table."""
    return re.sub(r"([\\`*_<|\[\]])", r"\\\1", piece)
