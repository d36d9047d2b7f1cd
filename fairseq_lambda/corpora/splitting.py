"""From texts to files of sentences, one per line, with an empty line between documents; batches run in parallel."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_lambda.corpora.batches import Batch, in_batches
from fairseq_lambda.corpora.documents import Layout, decoded, divided
from fairseq_lambda.corpora.held_out import Draws, draw
from fairseq_lambda.corpora.json_lines import is_json_lines, record_lines
from fairseq_lambda.corpora.opening import TextFile
from fairseq_lambda.corpora.progress import narrate
from fairseq_lambda.corpora.training_text import TextStatistics
from fairseq_lambda.corpora.workers import Workers
from fairseq_lambda.files import UNFINISHED, rename

_CONTINUED = ""  # the key of text that belongs to the last document of the previous batch
TRAIN, VALID = "train", "valid"


@dataclass(frozen=True)
class Splitting:
    """How text becomes sentences.

    ``valid_fraction`` is the share of the train documents that go to the valid split, 0 to 1; None if that is given.
    """

    layout: Layout
    keep_moses: bool
    language: str
    text_field: str
    valid_fraction: float | None


@dataclass
class SplitText:
    """The result for a batch: by split, sentences as lines, paragraph counts, the trainer's statistics, draws."""

    size: int  # of the batch, in bytes
    alone: str = ""  # the split of text that continues a document, if it turns out to be a document by itself
    last: str = ""  # the split of its last document
    starts_new: bool = True  # whether it starts a new document
    ends_open: bool | None = None  # whether its last document may continue in the next batch; None: as before
    headings: int = 0
    text: dict[str, bytes] = field(default_factory=dict)
    paragraphs: Counter[str] = field(default_factory=Counter)
    statistics: dict[str, TextStatistics] = field(default_factory=dict)
    draws: dict[str, Draws] = field(default_factory=dict)


@dataclass
class SplitFile:
    """The sentences of a split: where they are, and the counts of its text; ``draws`` if a fraction is held out."""

    path: Path
    paragraphs: int = 0
    headings: int = 0
    statistics: TextStatistics = field(default_factory=TextStatistics)
    draws: Draws = field(default_factory=Draws)


class SentenceSplitter:
    """What a worker does: it turns (split, is JSON lines, batch) into SplitText."""

    def __init__(self, how: Splitting):
        self.how = how

    def __call__(self, item: tuple[str, bool, Batch]) -> SplitText:
        split, is_json, batch = item
        how, seen, counted = self.how, Counter(), 0
        raw = batch.text.removesuffix(b"\n").split(b"\n")
        if is_json:
            lines = record_lines(raw, batch.file, how.text_field, batch.first_line)
        else:
            lines = decoded(raw, batch.file, batch.first_line)
        result, documents = SplitText(len(batch.text), starts_new=not batch.continues), {}
        for number, sentences in enumerate(divided(lines, how.layout, how.keep_moses, how.language, seen)):
            drawn = draw(sentences) if sentences and how.valid_fraction and split == TRAIN else None
            key = VALID if drawn is not None and drawn < how.valid_fraction else split
            if number == 0 and batch.continues:
                key, result.alone = _CONTINUED, key
            result.ends_open = True if sentences else False if number else None
            result.paragraphs[key] += seen["paragraphs"] - counted
            counted = seen["paragraphs"]
            if sentences:
                documents.setdefault(key, []).append(sentences)
                result.last = key or result.last
            if drawn is not None:
                result.draws.setdefault(key, Draws()).add(drawn)
        result.headings = seen["headings"]
        for key, found in documents.items():
            result.text[key] = "\n".join("".join(f"{line}\n" for line in sentences) for sentences in found).encode()
            if key in (TRAIN, _CONTINUED):
                statistics = result.statistics[key] = TextStatistics()
                for sentences in found:
                    statistics.add(sentences)
        return result


def split_files(files: dict[str, list[Path]], how: Splitting, folder: Path, workers: int) -> dict[str, SplitFile]:
    """Write ``SPLIT.sentences`` for each split to ``folder``, whole or not at all; return their paths and counts.

    Args:
        files: the texts by split, train first; without valid if ``how.valid_fraction`` is set.
        how: how they become sentences.
        folder: where to write.
        workers: number of processes; 0: work in this one.

    Raises:
        PrepareError: a text is damaged, or not in UTF-8, or a line of JSON has no text.
    """
    splits = dict.fromkeys([TRAIN, VALID, *files] if how.valid_fraction else files)
    found = {split: SplitFile(folder / f"{split}.sentences") for split in splits}
    unfinished = {split: file.path.with_name(file.path.name + UNFINISHED) for split, file in found.items()}
    with ExitStack() as stack:
        outputs = {split: stack.enter_context(path.open("wb")) for split, path in unfinished.items()}
        pool = stack.enter_context(Workers(workers, SentenceSplitter, how))
        for split, paths in files.items():
            reading = Reading(split, paths, how)
            last, is_open = split, False
            doing = f"reading {paths[0].name if len(paths) == 1 else f'{len(paths)} files of {split}'}"
            results = narrate(
                pool.map(reading), doing, lambda r: r.size, position=lambda at=reading: at.position, total=reading.total
            )
            for result in results:
                is_open = is_open and not result.starts_new
                if not is_open:
                    last = result.alone or last
                found[split].headings += result.headings
                for key, count in result.paragraphs.items():
                    found[key or last].paragraphs += count
                for key, text in result.text.items():
                    output = outputs[key or last]
                    output.write(b"\n" if output.tell() and (key or not is_open) else b"")
                    output.write(text)
                for key, statistics in result.statistics.items():
                    found[key or last].statistics.merge(statistics)
                for key, draws in result.draws.items():
                    if key or not is_open:
                        found[key or last].draws.merge(draws)
                last = result.last or last
                is_open = is_open if result.ends_open is None else result.ends_open
    for split, file in found.items():
        rename(unfinished[split], file.path)
    return found


class Reading:
    """The texts of a split as (split, is JSON lines, batch); ``position`` of ``total`` bytes on the disk are read."""

    def __init__(self, split: str, paths: list[Path], how: Splitting):
        self.split, self.paths, self.how = split, paths, how
        self.total = sum(path.stat().st_size for path in paths)
        self.position = 0

    def __iter__(self) -> Iterator[tuple[str, bool, Batch]]:
        before = 0
        for path in self.paths:
            is_json = is_json_lines(path, self.how.text_field)
            with TextFile(path) as file:
                for batch in in_batches(file, str(path), self.how.layout.divider, is_json):
                    self.position = before + file.position
                    yield self.split, is_json, batch
                before += file.position
