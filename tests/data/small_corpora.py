"""Small binarised corpora for the tests in this folder."""

from pathlib import Path

import numpy as np
from conftest import write_split
from fairseq.data import Dictionary
from hypothesis import strategies as st

from fairseq_lambda.data.corpus import Corpus
from fairseq_lambda.symbols import MASK

EOS = 2
FIRST_WORD = 4  # ids below are special symbols


def write_corpus(path, documents, dtype=np.uint16) -> Corpus:
    """Write documents (lists of sentences, which are lists of ids) as fairseq-preprocess would, and open them."""
    write_split(Path(path).parent, Path(path).name, documents, dtype)
    return Corpus(str(path), EOS)


def number_tokens(shape):
    """Return documents of the given sentence lengths; their tokens are 4, 5, 6 and so on."""
    token, documents = FIRST_WORD, []
    for lengths in shape:
        document = []
        for length in lengths:
            document.append(list(range(token, token + length)))
            token += length
        documents.append(document)
    return documents


def random_shape(seed, documents=300, sentences=40, mean=24):
    """Return sentence lengths like those of an encyclopedia: skewed, and longer early in a document."""
    rng = np.random.default_rng(seed)
    shape = []
    for _ in range(documents):
        count = rng.integers(1, sentences)
        lengths = rng.lognormal(np.log(mean), 0.6, size=count) * np.linspace(1.4, 0.8, count)
        shape.append((1 + lengths.astype(int)).tolist())
    return shape


def word_dictionary(words=60, start="") -> Dictionary:
    """Return a dictionary of ``words`` words and ``<mask>``; every third word lacks ``start``."""
    dictionary = Dictionary()
    for i in range(words):
        dictionary.add_symbol(f"{'' if i % 3 == 2 else start}w{i}")
    dictionary.add_symbol(MASK)
    return dictionary


shapes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=8)
