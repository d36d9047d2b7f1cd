"""How far sentence order is told by what is not order: two controls for the accuracy of the sentence head.

``python benchmarks/quality/order_controls.py data-bin/wikitext-2`` makes the pairs of training and validation as the
task does, and fits two rules to those of training: ``lengths``, logistic regression on the lengths of the two parts,
and ``bag of words``, on which pieces each part has. What they reach on the validation pairs needs no reading of
sentences; chance is the share of the more frequent label.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import numpy as np
import torch
import torch.nn.functional as F
from comparison import RESULTS

from fairseq_lambda.data.pairs import NO_LABEL
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig

HELD_OUT = 0.1  # of the pairs of training, to choose how long to fit


def pairs(task: MaskedLMSOPTask, split: str, epoch: int) -> tuple[list, list, torch.Tensor]:
    """Return the two parts of each labelled pair of an epoch, arrays of ids, and the labels (pairs,): 1 is swapped."""
    task.load_dataset(split, epoch=epoch)
    plan, read = task.dataset(split).plan, task.dataset(split).corpus.read
    which = np.flatnonzero(plan.labels != NO_LABEL)
    firsts = [read(plan.a_start[i], plan.a_size[i]) for i in which]
    seconds = [read(plan.b_start[i], plan.b_size[i]) for i in which]
    return firsts, seconds, torch.from_numpy(plan.labels[which]).float()


class Lengths:
    """Pairs as the lengths of their two parts: weights on both, in units of 100 tokens, and on their logarithms."""

    weights = 4

    def __init__(self, firsts: list, seconds: list, vocabulary: int):
        lengths = torch.tensor([[len(a), len(b)] for a, b in zip(firsts, seconds, strict=True)], dtype=torch.float32)
        self.features = torch.cat([lengths / 100, lengths.log()], dim=1)

    def logits(self, weights: torch.Tensor) -> torch.Tensor:
        return self.features @ weights


class Bags:
    """Pairs as sets of pieces: a weight for each piece in the first part, and one for each in the second."""

    def __init__(self, firsts: list, seconds: list, vocabulary: int):
        self.weights = 2 * vocabulary
        sets = [
            np.concatenate([np.unique(a), np.unique(b).astype(np.int64) + vocabulary])
            for a, b in zip(firsts, seconds, strict=True)
        ]
        self.pieces = torch.from_numpy(np.concatenate(sets).astype(np.int64))
        self.starts = torch.tensor([0, *map(len, sets)]).cumsum(0)[:-1]

    def logits(self, weights: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(self.pieces, weights[:, None], self.starts, mode="sum").squeeze(1)


def fit(train, labels: torch.Tensor, held, held_labels: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights and bias of the step at which the held-out pairs were told best."""
    weights, bias = torch.zeros(train.weights, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=0.02)
    best, kept = -1.0, None
    for _ in range(steps):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(train.logits(weights) + bias, labels).backward()
        optimizer.step()
        score = accuracy(held, held_labels, weights, bias)
        if score > best:
            best, kept = score, (weights.detach().clone(), bias.detach().clone())
    return kept


@torch.no_grad()
def accuracy(pairs_, labels: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor) -> float:
    return ((pairs_.logits(weights) + bias > 0).float() == labels).float().mean().item()


def controls(task: MaskedLMSOPTask, epochs: int, steps: int) -> tuple[dict[str, float], int]:
    """Return the accuracy of chance and of both rules on the validation pairs, in percent, and how many these are."""
    vocabulary = len(task.source_dictionary)
    *valid, valid_labels = pairs(task, "valid", 1)
    every = [pairs(task, "train", epoch) for epoch in range(1, epochs + 1)]
    # the first of the corpus in every epoch, hence of documents that the others are not of
    held = [[part[: int(HELD_OUT * len(part))] for part in epoch] for epoch in every]
    rest = [[part[int(HELD_OUT * len(part)) :] for part in epoch] for epoch in every]
    share = valid_labels.mean().item()
    scores = {"chance": 100 * max(share, 1 - share)}
    for name, kind in {"lengths": Lengths, "bag of words": Bags}.items():
        sets = [
            (
                kind(sum((e[0] for e in part), []), sum((e[1] for e in part), []), vocabulary),
                torch.cat([e[2] for e in part]),
            )
            for part in (rest, held)
        ]
        best = fit(*sets[0], *sets[1], steps)
        scores[name] = 100 * accuracy(kind(*valid, vocabulary), valid_labels, *best)
    return scores, len(valid_labels)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of scripts/preprocess_wikitext.sh")
    parser.add_argument("--tokens-per-sample", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3, help="of training pairs, each with its own (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of fitting (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS / "order_controls.jsonl")
    args = parser.parse_args(argv)
    cfg = MaskedLMSOPConfig(data=str(args.data), tokens_per_sample=args.tokens_per_sample)
    cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple = args.seed, "train", 1
    scores, count = controls(MaskedLMSOPTask.setup_task(cfg), args.epochs, args.steps)
    rows = [{"rule": rule, "accuracy": score, "pairs": count} for rule, score in scores.items()]
    table = [[row["rule"], f"{row['accuracy']:.1f} %"] for row in rows]
    print(measuring.markdown([["rule", f"accuracy on {count:,} validation pairs"], *table]))
    setting = measuring.setting("cpu", args.seed)
    print(f"\nstandard error {50 / count**0.5:.1f} points; {measuring.setting_line(setting)}")
    known = {"data": args.data.resolve().name, "tokens_per_sample": args.tokens_per_sample, "setting": setting}
    measuring.write_lines(args.json, [row | known for row in rows])


if __name__ == "__main__":
    main()
