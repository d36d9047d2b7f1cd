"""Is it the length? Long samples read whole, and the same tokens under the same masks in windows of training's length.

``python benchmarks/quality/length_control.py data-bin/wikitext-2 checkpoints/quality/length/*`` takes the validation
samples of several lengths. Read in windows, ``<s> W </s>`` with as many tokens as a sample of training
has, a token counts in the window that it is nearest the middle of. What reading more at once does to a model is the
ratio of the two perplexities; that samples of another length are other samples, easier or harder, drops out.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import numpy as np
import pictures
import torch
from comparison import RESULTS
from fairseq import utils

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface

COLUMNS = {
    "model": ("model",),
    "tokens": ("tokens",),
    "read whole": ("whole", 1, 2),
    "in windows": ("windows", 1, 2),
    "whole / windows": ("ratio", 1, 3),
    "±": ("standard_error", 1, 3),
}


def windows(tokens: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the start of each window over ``tokens``, (windows,), and the window of each token, (tokens,).

    A token's window is the one whose middle is nearest. They are a quarter of their width apart, so that it has at
    least three eighths of it on both sides, 47 tokens of 126, unless the sample ends before.
    """
    last, step = max(0, tokens - width), max(1, width // 4)
    starts = np.append(np.arange(0, last, step), last)
    middles = starts + (min(width, tokens) - 1) / 2
    return starts, np.abs(np.arange(tokens)[:, None] - middles).argmin(1)


def in_windows(source: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a sample ``<s> text </s>`` in windows of ``width`` tokens, (windows, width + 2).

    And the row and the column of each token of the text, two (tokens,).
    """
    text = source[1:-1]
    starts, row = windows(len(text), width)
    columns = np.arange(min(width, len(text)))
    pieces = text[starts[:, None] + columns]
    first, last = (np.full((len(starts), 1), source[i]) for i in (0, -1))
    return np.hstack([first, pieces, last]), row, 1 + np.arange(len(text)) - starts[row]


@torch.no_grad()
def losses(hub: LambdaBertHubInterface, tokens: torch.Tensor, rows, columns, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of the labels at these places of a batch without padding, (labels,) in nats."""
    rows, columns = (torch.as_tensor(x) for x in (rows, columns))
    net_input = {"src_tokens": tokens, "src_lengths": torch.full((len(tokens),), tokens.size(1)), "has_padding": False}
    places = rows * tokens.size(1) + columns
    batch = {"net_input": net_input, "places": places, "labels": labels}
    batch = utils.move_to_cuda(batch) if hub.device.type == "cuda" else batch
    logits, _ = hub.model(**batch["net_input"], masked_tokens=batch["places"])
    return torch.nn.functional.cross_entropy(logits.float(), batch["labels"], reduction="none").cpu()


def read(hub: LambdaBertHubInterface, length: int, width: int) -> dict:
    """Return what is found in the validation samples of ``length`` tokens; ``width`` is that of a window's text.

    Raises:
        ValueError: the model has no positions for this length.
    """
    if length > hub.model.max_positions():
        raise ValueError(f"--lengths {length}: the model has {hub.model.max_positions()} positions; name fewer tokens")
    hub.task.cfg.tokens_per_sample = length
    hub.task.load_dataset("valid")
    dataset = hub.task.dataset("valid")
    whole, pieces = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        source, target = sample["source"].numpy(), sample["target"].numpy()
        at = np.flatnonzero(target != dataset.pad)
        if len(at) == 0:
            continue
        labels = torch.from_numpy(target[at])
        whole.append(losses(hub, sample["source"][None], np.zeros_like(at), at, labels))
        batch, row, column = in_windows(source, width)
        pieces.append(losses(hub, torch.from_numpy(batch), row[at - 1], column[at - 1], labels))
    difference = np.array([(a - b).sum().item() for a, b in zip(whole, pieces, strict=True)])
    whole, pieces = torch.cat(whole), torch.cat(pieces)
    log_ratio = (whole - pieces).mean().item()
    return {
        "tokens": length,
        "samples": len(difference),
        "masked_tokens": len(whole),
        "whole": math.exp(whole.mean().item()),
        "windows": math.exp(pieces.mean().item()),
        "ratio": math.exp(log_ratio),
        # samples are what is independent: the spread of their sums
        "standard_error": float(math.exp(log_ratio) * difference.std(ddof=1) * len(difference) ** 0.5 / len(whole)),
    }


def draw(rows: list[dict], path: Path) -> None:
    ratios = [
        (model, [(row["tokens"], row["ratio"]) for row in rows if row["model"] == model])
        for model in dict.fromkeys(row["model"] for row in rows)
    ]
    ticks = sorted({row["tokens"] for row in rows})
    panel = pictures.Panel("tokens read at once", "perplexity over that in windows of training's length", ratios, ticks)
    pictures.draw(path, "What reading more than in training does", [panel])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("checkpoints", type=Path, nargs="+", help="training folders")
    parser.add_argument("--lengths", default="128,512,2048", help="tokens of a sample, with commas (%(default)s)")
    parser.add_argument("--json", type=Path, default=RESULTS / "length_control.jsonl")
    args = parser.parse_args(argv)
    rows = []
    try:
        for folder in args.checkpoints:
            measuring.say(folder.name)
            hub = LambdaBertModel.from_pretrained(folder, "checkpoint_last.pt")
            hub = hub.cuda() if torch.cuda.is_available() else hub
            hub.task.cfg.data = str(args.data)
            width = hub.task.cfg.tokens_per_sample - 2
            rows += [{"model": folder.name, **read(hub, int(n), width)} for n in args.lengths.split(",")]
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    setting = measuring.setting("cuda" if torch.cuda.is_available() else "cpu", hub.task.cfg.seed)
    print(f"{measuring.table(rows, COLUMNS)}\n\n{measuring.setting_line(setting)}")
    known = {"data": args.data.resolve().name, "setting": setting}
    measuring.write_lines(args.json, [row | known for row in rows])
    draw(rows, args.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
