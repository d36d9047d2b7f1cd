"""What a training log says: the validation curve, and the time per update."""

import json
import re

import numpy as np

VALIDATION = {"valid_mlm_ppl": "valid_ppl", "valid_mlm_acc": "valid_acc", "valid_sop_acc": "order_acc"}
TRAINING = {"mlm_ppl": "train_ppl", "sop_acc": "train_order_acc"}


def log_lines(log: str, kind: str) -> dict[int, dict]:
    """Return the values of a log's lines of a kind, ``valid`` or ``train_inner``, by number of updates.

    A run that was interrupted logs some updates twice; the later line counts. Lines that are cut off are skipped.
    """
    updates = "valid_num_updates" if kind == "valid" else "num_updates"
    lines = {}
    for text in re.findall(rf"\| {kind} \| (\{{.*\}})\s*$", log, re.MULTILINE):
        try:
            values = json.loads(text)
        except json.JSONDecodeError:
            continue
        lines[int(values[updates])] = values
    return dict(sorted(lines.items()))


def curve(log: str) -> list[dict]:
    """Return the validations: updates, seconds spent in updates, scores, and the latest scores on the training text."""
    training, points = log_lines(log, "train_inner"), []
    for updates, values in log_lines(log, "valid").items():
        before = [n for n in training if n <= updates]
        point = {"updates": updates, "seconds": sum(float(training[n]["train_wall"]) for n in before)}
        point |= {name: float(values[key]) for key, name in VALIDATION.items() if key in values}
        last = training[before[-1]] if before else {}
        points.append(point | {name: float(last[key]) for key, name in TRAINING.items() if last.get(key) is not None})
    return points


def ms_per_update(log: str) -> float | None:
    """Return the fast quartile of the log's lines, which leaves out validation, saves and most disturbances."""
    rates = [float(values["ups"]) for values in log_lines(log, "train_inner").values()]
    rates = [rate for rate in rates if rate > 0]
    return round(1000 / np.quantile(rates, 0.75), 1) if rates else None
