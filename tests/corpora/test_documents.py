"""Documents read from text: articles, paragraphs, and what divides them."""

import os
from pathlib import Path

import pytest

from fairseq_lambda.corpora.documents import Layout, clean, detect_layout, heading_level, read_documents
from fairseq_lambda.corpora.errors import PrepareError

MOSES = Layout(has_titles=True, is_moses=True)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("= Title =", 1),
        ("= A = B =", 1),
        ("= = Section = =", 2),
        ("= = = Deep = = =", 3),
        ("= = uneven =", 0),
        ("=", 0),
        ("= =", 0),
        ("no heading", 0),
        ("= National record", 0),
    ],
)
def test_heading_level_counts_equal_signs_on_both_sides(line, level):
    assert heading_level(line) == level


def test_articles_start_at_lone_titles_and_headings_are_left_out(tmp_path):
    path = tmp_path / "wiki.train.tokens"
    path.write_text(
        " \n = First = \n \n One . Two . \n Key \n = Played , W = \n Three . \n \n"
        " = = Section = = \n \n Four . \n \n = Second = \n \n = = Empty = = \n \n Five . \n"
        " = Third = \n"
    )
    assert detect_layout(path) == MOSES
    assert list(read_documents(path, MOSES)) == [
        ["One.", "Two.", "Key", "Three.", "Four."],
        ["Five."],
    ]


def test_text_without_titles_is_divided_by_blank_lines(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n\nHe came. She left.\nThey, too.\n\n\nAnother one.\n")
    layout = detect_layout(path)
    assert layout == Layout(has_titles=False, is_moses=False)
    assert list(read_documents(path, layout)) == [
        ["He came.", "She left.", "They, too."],
        ["Another one."],
    ]


def test_bytes_that_are_no_utf8_are_named_with_file_and_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(PrepareError, match=r"train\.txt, line 2"):
        detect_layout(path)


def test_clean_leaves_no_white_space_that_fairseq_would_split_at():
    assert clean("a\u2028b\u00a0 c\x1cd\x85e\x00f\ufeffg\u200bh\n") == "a b c d e fgh"


def test_the_real_validation_split_has_sixty_articles():
    folder = Path(os.environ.get("WIKITEXT_DIR") or "/nonexistent")
    path = next(
        (p for p in (folder / "wiki.valid.tokens", folder / "wikitext-2/wiki.valid.tokens") if p.exists()),
        None,
    )
    if path is None:
        pytest.skip("WIKITEXT_DIR does not name a folder with WikiText-2's .tokens files")
    documents = list(read_documents(path, detect_layout(path)))
    assert len(documents) == 60
    assert documents[0][0].startswith("Homarus gammarus, known as the European lobster")
    assert not any("= =" in sentence for document in documents for sentence in document)
