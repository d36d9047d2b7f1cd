"""The lines of a training's log that are shown."""

import io
import json

from fairseq_lambda.commands.training_lines import TrainingLines


def shown(lines, tty=False, metric="accuracy"):
    out = io.StringIO()
    out.isatty = lambda: tty
    lines_ = TrainingLines(metric, out)
    for line in lines:
        lines_.line(line + "\n")
    return out.getvalue()


def log(name, message, level="INFO"):
    return f"2026-01-01 00:00:00 | {level} | {name} | {message if isinstance(message, str) else json.dumps(message)}"


INNER = log("train_inner", {"epoch": 1, "num_updates": "20", "loss": "0.5"})
VALID = log("valid", {"epoch": 1, "valid_loss": "0.4", "valid_accuracy": "81.3", "valid_num_updates": "25"})
TRAIN = [log("train", {"epoch": epoch, "train_loss": loss}) for epoch, loss in ((1, "0.6"), (2, "0.45"))]
BEST = log("valid", {
    "epoch": 2, "valid_loss": "0.4", "valid_accuracy": "80", "valid_num_updates": "1050", "valid_best_accuracy": "81.3",
})  # fmt: skip


def test_a_line_per_validation():
    text = shown([log("fairseq_cli.train", "Model(\n"), "  (encoder)", INNER, VALID, TRAIN[0], BEST, TRAIN[1]])
    assert [line.rsplit(",", 1)[0] for line in text.splitlines()] == [
        "epoch 1, update 25: loss 0.6, valid loss 0.4, accuracy 81.30 % (best 81.30 %)",
        "epoch 2, update 1,050: loss 0.45, valid loss 0.4, accuracy 80.00 % (best 81.30 %)",
    ]


def test_a_correlation_is_not_a_percentage():
    line = log("valid", {"epoch": 1, "valid_loss": "0.4", "valid_matthews": "0.1613", "valid_num_updates": "25"})
    assert "matthews 0.161 (best 0.161)" in shown([line, TRAIN[0]], metric="matthews")


def test_a_validation_within_an_epoch_has_the_loss_of_the_updates_around_it():
    text = shown([VALID, INNER, TRAIN[0]])
    assert text.startswith("epoch 1, update 25: loss 0.5, valid loss 0.4") and text.count("\n") == 1


def test_warnings_and_what_is_shortened():
    text = shown(
        [log("x", "odd", "WARNING"), log("task", "train: 9 texts, 2 of them shortened to 16 tokens"), log("x", "y")]
    )
    assert text == "warning: odd\ntrain: 9 texts, 2 of them shortened to 16 tokens\n"


def test_updates_on_a_terminal():
    assert "\rupdate 20, epoch 1, loss 0.5" in shown([INNER], tty=True) and shown([INNER]) == ""
