"""``python -m fairseq_lambda.corpora.prepare CORPUS``: from text to a data folder for fairseq-train.

There are three stages: from texts to sentences, from sentences to a vocabulary, from sentences to binary files. Their
results are kept in a folder beside the destination, from which an interrupted run resumes. The destination is complete
or absent.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from fairseq_lambda.corpora.binarise import SplitCounts, binarise
from fairseq_lambda.corpora.characters import plan_characters
from fairseq_lambda.corpora.checks import refuse_nonsense, warnings_of
from fairseq_lambda.corpora.documents import DIVIDERS, Layout
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.held_out import larger_fraction
from fairseq_lambda.corpora.json_lines import FIELD
from fairseq_lambda.corpora.languages import language_rules
from fairseq_lambda.corpora.layout import layout_of
from fairseq_lambda.corpora.local import SPLITS, describe, keep_standard_input, name_of
from fairseq_lambda.corpora.options import VALID_FRACTION, VOCAB_SIZE, parse
from fairseq_lambda.corpora.prepared_folder import MODEL, REPORT, format_report, is_up_to_date, outputs, write_report
from fairseq_lambda.corpora.progress import heartbeat, report_progress
from fairseq_lambda.corpora.shared_vocabulary import DICTIONARY, Vocabulary, read_vocabulary
from fairseq_lambda.corpora.sources import STANDARD_INPUT, Source, file_source, find_source, is_undivided
from fairseq_lambda.corpora.splitting import TRAIN, VALID, Splitting, split_files
from fairseq_lambda.corpora.training_text import TextStatistics
from fairseq_lambda.corpora.unfinished import Unfinished
from fairseq_lambda.corpora.vocabulary import Lesson, check_size, learner, sampling_step
from fairseq_lambda.corpora.workers import Workers
from fairseq_lambda.files import sha256, whole

# raise this number with every change in reading, splitting or encoding that alters the result
RECIPE = 2
_SMALL = 4 << 20  # bytes; below this, starting processes takes longer than the work


def main(argv: list[str] | None = None, read_other: Callable[[Path], Vocabulary] | None = None) -> int:
    """Prepare a corpus and return the exit code: 0, 1 for an error, 130 for an interruption.

    Args:
        argv: the command line; by default that of the process.
        read_other: reads the vocabulary of a model, which this package cannot do.

    Raises:
        SystemExit: with code 2 for wrong usage, 143 if terminated.
    """
    arguments = parse(argv)
    # so that a terminated job ends its worker processes, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prepare(arguments, read_other)
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}; free some space or choose another place, and run again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def prepare(arguments: argparse.Namespace, read_other: Callable[[Path], Vocabulary] | None = None) -> None:
    """Build the result unless it is there, and print the report.

    Raises:
        PrepareError: something that the user can fix.
    """
    started = time.monotonic()
    language_rules(arguments.language)
    given = read_vocabulary(arguments.vocabulary_from, read_other) if arguments.vocabulary_from else None
    from_input = arguments.corpus == STANDARD_INPUT
    # of a link, the folder that it means: another one in its place could be on a disk that is too small
    dest = Path(os.path.realpath(arguments.dest or Path("data-bin") / name_of(arguments.corpus)))
    fraction = arguments.valid_fraction
    if fraction is None and (from_input or is_undivided(arguments.corpus)):
        fraction = VALID_FRACTION
        report_progress(f"one text: {fraction:.0%} of its documents become the valid split (--valid-fraction)")
    if not from_input:
        downloads = arguments.downloads or dest.parent / "downloads"
        read = tuple(split for split in SPLITS if fraction is None or split != VALID)
        source = find_source(arguments.corpus, arguments.form, downloads, tuple(arguments.mirror), splits=read)
        settings = _settings(arguments, source, fraction, given)
        if is_up_to_date(dest, settings, arguments.force, _made(source, fraction)):
            Unfinished(dest).remove_leftover()
            return
    with Unfinished(dest) as work:
        if from_input:
            text = work.path / "standard input"
            keep_standard_input(text)
            source = file_source(text, text.name)
            settings = _settings(arguments, source, fraction, given)
            if is_up_to_date(dest, settings, arguments.force, _made(source, fraction)):
                return
            work.begin(settings, keep=(text,))
        else:
            work.begin(settings)
        report = build(source, settings, work, given, arguments.workers)
        work.publish((*outputs(_made(source, fraction)), REPORT))
    print(format_report(report))
    print(f"{dest}: ready in {time.monotonic() - started:.0f} s")


def _made(source: Source, fraction: float | None) -> tuple[str, ...]:
    return tuple(split for split in SPLITS if split in source.splits or (split == VALID and fraction))


def _settings(arguments: argparse.Namespace, source: Source, fraction: float | None, given: Vocabulary | None) -> dict:
    """Return everything that the result depends on; None for options newer than the oldest prepared folders."""
    return {
        "recipe": RECIPE,
        "corpus": Path(arguments.corpus).name,
        "source": source.identity,
        "vocab_size": given.size if given else arguments.vocab_size or VOCAB_SIZE,
        "keep_moses": arguments.keep_moses,
        "documents": arguments.documents,
        "language": arguments.language,
        "character_coverage": arguments.character_coverage,
        "byte_fallback": arguments.byte_fallback,
        "vocabulary_from": given.digest if given else None,
        "valid_fraction": fraction,
        "text_field": None if arguments.text_field == FIELD else arguments.text_field,
    }


def build(source: Source, settings: dict, work: Unfinished, given: Vocabulary | None, workers: int) -> dict:
    """Write the files of the result to ``work.path`` and return the report.

    Raises:
        PrepareError: something that the user can fix.
    """
    if not given:
        check_size(settings["vocab_size"])
    texts = work.stage("sentences", lambda: _sentences(source, settings, work.path, workers))
    layout, splits = Layout(**texts["layout"]), texts["splits"]
    statistics = TextStatistics(texts["lines"], Counter(texts["characters"]))
    step = 1
    if given:
        vocabulary, characters = given, given.characters(statistics.characters)
        with whole(work.path / MODEL) as new:
            new.write_bytes(given.model)
    else:
        if not statistics.lines:
            raise PrepareError("the train split has no text to learn a vocabulary from")
        coverage, fallback = settings["character_coverage"], settings["byte_fallback"]
        characters = plan_characters(statistics.characters, settings["vocab_size"], coverage, fallback)
        step = sampling_step(statistics)
        lesson = Lesson(_sentence_file(work.path, TRAIN), step, settings["vocab_size"], characters)
        work.stage("vocabulary", lambda: _learn(lesson, work.path / MODEL))
        vocabulary = Vocabulary.learned((work.path / MODEL).read_bytes())
    counts, pieces = {}, {}
    for split in splits:
        done = work.stage(split, lambda split=split: _binarised(split, work.path, vocabulary, workers))
        counts[split], pieces[split] = SplitCounts(**done["counts"]), Counter(done["pieces"])
        counts[split].paragraphs = splits[split]["paragraphs"]
    refuse_nonsense(counts, layout.divider, bool(given))
    with whole(work.path / DICTIONARY) as new:
        vocabulary.dictionary(pieces[TRAIN]).save(str(new))
    report = {
        "settings": settings,
        "licence": source.licence,
        "layout": asdict(layout),
        "warnings": warnings_of(counts, splits[TRAIN]["headings"], layout, settings["language"]),
        "inputs": texts["inputs"],
        "vocabulary_size": vocabulary.size,
        "characters": len(characters.kept),
        "character_coverage": round(characters.coverage, 6),
        "byte_fallback": characters.byte_fallback,
        "splits": {split: split_counts.as_report() for split, split_counts in counts.items()},
        "outputs": {name: sha256(work.path / name) for name in outputs(tuple(splits))},
        "vocabulary_sample": step,
    }
    write_report(report, work.path)
    return report


def _sentence_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.sentences"


def _processes(workers: int, size: int) -> int:
    return 0 if workers == 1 or size < _SMALL else workers


def _sentences(source: Source, settings: dict, folder: Path, workers: int) -> dict:
    files = source.provide(folder)
    text_field = settings["text_field"] or FIELD
    layout = layout_of(files, settings["documents"], text_field)
    report_progress(f"documents: {DIVIDERS[layout.divider]} ({layout.evidence}); --documents overrides this")
    fraction = settings["valid_fraction"]
    how = Splitting(layout, settings["keep_moses"], settings["language"], text_field, fraction)
    size = sum(path.stat().st_size for paths in files.values() for path in paths)
    found = split_files(files, how, folder, _processes(workers, size))
    larger = larger_fraction(found[TRAIN].draws, found[VALID].draws) if fraction else None
    if larger is not None:
        report_progress(f"no document fell into --valid-fraction {fraction:g}: one is held out")
        found = split_files(files, replace(how, valid_fraction=larger), folder, _processes(workers, size))
    for split, file in found.items():
        if not file.path.stat().st_size:
            raise PrepareError(f"{files.get(split, files[TRAIN])[0]} contains no sentence: the {split} split is empty")
        same_size = split != TRAIN and file.path.stat().st_size == found[TRAIN].path.stat().st_size
        if same_size and sha256(file.path) == sha256(found[TRAIN].path):
            raise PrepareError(f"the {split} split is the train split; use another text for it")
    is_known = source.identity["kind"] in ("folder", "file")
    statistics = found[TRAIN].statistics
    return {
        "layout": asdict(layout),
        "inputs": source.identity["files"] if is_known else {split: describe(paths) for split, paths in files.items()},
        "splits": {split: {"paragraphs": file.paragraphs, "headings": file.headings} for split, file in found.items()},
        "lines": statistics.lines,
        "characters": statistics.characters,
    }


def _learn(lesson: Lesson, path: Path) -> dict:
    sample = f" (every {lesson.step}th sentence)" if lesson.step > 1 else ""
    is_small = lesson.sentences.stat().st_size < _SMALL
    with (
        heartbeat(f"learning a vocabulary of {lesson.vocab_size} pieces{sample}"),
        Workers(0 if is_small else 1, learner) as pool,
    ):
        (model,) = pool.map([lesson])
    path.write_bytes(model)
    return {}


def _binarised(split: str, folder: Path, vocabulary: Vocabulary, workers: int) -> dict:
    source = _sentence_file(folder, split)
    counts, pieces = binarise(source, folder / split, vocabulary, _processes(workers, source.stat().st_size))
    return {"counts": asdict(counts), "pieces": pieces}


if __name__ == "__main__":
    sys.exit(main())
