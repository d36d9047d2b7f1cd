"""``lambda-bert finetune``: from labelled files to a model that labels, scored."""

import argparse
import hashlib
import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.commands import labelled, train
from fairseq_lambda.commands.flags import last_value, recipe_flags
from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.commands.score_tables import seeds_table, table
from fairseq_lambda.commands.training_lines import TrainingLines
from fairseq_lambda.config import finetuning_schedule, learning_rate, read_finetuning_recipe
from fairseq_lambda.files import sha256, whole, whole_folder
from fairseq_lambda.finetuning.labels import OBJECTIVES, Labels, divide, learn_labels, part
from fairseq_lambda.finetuning.metrics import LOWER_IS_BETTER, names_of
from fairseq_lambda.finetuning.prepare import write_split
from fairseq_lambda.hardware import multiplies_bfloat16
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig

# Options of the model that are a matter of this training, of the machine, or said otherwise.
NOT_TAKEN_OVER = {
    "dropout", "attention_dropout", "activation_dropout", "pooler_dropout", "encoder_layerdrop", "lambda_backend",
    "checkpoint_activations", "load_checkpoint_heads", "max_positions",
}  # fmt: skip
SCORES = "scores.json"
DESCRIPTION = """\
Trains a head, and the model under it, on labelled files: classes, several labels per text, numbers, or one label a word.
MODEL is a training folder, a checkpoint or an exported folder; architecture and pieces come from it. The best epoch by
the task's score on the validation data is kept, and a folder that LambdaBertModel.from_pretrained loads. Run again, it
resumes. The test file is read once, at the end. Flags that are not listed here go to fairseq-train as they are, such as
--lr 1e-4, --batch-size 16, --dropout 0 or --max-epoch 3."""


def build_parser() -> Parser:
    parser = Parser(
        "finetune", DESCRIPTION,
        "lambda-bert finetune my-bert --train cola/train.tsv --test cola/dev.tsv --text 4 --label 2 --metric matthews",
    )  # fmt: skip
    add = parser.add_argument
    add("model", help="training folder, checkpoint or exported folder")
    add("--train", required=True, metavar="FILE", help="tsv, csv, jsonl, conllu, conll or trec; also .gz, .xz and .bz2")
    add(
        "--valid",
        default="0.1",
        metavar="FILE-or-FRACTION",
        help="to select by; a fraction is split off (default: 0.1)",
    )
    add("--test", metavar="FILE", help="scored once, at the end (default: none)")
    labelled.add_columns(parser)
    add("--labels", metavar="NAME,...", help="all labels, in this order (default: those of --train, sorted)")
    add("--objective", choices=OBJECTIVES, help="(default: by the file; regression has to be asked for)")
    add(
        "--metric",
        help="to select by (default: accuracy, micro_f1, pearson or span_f1; also matthews, f1, macro_f1, ...)",
    )
    add("--save-dir", type=Path, help="(default: checkpoints/MODEL-NAME_OF_THE_DATA)")
    add("--seed", type=int, default=1, help="of the split, the head and the order (default: %(default)s)")
    add(
        "--seeds",
        metavar="N,N,...",
        help="train once per seed, on one split, and show mean and spread (default: --seed)",
    )
    add("--nproc", default="1", help="processes: GPUs, or CPU ranks (default: %(default)s)")
    add(
        "--autocast", choices=("none", "bfloat16"),
        help="precision in training (default: bfloat16 where the hardware multiplies it, none beside --fp16, --amp)",
    )  # fmt: skip
    add("--dry-run", action="store_true", help="print the fairseq-train commands only, over data that is prepared")
    add("--quiet", action="store_true", help="no line per validation")
    parser.epilog += """

of fairseq-train and the task, among others:
  --freeze-encoder        train the head alone: a linear probe
  --layer-decay 0.9       lower learning rates for lower layers
  --class-weights WHAT    balanced, or NAME=WEIGHT,...
  --patience N            stop after N validations without a better one
  --max-length N          longest sample in tokens (default: what the model reads, or 512)
"""
    return parser


def main(argv: list[str]) -> None:
    parser = build_parser()
    args, user = parser.parse_known_args(argv or ["--help"])
    seeds = _seeds(parser, args)
    if not re.fullmatch("[1-9][0-9]*", args.nproc):
        parser.error(f"--nproc {args.nproc}: a number of at least 1")
    for flag in ("--save-dir", "--task", "--criterion", "--arch"):
        if flag in {word.partition("=")[0] for word in user}:
            parser.error(f"{flag} follows from the model and the files")
    for flag, path in (("--train", args.train), ("--valid", _valid_file(args)), ("--test", args.test)):
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"{flag} {path}: there is no such file")
    hub = LambdaBertModel.from_pretrained(args.model)
    hub.require_pieces()
    save_dir = args.save_dir or Path("checkpoints", f"{_name(args.model)}-{_data_name(args.train)}")
    labels, sizes = prepare(hub, args, save_dir / "data")
    metric = args.metric or names_of(labels)[0]
    if metric not in names_of(labels):
        parser.error(f"--metric {metric}: {labels.objective} has {', '.join(names_of(labels))}")
    runs = [save_dir if len(seeds) == 1 else save_dir / f"seed-{seed}" for seed in seeds]
    results = []
    for seed, folder in zip(seeds, runs, strict=True):
        if len(seeds) > 1:
            print(f"\nseed {seed}, {folder}", flush=True)
        command = fairseq_command(hub, args, user, labels, sizes["train"], metric, save_dir / "data", folder, seed)
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
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else [args.seed]
    except ValueError:
        parser.error(f"--seeds {args.seeds}: whole numbers with commas, such as 1,2,3")
    if len(set(seeds)) != len(seeds):
        parser.error(f"--seeds {args.seeds}: one of them is there twice")
    return seeds


def _valid_file(args: argparse.Namespace) -> str | None:
    return args.valid if _fraction(args) is None else None


def _fraction(args: argparse.Namespace) -> float | None:
    """Return --valid as a fraction, None if it is a file."""
    try:
        fraction = float(args.valid)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise ValueError(f"--valid {args.valid}: a file, or a fraction of --train above 0 and below 1, such as 0.1")
    return fraction


def _name(model: str) -> str:
    path = Path(model).resolve()
    return path.name if path.is_dir() else path.parent.name


def _data_name(file: str) -> str:
    stem = re.sub(r"\..*", "", Path(file).name)
    return Path(file).resolve().parent.name if stem in ("train", "") else stem


def prepare(hub, args: argparse.Namespace, folder: Path) -> tuple[Labels, dict[str, int]]:
    """Return the labels and the sizes of the splits; make the data folder, unless it is there.

    Raises:
        ValueError: the files are not as the flags say, or the folder was made of others.
    """
    names = args.labels.split(",") if args.labels else None
    dictionary = hub.task.source_dictionary
    made_of = {
        "train": sha256(args.train),
        "valid": args.valid if _fraction(args) is not None else sha256(args.valid),
        "seed": args.seed if _fraction(args) is not None else None,
        "columns": [args.text, args.label, args.label_separator, args.format, args.header],
        "labels": names,
        "objective": args.objective,
        "vocabulary": hash_of(dictionary.symbols),
    }
    if folder.is_dir():
        labels, before = Labels.load(folder)
        sizes = before.pop("sizes")
        if before != made_of:
            changed = ", ".join(key for key in made_of if made_of[key] != before.get(key))
            raise ValueError(
                f"{folder.parent} holds a fine-tuning on other data ({changed}): choose another --save-dir"
            )
        print(f"data: {folder}, as prepared before", flush=True)
        return labels, sizes
    train_source = labelled.source(args, args.train)
    labels = learn_labels(train_source, args.train, args.objective, names)
    for note in train_source.notes():
        print(note, flush=True)
    held_out = None
    splits = {"train": train_source, "valid": train_source}
    if _fraction(args) is not None:
        if labels.examples < 2:
            raise ValueError(f"{args.train} has one example: nothing can be split off")
        held_out = divide(labels.examples, _fraction(args), args.seed)
    else:
        splits["valid"] = labelled.source(args, args.valid)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sizes = {}
    with whole_folder(folder) as new:
        for split, source in splits.items():
            examples = part(source, held_out, split == "valid")
            sizes[split] = write_split(new, split, examples, labels, _encoder(hub, labels), source.name, dictionary)
            if sizes[split] == 0:
                raise ValueError(f"{source.name} is empty")
        dictionary.save(str(new / "dict.txt"))
        (new / "sentencepiece.model").write_bytes(hub.bpe.processor.serialized_model_proto())
        labels.save(new, {**made_of, "sizes": sizes})
    if held_out is None:
        for note in splits["valid"].notes():
            print(note, flush=True)
    shown = ", ".join(labels.names[:20]) + (", ..." if len(labels.names) > 20 else "")
    what = f"{len(labels.names)} labels ({shown})" if labels.names else "regression"
    print(f"data: {sizes['train']:,} texts to train on, {sizes['valid']:,} to select by; {what}", flush=True)
    return labels, sizes


def _encoder(hub, labels: Labels):
    return hub.word_ids if labels.objective == "tagging" else hub.piece_ids


def hash_of(symbols) -> str:
    """Return a short hash of a list of symbols."""
    return hashlib.sha256("\n".join(symbols).encode("utf-8", "replace")).hexdigest()[:16]


def fairseq_command(hub, args, user, labels: Labels, size: int, metric: str, data: Path, folder: Path, seed: int):
    """Return the command that trains."""
    recipe = read_finetuning_recipe()
    gpus = 0 if "--cpu" in user else torch.cuda.device_count()
    task = "lambda_sequence_tagging" if labels.objective == "tagging" else "lambda_sentence_prediction"
    autocast = args.autocast
    if autocast is None:
        fast = multiplies_bfloat16("cuda" if gpus else "cpu") and train.FLOAT16.isdisjoint(user)
        autocast = "bfloat16" if fast else "none"
    epochs = int(last_value(user, "--max-epoch") or recipe.optimization.max_epoch)
    batch = int(last_value(user, "--batch-size") or recipe.dataset.batch_size) * int(args.nproc)
    batch *= int((last_value(user, "--update-freq") or "1").split(",")[0])
    updates = int(last_value(user, "--max-update") or 0) or epochs * math.ceil(size / batch)
    model = model_options(hub)
    recipe.merge_with({
        "common": {"seed": seed},
        "task": {"_name": task},
        "criterion": {"_name": task, "autocast": autocast},
        "dataset": {"required_seq_len_multiple": 1 if autocast == "none" else 8},
        "optimization": {"lr": [learning_rate(hub.cfg.model.encoder_embed_dim)]},
        "checkpoint": {
            "save_dir": str(folder), "best_checkpoint_metric": metric,
            "maximize_best_checkpoint_metric": metric not in LOWER_IS_BETTER,
            "finetune_from_model": str(find_checkpoint(args.model)),
        },
        "model": model,
        **finetuning_schedule(updates),
    })  # fmt: skip
    device = [] if gpus or "--cpu" in user else ["--cpu"]
    return [*train.launcher(args.nproc, None), str(data), *recipe_flags(without_false(recipe), user), *device, *user]


def model_options(hub) -> dict:
    """Return the options of the architecture, as they are in the checkpoint."""
    cfg, bert = hub.cfg.model, hub.model.encoder.bert
    options = {f.name: cfg[f.name] for f in fields(LambdaBertConfig) if f.name in cfg and f.name not in NOT_TAKEN_OVER}
    if hub.model.max_positions() == bert.options.max_positions:  # there is a table of so many
        options["max_positions"] = bert.options.max_positions
    name = str(cfg.get("_name") or "lambda_bert")
    return {"_name": name, **options}


def without_false(recipe: DictConfig) -> DictConfig:
    """Return the recipe without flags that are off: on a command line they are left out."""
    sections = OmegaConf.to_container(recipe, resolve=True)
    return OmegaConf.create({
        section: {key: value for key, value in options.items() if value is not False and value is not None}
        for section, options in sections.items()
    })  # fmt: skip


def run(command: list[str], args, labels: Labels, metric: str, folder: Path, sizes: dict) -> dict:
    """Train, or resume, and score; return what ``scores.json`` holds. A run that is complete is not scored again."""
    made_by = {"command": command, "test": sha256(args.test) if args.test else None}
    file = folder / SCORES
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before["made_by"] == made_by:
            print(f"{folder} is complete: nothing left to do (another --save-dir starts afresh)")
            print("\n" + table(before["splits"], labels))
            return before
    folder.mkdir(parents=True, exist_ok=True)
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


def launch(command: list[str], metric: str, folder: Path, quiet: bool) -> None:
    """Run the training; its whole log goes to ``train.log``, the gist to standard output."""
    gpus = 0 if "--cpu" in command else torch.cuda.device_count()
    lines = TrainingLines(metric)
    with (
        open(folder / "train.log", "a", encoding="utf-8") as log,
        subprocess.Popen(
            command, env=train.environment(gpus), stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        ) as process,
    ):
        log.write(shlex.join(command) + "\n")
        for text in process.stdout:
            log.write(text)
            log.flush()
            if not quiet:
                lines.line(text)
    if process.returncode:
        sys.exit(process.returncode if process.returncode > 0 else 1)


def score(hub, args, split: str, sizes: dict) -> dict:
    """Return the scores of a split, read from its file."""
    fraction = _fraction(args) if split == "valid" else None
    path = args.train if fraction is not None else args.valid if split == "valid" else args.test
    source = labelled.source(args, path)
    examples = source
    if fraction is not None:
        examples = part(source, divide(sizes["train"] + sizes["valid"], fraction, args.seed), True)
    result = labelled.evaluate(hub, examples, source.name)
    if split == "test":
        for note in source.notes():
            print(note, flush=True)
    return result


def best_of(results: list[dict], metric: str) -> int:
    """Return the index of the run that is best on the validation data."""
    values = [result["splits"]["valid"][metric] for result in results]
    return values.index(min(values) if metric in LOWER_IS_BETTER else max(values))
