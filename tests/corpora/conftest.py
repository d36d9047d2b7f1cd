"""Corpora for the tests of preparation."""

import pytest
from preparing import prepare, write_corpus


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared corpus, to be read only."""
    folder = tmp_path_factory.mktemp("prepared")
    assert prepare(write_corpus(folder / "corpus"), "--dest", folder / "out") == 0
    return folder / "out"
