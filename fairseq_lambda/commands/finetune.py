"""``lambda-bert finetune``: trains a model on labelled files, and scores it."""

import argparse
import json
import re
import shlex
from pathlib import Path

import torch

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.commands import finetune_record, labelled
from fairseq_lambda.commands.finetune_data import check_test, examples_of, fraction_of, prepare
from fairseq_lambda.commands.finetune_training import fairseq_command, launch
from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.commands.score_tables import seeds_table, table
from fairseq_lambda.files import sha256, whole
from fairseq_lambda.finetuning.labels import OBJECTIVES, Labels
from fairseq_lambda.finetuning.metrics import LOWER_IS_BETTER, names_of
from fairseq_lambda.models import LambdaBertModel

SCORES = "scores.json"
DESCRIPTION = """\
Trains a head, and the model under it, on labelled files: a label, several labels or a number per text, or a label per
word. The architecture and the vocabulary come from MODEL. The epoch with the best score on the validation data is kept,
in a folder that LambdaBertModel.from_pretrained loads. The same command resumes a run. The test file is read once, at
the end. All flags that are not listed here are passed to fairseq-train, such as --lr 1e-4, --batch-size 16,
--dropout 0 or --max-epoch 3."""


def build_parser() -> Parser:
    parser = Parser(
        "finetune", DESCRIPTION,
        "lambda-bert finetune my-bert --train cola/train.tsv --test cola/dev.tsv --text 4 --label 2 --metric matthews",
    )  # fmt: skip
    add = parser.add_argument
    add("model", help=MODEL)
    add(
        "--train", required=True, metavar="FILE",
        help="training data: tsv, csv, jsonl, conllu, conll or trec; also compressed (.xz, .gz, .bz2, .zst)",
    )  # fmt: skip
    add(
        "--valid",
        default="0.1",
        metavar="FILE-or-FRACTION",
        help="validation data to select by: a file, or a fraction that is split off from --train (default: 0.1)",
    )
    add("--test", metavar="FILE", help="test data, scored once, at the end (default: none)")
    labelled.add_columns(parser)
    add("--labels", metavar="NAME,...", help="all labels, in this order (default: those in --train, sorted)")
    add(
        "--objective",
        choices=OBJECTIVES,
        help="what to predict (default: inferred from the labels; regression must be given)",
    )
    add(
        "--metric",
        help="score to select by (default: accuracy, micro_f1, pearson or span_f1; also matthews, f1, macro_f1, ...)",
    )
    add("--save-dir", type=Path, help="folder for the model and its scores (default: checkpoints/MODEL-NAME_OF_DATA)")
    add("--seed", type=int, default=1, help="seed of the split, the head and the order (default: %(default)s)")
    add(
        "--seeds",
        metavar="N,N,...",
        help="train once per seed, on one split, and show mean and standard deviation (default: --seed)",
    )
    add("--nproc", default="1", help="number of processes, one per GPU or several on the CPU (default: %(default)s)")
    add(
        "--autocast", choices=("none", "bfloat16"),
        help="precision in training (default: bfloat16 if the hardware is faster in it, none with --fp16 or --amp)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="prepare the data, but only print the fairseq-train commands")
    add("--quiet", action="store_true", help="do not print a line per validation")
    parser.epilog += """

flags of fairseq-train and the task, among others:
  --freeze-encoder        train the head only
  --layer-decay 0.9       lower learning rates for lower layers
  --class-weights WHAT    balanced, or NAME=WEIGHT,...
  --patience N            stop after N validations without a better one
  --max-length N          longest sample in tokens (default: the model's limit, or 512 if it has none)
"""
    return parser


def main(argv: list[str]) -> None:
    parser = build_parser()
    args, user = parser.parse_known_args(argv or ["--help"])
    user = [re.sub("^--max-sentences(?==|$)", "--batch-size", word) for word in user]  # fairseq's name of old
    seeds = _seeds(parser, args)
    if not re.fullmatch("[1-9][0-9]*", args.nproc):
        parser.error(f"--nproc {args.nproc}: must be a whole number of at least 1")
    for flag in ("--save-dir", "--task", "--criterion", "--arch"):
        if flag in {word.partition("=")[0] for word in user}:
            parser.error(f"{flag} follows from the model and the files: leave it out")
    for flag, path in (("--train", args.train), ("--valid", _valid_file(args)), ("--test", args.test)):
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"{flag} {path}: there is no such file")
    hub = LambdaBertModel.from_pretrained(args.model)
    hub.require_pieces()
    save_dir = args.save_dir or Path("checkpoints", f"{_name(args.model)}-{_data_name(args.train)}")
    labels, sizes = prepare(hub, args, save_dir / "data")
    if args.test:
        check_test(args, labels)
    metric = args.metric or names_of(labels)[0]
    if metric not in names_of(labels):
        parser.error(f"--metric {metric}: {labels.objective} has {', '.join(names_of(labels))}")
    runs = [save_dir if len(seeds) == 1 else save_dir / f"seed-{seed}" for seed in seeds]
    results = []
    for seed, folder in zip(seeds, runs, strict=True):
        if len(seeds) > 1:
            print(f"\nseed {seed}, {folder}", flush=True)
        command = fairseq_command(hub, args, user, labels, metric, save_dir / "data", folder, seed)
        if args.dry_run:
            print(shlex.join(command))
            continue
        results.append(run(command, args, labels, metric, folder, sizes))
    if args.dry_run:
        return
    if len(seeds) > 1:
        print("\n" + seeds_table(results, seeds, labels))
        best = runs[best_of(results, metric)]
        print(f"\nbest on the validation data by {metric}: {best}")


def _seeds(parser: Parser, args: argparse.Namespace) -> list[int]:
    flag = f"--seeds {args.seeds}" if args.seeds else f"--seed {args.seed}"
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else [args.seed]
    except ValueError:
        parser.error(f"{flag}: must be whole numbers, such as 1,2,3")
    if min(seeds) < 0:
        parser.error(f"{flag}: must be at least 0")
    if len(set(seeds)) != len(seeds):
        parser.error(f"{flag}: a seed is given twice")
    return seeds


def _valid_file(args: argparse.Namespace) -> str | None:
    return args.valid if fraction_of(args) is None else None


def _name(model: str) -> str:
    return find_checkpoint(model).parent.resolve().name


def _data_name(file: str) -> str:
    stem = re.sub(r"\..*", "", Path(file).name)
    return Path(file).resolve().parent.name if stem in ("train", "") else stem


def run(command: list[str], args, labels: Labels, metric: str, folder: Path, sizes: dict) -> dict:
    """Train, or resume, and score; return the contents of ``scores.json``. A complete run is not scored again."""
    made_by = {"command": command, "test": sha256(args.test) if args.test else None}
    file = folder / SCORES
    folder.mkdir(parents=True, exist_ok=True)
    before = _scores_before(file)
    finetune_record.check(folder, finetune_record.made_by(command, sha256(find_checkpoint(args.model))))
    if before is not None and before["made_by"] == made_by:
        print(f"{folder} is complete: nothing left to do (use another --save-dir to start afresh)")
        print("\n" + table(before["splits"], labels))
        return before
    launch(command, metric, folder, args.quiet)
    hub = LambdaBertModel.from_pretrained(folder)
    if torch.cuda.is_available() and "--cpu" not in command:
        hub = hub.cuda()
    splits = {"valid": score(hub, args, "valid", sizes)}
    if args.test:
        splits["test"] = score(hub, args, "test", sizes)
    report = {
        "objective": labels.objective, "labels": labels.names, "metric": metric, "model": _name(args.model),
        "data": _data_name(args.train), "splits": splits, "made_by": made_by,
    }  # fmt: skip
    with whole(file) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n" + table(splits, labels))
    print(f'\nLambdaBertModel.from_pretrained("{folder}") loads it; scores in {file}')
    return report


def _scores_before(file: Path) -> dict | None:
    """Return the contents of ``scores.json``, None if there is none.

    Raises:
        ValueError: it is not of this command.
    """
    if not file.is_file():
        return None
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        before["made_by"], before["splits"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} was not written by lambda-bert finetune: choose another --save-dir") from error
    return before


def score(hub, args: argparse.Namespace, split: str, sizes: dict[str, int]) -> dict:
    """Return the scores of a split, read from its file."""
    source, examples = examples_of(args, split, sizes)
    result = labelled.evaluate(hub, examples, source.name)
    if split == "test":
        for note in source.notes():
            print(note, flush=True)
    return result


def best_of(results: list[dict], metric: str) -> int:
    """Return the index of the run that is best on the validation data."""
    values = [result["splits"]["valid"][metric] for result in results]
    return values.index(min(values) if metric in LOWER_IS_BETTER else max(values))
