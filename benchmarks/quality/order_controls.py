"""How well sentence order can be told without reading: logistic regressions on the pairs of pretraining.

``python benchmarks/quality/order_controls.py data-bin/enwiki`` builds the pairs of training and validation as the task
does, fits each rule to pairs of training, and tests it on all validation pairs. Of each of the two parts, a rule sees

- ``lengths``: how long it is;
- ``words``: which pieces are in it, in any order;
- ``beginnings``: its first three pieces, each by its place, and the lengths;
- ``words and beginnings``: all of these.

Every part has its own weights. Chance is the share of the more frequent label. benchmarks/results/quality/
order_controls.jsonl has a line per rule; a line of the same data and rule is replaced.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import numpy as np
from comparison import RESULTS, Results
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from fairseq_lambda.data.pairs import NO_LABEL
from fairseq_lambda.tasks.masked_lm_sop import MaskedLMSOPTask
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig

BEGINNING = 3  # pieces
RULES = {
    "lengths": ("lengths",),
    "words": ("words",),
    "beginnings": ("beginnings", "lengths"),
    "words and beginnings": ("words", "beginnings", "lengths"),
}
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse of the regularisation; chosen on held-out pairs of training
HELD_OUT = 0.1
Part = list[np.ndarray]  # the ids of one of the two parts, for each pair


def pairs(task: MaskedLMSOPTask, split: str, limit: int | None = None) -> tuple[Part, Part, np.ndarray]:
    """Return both parts and the labels, 1 if swapped, of ``limit`` pairs of the first epoch, drawn by the seed."""
    task.load_dataset(split, epoch=1)
    plan, read = task.dataset(split).plan, task.dataset(split).corpus.read
    which = np.flatnonzero(plan.labels != NO_LABEL)
    if limit is not None and limit < len(which):
        which = np.sort(np.random.default_rng(task.cfg.seed).choice(which, limit, replace=False))
    a = [read(plan.a_start[i], plan.a_size[i]) for i in which]
    b = [read(plan.b_start[i], plan.b_size[i]) for i in which]
    return a, b, plan.labels[which]


def matrix(kind: str, part: Part, vocabulary: int) -> sparse.csr_matrix:
    """Return what a rule sees of one part, a row per pair."""
    if kind == "lengths":
        sizes = np.array([len(ids) for ids in part], dtype=np.float64)
        return sparse.csr_matrix(np.stack([sizes / 100, np.log(sizes)], axis=1))
    if kind == "words":
        rows, width = [np.unique(ids) for ids in part], vocabulary
    else:
        places = vocabulary * np.arange(BEGINNING)
        rows = [ids[:BEGINNING] + places[: len(ids[:BEGINNING])] for ids in part]
        width = BEGINNING * vocabulary
    columns, ends = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(part), width))


def accuracies(train: tuple, valid: tuple, vocabulary: int) -> Iterator[tuple[str, float]]:
    """Yield each rule and its accuracy on the pairs of ``valid``, in percent."""
    share = valid[2].mean()
    yield "chance", 100 * max(share, 1 - share)
    for rule, kinds in RULES.items():
        x, test = (
            sparse.hstack([matrix(kind, part, vocabulary) for kind in kinds for part in found[:2]], format="csr")
            for found in (train, valid)
        )
        fit, held, label, held_label = train_test_split(x, train[2], test_size=HELD_OUT, shuffle=False)
        models = [LogisticRegression(C=c, solver="liblinear").fit(fit, label) for c in STRENGTHS]
        best = max(models, key=lambda model: model.score(held, held_label))
        yield rule, 100 * best.score(test, valid[2])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder made by scripts/preprocess_wikitext.sh")
    parser.add_argument("--tokens-per-sample", type=int, default=128, help="both parts together (%(default)s)")
    parser.add_argument("--pairs", type=int, default=100_000, help="most training pairs (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "order_controls.jsonl", help="results (%(default)s)")
    args = parser.parse_args(argv)
    cfg = MaskedLMSOPConfig(data=str(args.data), tokens_per_sample=args.tokens_per_sample)
    cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple = args.seed, "train", 1
    try:
        task = MaskedLMSOPTask.setup_task(cfg)
        train, valid = pairs(task, "train", args.pairs), pairs(task, "valid")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    known = {"data": args.data.resolve().name, "tokens_per_sample": args.tokens_per_sample}
    counts = {"training_pairs": len(train[2]), "pairs": len(valid[2])}
    setting, rows = measuring.setting("cpu", args.seed), []
    for rule, accuracy in accuracies(train, valid, len(task.source_dictionary)):
        measuring.say(f"{rule}: {accuracy:.1f} %")
        rows.append({**known, "rule": rule, "accuracy": round(accuracy, 2), **counts, "setting": setting})
    key = ("data", "tokens_per_sample", "rule")
    new = {tuple(row[k] for k in key) for row in rows}
    old = [line for line in Results(args.out).lines if tuple(line[k] for k in key) not in new]
    measuring.write_lines(args.out, old + rows)
    print(measuring.markdown([["rule", "accuracy, %"], *([r["rule"], f"{r['accuracy']:.1f}"] for r in rows)]))
    count = counts["pairs"]
    print(f"\n{count:,} validation pairs, standard error {50 / count**0.5:.1f}; {measuring.setting_line(setting)}")


if __name__ == "__main__":
    main()
