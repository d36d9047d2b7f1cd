"""Which documents of a text without splits are held out as its valid split: those with a draw below a fraction.

A document's draw is a number that only its text determines, so duplicates are on the same side, also across shards.
"""

import hashlib
import math
from dataclasses import dataclass

from fairseq_lambda.corpora.errors import PrepareError


@dataclass
class Draws:
    """How many documents there are, and the least and the greatest of their draws."""

    documents: int = 0
    least: float = 1.0
    greatest: float = 0.0

    def add(self, drawn: float) -> None:
        """Count a document."""
        self.merge(Draws(1, drawn, drawn))

    def merge(self, other: "Draws") -> None:
        """Count the documents of another text."""
        self.documents += other.documents
        self.least, self.greatest = min(self.least, other.least), max(self.greatest, other.greatest)


def draw(sentences: list[str]) -> float:
    """Return the draw of a document, 0 to 1. Of a document in several batches, the sentences of the first count."""
    digest = hashlib.sha256("\n".join(sentences).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def larger_fraction(train: Draws, valid: Draws) -> float | None:
    """Return the smallest fraction that holds out a document, if none was; None if the division is fine.

    Raises:
        PrepareError: the documents cannot be divided, or none is left for train.
    """
    count = train.documents + valid.documents
    if not count or (train.documents and valid.documents):
        return None  # a text without any document is refused elsewhere
    if count < 3:
        raise PrepareError(
            f"{count} document{'s'[: count > 1]} cannot be divided into train, which needs two, and valid; "
            "blank lines divide documents (--documents), or give a folder with train.txt and valid.txt"
        )
    if min(train.least, valid.least) == max(train.greatest, valid.greatest):
        raise PrepareError(
            f"the {count} documents have the same text, so none can be held out: use another text, "
            "or --valid-fraction 0 for no valid split"
        )
    if not train.documents:
        raise PrepareError("no document is left for train: lower --valid-fraction")
    return math.nextafter(train.least, 1)
