"""Text to fairseq's binary files.

Each sentence becomes the ids of its pieces and ``</s>``; a lone ``</s>`` separates two documents.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import make_builder

from fairseq_lambda.corpora.progress import narrate
from fairseq_lambda.corpora.vocabulary import PieceEncoder

_LINES_PER_CALL = 4096  # of the encoder, which divides them among its threads


@dataclass
class SplitCounts:
    """Counts of a split; tokens are pieces, without the ``</s>`` that ends each sentence."""

    documents: int = 0
    paragraphs: int = 0  # of the text, as whoever read it counted them
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


def write_documents(documents: Iterable[list[str]], path: Path) -> None:
    """Write one sentence per line, with an empty line between documents."""
    with path.open("w", encoding="utf-8") as file:
        for number, sentences in enumerate(documents):
            file.write("\n" if number else "")
            file.writelines(sentence + "\n" for sentence in sentences)


def read_sentences(path: Path) -> Iterator[str]:
    """Yield the lines of a file from write_documents; lines between documents are empty."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n")


def binarise(
    source: Path, target: Path, encoder: PieceEncoder, dictionary: Dictionary, threads: int
) -> tuple[SplitCounts, Counter[str]]:
    """Write ``target``.bin and .idx, as fairseq-preprocess would; return the counts of the split and of each piece.

    A sentence that is empty after normalisation is dropped, because its empty line would divide the document.

    Args:
        source: a file from write_documents.
        target: the path of the split, without an ending.
        encoder: turns sentences into pieces.
        dictionary: gives the ids of the pieces.
        threads: how many the encoder uses.
    """
    result, pieces = SplitCounts(), Counter()
    builder = make_builder(f"{target}.bin", "mmap", vocab_size=len(dictionary))
    end = dictionary.eos()
    between_documents = True
    lines = narrate(read_sentences(source), f"encoding {source.stem}")
    while batch := list(islice(lines, _LINES_PER_CALL)):
        encoded = iter(encoder.encode([line for line in batch if line], threads))
        for line in batch:
            sentence = next(encoded) if line else None
            if sentence is None:
                between_documents = True
            if sentence is None or not sentence.pieces:
                continue
            if between_documents:
                if result.documents:
                    builder.add_item(torch.tensor([end]))
                result.documents += 1
                between_documents = False
            builder.add_item(torch.tensor([*map(dictionary.index, sentence.pieces), end]))
            pieces.update(sentence.pieces)
            result.sentences += 1
            result.tokens += len(sentence.pieces)
            result.literal_unknowns += sentence.literal_unknowns
            result.encoder_unknowns += sentence.encoder_unknowns
            result.longest_sentence = max(result.longest_sentence, len(sentence.pieces))
    builder.finalize(f"{target}.idx")
    return result, pieces
