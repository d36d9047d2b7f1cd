"""Fifty updates of mini on random ids on the GPU and on the CPU, in float32, --fp16 and --amp; resuming on the GPU."""

from stage import Stage  # isort: skip  sets the path

import argparse
import logging
import tempfile
from pathlib import Path

from trainers import random_batch, trainer_of

LENGTH, BATCH = 96, 8
CLOSE = 0.01  # relative difference of two losses


def trainer(device: str, seed: int, folder: Path, autocast: str = "none", *flags: str):
    """Return the Trainer for a hybrid of mini."""
    options = argparse.Namespace(size="mini", device=device, seed=seed, autocast=autocast)
    return trainer_of("hybrid", LENGTH, options, folder, ["--warmup-updates", "10", "--save-dir", folder, *flags])


def losses(trainer_, batches: list[dict]) -> list[float]:
    """Return the loss of each update, in bits per masked token."""
    result = []
    for batch in batches:
        log = trainer_.train_step([batch])
        result.append(float(log["loss"]) if log else float("nan"))  # None: --fp16 skipped an update that overflowed
    return result


def main() -> None:
    stage = Stage("updates")
    logging.disable(logging.INFO)
    updates = 50 if stage.cuda else 4
    batches = [random_batch(LENGTH, BATCH, stage.seed + i % 10) for i in range(updates)]  # repeated, so loss falls
    with tempfile.TemporaryDirectory(dir=stage.out) as folder:
        folder = Path(folder)
        expected = losses(trainer("cpu", stage.seed, folder), batches)
        stage.write(run="CPU, float32", first=expected[0], last=expected[-1])
        stage.check(not stage.cuda or sum(expected[-10:]) < sum(expected[:10]), "the loss does not fall on the CPU")
        runs = {"float32": ["none"], "bfloat16": ["bfloat16"]}
        runs |= {flag: ["none", flag] for flag in ("--fp16", "--amp") if stage.cuda}
        for name, precision in runs.items():
            found = losses(trainer(stage.device, stage.seed, folder, *precision), batches)
            usable = [(f, e) for f, e in zip(found, expected, strict=True) if f == f]
            worst = max(abs(f - e) / e for f, e in usable)
            stage.write(run=f"{stage.device}, {name}", last=found[-1], worst=worst, skipped=len(found) - len(usable))
            # an update skipped at the start shifts the later ones
            stage.check(
                len(usable) > updates // 2 and (worst < CLOSE or name == "--fp16"), f"{name} differs by {worst:.3g}"
            )
        half = updates // 2
        first = trainer(stage.device, stage.seed, folder, "bfloat16")
        losses(first, batches[:half])
        first.consolidate_optimizer()
        first.save_checkpoint(str(folder / "half.pt"), {"train_iterator": {"epoch": 1}})
        through = losses(first, batches[half:])
        second = trainer(stage.device, stage.seed + 1, folder, "bfloat16")
        second.load_checkpoint(str(folder / "half.pt"))
        resumed = losses(second, batches[half:])
        worst = max(abs(a - b) / b for a, b in zip(resumed, through, strict=True))
        stage.write(run=f"{stage.device}, resumed after {half} updates", last=resumed[-1], worst=worst)
        stage.check(worst < CLOSE / 10, f"the resumed run differs by {worst:.3g}")
    stage.finish()


if __name__ == "__main__":
    main()
