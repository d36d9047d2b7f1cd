"""From sentences to fairseq's binary files.

Each sentence becomes the ids of its pieces followed by ``</s>``; a ``</s>`` on its own separates two documents.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from fairseq.data import Dictionary

from fairseq_lambda.corpora.encoding import LineEncoder
from fairseq_lambda.corpora.indexed_files import IndexedFiles
from fairseq_lambda.corpora.progress import narrate
from fairseq_lambda.corpora.shared_vocabulary import Vocabulary
from fairseq_lambda.corpora.workers import Workers

_BYTES_PER_CALL = 1 << 19


@dataclass
class SplitCounts:
    """Counts of a split; tokens are pieces, not counting the ``</s>`` that ends each sentence."""

    documents: int = 0
    paragraphs: int = 0  # in the text; counted when it was read
    sentences: int = 0
    tokens: int = 0
    literal_unknowns: int = 0
    encoder_unknowns: int = 0
    longest_sentence: int = 0

    def as_report(self) -> dict:
        """Return the counts, tokens per sentence, sentences per paragraph and both rates of unknown tokens (0 to 1)."""
        tokens = max(self.tokens, 1)
        return asdict(self) | {
            "tokens_per_sentence": round(self.tokens / max(self.sentences, 1), 2),
            "sentences_per_paragraph": round(self.sentences / max(self.paragraphs, 1), 2),
            "literal_unknown_rate": round(self.literal_unknowns / tokens, 6),
            "encoder_unknown_rate": round(self.encoder_unknowns / tokens, 6),
        }


def binarise(source: Path, target: Path, vocabulary: Vocabulary, workers: int) -> tuple[SplitCounts, Counter[str]]:
    """Write ``target``.bin and .idx as fairseq-preprocess would; return the counts of the split and of each piece.

    Args:
        source: a file written by splitting.py.
        target: the path of the split, without a suffix.
        vocabulary: what to encode with.
        workers: number of processes that encode; 0: encode in this one.
    """
    result, end = SplitCounts(), Dictionary().eos()
    ids = vocabulary.ids()
    pieces = np.zeros(len(ids) - 1, dtype=np.int64)
    separator = np.array([end]), np.array([1])
    is_between = False
    with (
        IndexedFiles(target, len(vocabulary.dictionary())) as output,
        Workers(workers, LineEncoder, vocabulary.model, ids) as pool,
    ):
        encoded = pool.map(_blocks(source))
        for lines in narrate(encoded, f"encoding {source.stem}", lambda e: e.read, total=source.stat().st_size):
            if lines.sizes.size:
                if result.documents and (is_between or lines.opens):
                    output.add(*separator)
                    result.documents += 1
                result.documents += int(np.count_nonzero(lines.sizes == 1)) + (result.documents == 0)
                is_between = False
                output.add(lines.tokens, lines.sizes)
                result.sentences += int(np.count_nonzero(lines.sizes > 1))
                result.longest_sentence = max(result.longest_sentence, int(lines.sizes.max()) - 1)
            is_between = is_between or lines.closes
            pieces += lines.pieces
            result.literal_unknowns += lines.literal_unknowns
    result.tokens = int(pieces.sum())
    names = vocabulary.names()
    unknown = sum(int(n) for n, name in zip(pieces, names, strict=True) if name is None)
    result.encoder_unknowns = unknown - result.literal_unknowns
    return result, Counter({name: int(n) for n, name in zip(pieces, names, strict=True) if name is not None})


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BYTES_PER_CALL):
            yield block + (b"" if block.endswith(b"\n") else file.readline())
