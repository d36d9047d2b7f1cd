"""fairseq's JSON log, reduced to the few lines that a user wants to see."""

import json
import sys
import time
from typing import TextIO

from fairseq_lambda.finetuning.metrics import NOT_PERCENT


class TrainingLines:
    """Turns the log of a training run into progress and a line per validation; passes warnings and errors on.

    Args:
        metric: the score that checkpoints are selected by.
        out: where lines are written; a terminal also shows the updates between two validations.
    """

    def __init__(self, metric: str, out: TextIO = sys.stdout):
        self.metric, self.out = metric, out
        self.show_updates = out.isatty()
        self.begin = time.monotonic()
        self.validation: tuple[str, str] | None = None  # waits for the training's loss, which is logged after it

    def line(self, text: str) -> None:
        """Process a line of the log."""
        parts = text.rstrip("\n").split(" | ", 3)
        if len(parts) < 4:
            return  # the rest of a message of several lines; errors go to standard error
        _, level, name, message = parts
        if level in ("WARNING", "ERROR", "CRITICAL"):
            self._print(f"{level.lower()}: {message}")
        elif message.startswith("{") and name in ("train_inner", "train", "valid"):
            self._scores(name, json.loads(message))
        elif "shortened to" in message or "divided into parts" in message or message.startswith("resuming from"):
            self._print(message)

    def _scores(self, name: str, values: dict) -> None:
        if name == "valid":
            best = values.get(f"valid_best_{self.metric}", values[f"valid_{self.metric}"])
            self.validation = (
                f"epoch {values['epoch']}, update {int(values['valid_num_updates']):,}: ",
                f"valid loss {values['valid_loss']}, "
                f"{self.metric} {self._score(values['valid_' + self.metric])} (best {self._score(best)}), "
                f"{time.monotonic() - self.begin:.0f} s",
            )
            return
        loss = values.get("loss", values.get("train_loss"))
        if self.validation:
            self._print(f"loss {loss}, ".join(self.validation))
            self.validation = None
        if name == "train_inner" and self.show_updates:
            self.out.write(f"\rupdate {int(values['num_updates']):,}, epoch {values['epoch']}, loss {loss}   ")
            self.out.flush()

    def _score(self, value: str) -> str:
        return f"{float(value):.3f}" if self.metric in NOT_PERCENT else f"{float(value):.2f} %"

    def _print(self, text: str) -> None:
        if self.show_updates:
            self.out.write("\r\033[K")
        print(text, file=self.out, flush=True)
