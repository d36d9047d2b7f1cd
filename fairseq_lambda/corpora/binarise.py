"""Text to fairseq's binary files, and the check that nothing was lost on the way.

A sentence is a line of pieces; an empty line stands between documents and becomes a lone ``</s>``.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.progress import narrate, report_progress
from fairseq_lambda.corpora.vocabulary import UNK, PieceEncoder

_BATCH = 4096
# fairseq-preprocess cuts a file by bytes: a worker for less than this is not worth its start.
_BYTES_A_WORKER = 2_000_000


@dataclass
class SplitCounts:
    """Counts of one split; tokens are pieces, without the ``</s>`` that ends each sentence."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    literal_unknowns: int = 0
    encoder_unknowns: int = 0
    longest_sentence: int = 0

    def as_report(self) -> dict:
        """Return the counts with tokens per sentence and both rates of unknowns (0 to 1)."""
        tokens = max(self.tokens, 1)
        return asdict(self) | {
            "tokens_per_sentence": round(self.tokens / max(self.sentences, 1), 2),
            "literal_unknown_rate": round(self.literal_unknowns / tokens, 6),
            "encoder_unknown_rate": round(self.encoder_unknowns / tokens, 6),
        }


def write_documents(documents: Iterable[list[str]], path: Path) -> None:
    """Write one sentence a line, an empty line between documents."""
    with path.open("w", encoding="utf-8") as file:
        for number, sentences in enumerate(documents):
            file.write("\n" if number else "")
            file.writelines(sentence + "\n" for sentence in sentences)


def read_sentences(path: Path) -> Iterator[str]:
    """Yield the lines of a file from write_documents, empty ones between documents."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def encode_documents(
    source: Path, target: Path, encoder: PieceEncoder, threads: int, counts: Counter[str]
) -> SplitCounts:
    """Write the pieces of source, laid out alike, to target; return its counts.

    ``counts`` takes up how often each piece came. A sentence that normalisation leaves empty is
    dropped, because its empty line would divide the document.
    """
    result = SplitCounts()
    between_documents = True
    with target.open("w", encoding="utf-8") as file:
        for batch in _batches(narrate(read_sentences(source), f"encoding {source.stem}")):
            encoded = iter(encoder.encode([line for line in batch if line], threads))
            for line in batch:
                sentence = next(encoded) if line else None
                if sentence is None:
                    between_documents = True
                if sentence is None or not sentence.pieces:
                    continue
                if between_documents:
                    file.write("\n" if result.documents else "")
                    result.documents += 1
                    between_documents = False
                file.write(" ".join(sentence.pieces) + "\n")
                counts.update(sentence.pieces)
                result.sentences += 1
                result.tokens += len(sentence.pieces)
                result.literal_unknowns += sentence.literal_unknowns
                result.encoder_unknowns += sentence.encoder_unknowns
                result.longest_sentence = max(result.longest_sentence, len(sentence.pieces))
    return result


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def run_fairseq_preprocess(pieces: dict[str, Path], dictionary: Path, folder: Path, workers: int) -> None:
    """Write {split}.bin, {split}.idx and dict.txt to folder.

    Raises PrepareError if fairseq-preprocess fails.
    """
    smallest = min(path.stat().st_size for path in pieces.values())
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "--only-source"]
    command += ["--srcdict", str(dictionary), "--destdir", str(folder)]
    command += ["--workers", str(max(1, min(workers, smallest // _BYTES_A_WORKER + 1)))]
    for split, path in pieces.items():
        command += [f"--{split}pref", str(path)]
    report_progress("binarising with fairseq-preprocess")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise PrepareError(f"fairseq-preprocess failed: {reason}")
    (folder / "preprocess.log").unlink(missing_ok=True)


def check_binarised(folder: Path, expected: dict[str, SplitCounts]) -> None:
    """Raise PrepareError unless folder holds what was encoded, counted in four ways."""
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    for split, counts in expected.items():
        prefix = folder / split
        # Held by a name: the sizes are a view of its memory map, which it closes when it goes.
        dataset = MMapIndexedDataset(str(prefix))
        sizes = np.array(dataset.sizes)
        total = int(sizes.sum())
        width = Path(f"{prefix}.bin").stat().st_size // total
        dtype = {2: np.uint16, 4: np.int32, 8: np.int64}[width]
        ids = np.memmap(f"{prefix}.bin", dtype=dtype, mode="r")
        breaks = int((sizes == 1).sum())
        found = (
            breaks + 1,
            len(sizes) - breaks,
            total - len(sizes),
            int((ids == dictionary.index(UNK)).sum()),
        )
        wanted = (
            counts.documents,
            counts.sentences,
            counts.tokens,
            counts.literal_unknowns + counts.encoder_unknowns,
        )
        if found != wanted:
            raise PrepareError(
                f"the binarised {split} split has (documents, sentences, tokens, unknown) {found}, "
                f"but {wanted} were encoded; run again with --workers 1"
            )
