"""The scores on a model's card, from the files that the commands write."""

import json
from pathlib import Path

SHOWN = 20  # answers to questions of common knowledge


def read_scores(files: list[Path], weights: str) -> dict:
    """Return what the files say, as one dictionary.

    Args:
        files: of lambda-bert evaluate or finetune, whose entries stay as they are; of lambda-bert blimp, under
            ``blimp``; the JSON lines of benchmarks/quality/facts.py, under ``facts``.
        weights: the SHA-256 of the model's weights. It is in the result if it is in each of the files.

    Raises:
        ValueError: a file of another kind, or of other weights.
        OSError: a file that cannot be read.
    """
    scores, measured = {}, []
    for file in files:
        text = file.read_text(encoding="utf-8")
        try:
            lines = text.split("\n") if file.suffix == ".jsonl" else [text]  # other line ends are part of a string
            entries = [json.loads(line) for line in lines if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f"--scores {file} is not JSON: {error}") from error
        found = [(of, part) for of, part in map(_part, entries) if of in (None, weights) and part]
        if not found:
            raise ValueError(
                f"--scores {file} has no scores of these weights: make it again from the checkpoint, with lambda-bert "
                "evaluate, lambda-bert blimp or benchmarks/quality/facts.py"
            )
        of, part = found[-1]
        measured.append(of)
        scores |= part
    return scores | ({"weights": weights} if all(measured) else {})


def _part(entry: dict) -> tuple[str | None, dict | None]:
    """Return the SHA-256 of the weights, None if it is unknown, and what the card needs; None for other entries."""
    if not isinstance(entry, dict):
        return None, None
    if "predictions" in entry:
        answers = entry["predictions"]
        shown = answers[:: max(1, len(answers) // SHOWN)]
        facts = {"sentences": len(answers), "accuracy": entry["accuracy"], "answers": shown}
        return entry.get("weights", ""), {"facts": facts}
    if "paradigms" in entry:
        blimp = {"paradigms": len(entry["paradigms"]), **{key: entry[key] for key in ("overall", "precision", "limit")}}
        return entry["model"], {"blimp": blimp}
    if "splits" in entry:
        rest = ("weights", "made_by")  # the latter: a command with paths of this machine
        return entry.get("weights"), {key: value for key, value in entry.items() if key not in rest}
    return None, None
