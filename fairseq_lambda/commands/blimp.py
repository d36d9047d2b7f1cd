"""``lambda-bert blimp``: tests a model's grammatical knowledge on the minimal pairs of BLiMP."""

import json
import os
import sys
import time
from pathlib import Path
from statistics import fmean

import torch

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.commands.minimal_pairs import Paradigm, read_paradigms
from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.files import sha256, whole
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.batching import MAX_TOKENS, by_length
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.scoring import METHODS, PRECISIONS, PseudoLogLikelihood

DEST = Path("outputs/blimp")  # and the model's name


def score_paradigm(hub: LambdaBertHubInterface, scorer: PseudoLogLikelihood, pairs: list[tuple[str, str]]) -> dict:
    """Return ``accuracy`` (percent), ``ties`` and ``scores`` ([good, bad] of each pair, nats) by method.

    A pair is right if its good sentence is the likelier one; equal scores count as wrong, and as a tie. Each sentence
    is scored once, however many pairs it is in.
    """
    sentences = list(dict.fromkeys(sentence for pair in pairs for sentence in pair))
    found = by_length(scorer, map(hub.encode, sentences), hub.task.source_dictionary.pad())
    sums = {
        sentence: {method: values.double().sum().item() for method, values in by_method.items()}
        for sentence, by_method in zip(sentences, found, strict=True)
    }
    result: dict[str, dict] = {"accuracy": {}, "ties": {}, "scores": {}}
    for method in scorer.methods:
        scores = [[sums[good][method], sums[bad][method]] for good, bad in pairs]
        result["accuracy"][method] = 100 * fmean(good > bad for good, bad in scores)
        result["ties"][method] = sum(good == bad for good, bad in scores)
        result["scores"][method] = [[round(score, 4) for score in pair] for pair in scores]
    return result


def blimp(
    hub: LambdaBertHubInterface,
    scorer: PseudoLogLikelihood,
    paradigms: list[Paradigm],
    folder: Path,
    settings: dict,
) -> list[dict]:
    """Return the result of each paradigm, and write it to ``folder/NAME.json`` as soon as it is complete.

    Results that exist already, with the same settings, are reused. A line on standard error reports each new result,
    the rate, and the time left.

    Raises:
        ValueError: ``folder`` holds a result with other settings.
    """
    made = {}
    for paradigm in paradigms:
        file, expected = folder / f"{paradigm.name}.json", {**settings, "data": paradigm.sha256}
        if file.is_file():
            made[paradigm.name] = _read(file, expected)
    if made:
        print(f"{len(made)} of {len(paradigms)} paradigms are already in {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    left, done, begin = sum(len(p.pairs) for p in paradigms if p.name not in made), 0, time.monotonic()
    for number, paradigm in enumerate(paradigms, 1):
        if paradigm.name in made:
            continue
        result = {
            "paradigm": paradigm.name,
            "phenomenon": paradigm.phenomenon,
            "pairs": len(paradigm.pairs),
            **score_paradigm(hub, scorer, paradigm.pairs),
            "settings": {**settings, "data": paradigm.sha256},
        }
        with whole(folder / f"{paradigm.name}.json") as part:
            part.write_text(json.dumps(result) + "\n", encoding="utf-8")
        made[paradigm.name] = result
        done += len(paradigm.pairs)
        rate = done / (time.monotonic() - begin)
        scores = ", ".join(f"{value:.1f} %" for value in result["accuracy"].values())
        print(
            f"[{number}/{len(paradigms)}] {paradigm.name}: {scores}; {rate:.0f} pairs/s, "
            f"{(left - done) / rate / 60:.1f} minutes left",
            file=sys.stderr,
            flush=True,
        )
    return [made[paradigm.name] for paradigm in paradigms]


def _read(file: Path, settings: dict) -> dict:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        theirs = result["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a result of lambda-bert blimp ({error}): remove it, or choose another --dest"
        ) from error
    differing = [f"{key} {theirs.get(key)}, now {value}" for key, value in settings.items() if theirs.get(key) != value]
    if differing:
        raise ValueError(f"{file} was made with {'; '.join(differing)}: remove it, or choose another --dest")
    return result


def summary(results: list[dict]) -> dict[str, dict]:
    """Return accuracies in percent by method: of each paradigm, each phenomenon, and ``overall``.

    A phenomenon's accuracy is the mean over its paradigms; the overall one is the mean over all paradigms, as usual.
    """
    phenomena: dict[str, list[dict]] = {}
    for result in results:
        phenomena.setdefault(result["phenomenon"] or "other", []).append(result)
    return {
        "paradigms": {result["paradigm"]: result["accuracy"] for result in results},
        "phenomena": {name: _mean(members) for name, members in sorted(phenomena.items())},
        "overall": _mean(results),
    }


def _mean(results: list[dict]) -> dict[str, float]:
    return {method: fmean(result["accuracy"][method] for result in results) for method in results[0]["accuracy"]}


def table(scores: dict, part: str, methods: list[str]) -> str:
    """Return a part of the summary as a Markdown table."""
    lines = [f"| {part} | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    rows = {**scores[part], f"**all {len(scores['paradigms'])}**": scores["overall"]}
    lines += [f"| {name} | {' | '.join(f'{row[m]:.1f}' for m in methods)} |" for name, row in rows.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert blimp checkpoints/my-run blimp/data --dest outputs/blimp/my-run"
    parser = Parser("blimp", __doc__.split(": ", 1)[1], example)
    add = parser.add_argument
    add("checkpoint", help=MODEL)
    add("data", type=Path, help="BLiMP's data folder, an archive of it, or any file of minimal pairs in JSON lines")
    add("--dest", type=Path, help=f"folder for the results; run again, it resumes (default: {DEST}/NAME)")
    add("--methods", default=",".join(METHODS), help="what is masked, see docs/scoring.md (default: %(default)s)")
    add("--paradigms", help="names of paradigms, separated by commas (default: all)")
    add("--limit", type=int, help="number of pairs to use of each paradigm, from the first (default: all)")
    add("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 where it is faster (default)")
    add("--max-tokens", type=int, default=MAX_TOKENS, help="tokens per batch (default: %(default)s)")
    add("--cpu", action="store_true", help="run on the CPU (default: on a GPU if there is one)")
    args = parser.parse_args(argv)
    for flag, value in (("--limit", args.limit), ("--max-tokens", args.max_tokens)):
        if value is not None and value < 1:
            parser.error(f"{flag} {value}: must be at least 1")
    methods = args.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        parser.error(f"--methods {','.join(unknown)}: choose from {','.join(METHODS)}")
    paradigms = _chosen(read_paradigms(args.data), args.paradigms, args.limit)
    weights = find_checkpoint(args.checkpoint)
    hub = LambdaBertModel.from_pretrained(weights)
    if torch.cuda.is_available() and not args.cpu:
        hub = hub.cuda()
    scorer = hub.scorer(methods, args.precision, args.max_tokens)
    precision = "bfloat16" if scorer.bfloat16 else "float32"
    settings = {"model": sha256(weights), "methods": methods, "precision": precision, "limit": args.limit}
    given = Path(os.path.abspath(args.checkpoint))  # not resolved: a link's own name is the one that was given
    name = f"{given.parent.name}-{given.stem}" if given.is_file() else given.name
    folder = args.dest or DEST / name
    results = blimp(hub, scorer, paradigms, folder / "paradigms", settings)
    scores = {"name": name, **settings, **summary(results)}
    with whole(folder / "scores.json") as file:
        file.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    print(f"{table(scores, 'paradigms', methods)}\n\n{table(scores, 'phenomena', methods)}")
    print(f"\naccuracy in percent, chance is 50; {precision}, torch {torch.__version__}; written to {folder}")


def _chosen(paradigms: list[Paradigm], names: str | None, limit: int | None) -> list[Paradigm]:
    """Return the paradigms with these names, each with its first ``limit`` pairs only.

    Raises:
        ValueError: a name that is not there.
    """
    if names is not None:
        wanted, known = set(names.split(",")), {paradigm.name for paradigm in paradigms}
        if wanted - known:
            raise ValueError(f"--paradigms {','.join(sorted(wanted - known))}: not in the data; it has {len(known)}")
        paradigms = [paradigm for paradigm in paradigms if paradigm.name in wanted]
    return [paradigm._replace(pairs=paradigm.pairs[:limit]) for paradigm in paradigms]
