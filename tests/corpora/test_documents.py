"""Reading documents from text: articles, paragraphs, and what divides them."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_lambda.corpora.documents import (
    BLANK_LINES,
    HEADINGS,
    Layout,
    clean,
    heading_level,
    read_documents,
    read_lines,
)
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.layout import detect_layout

MOSES = Layout(HEADINGS, is_moses=True)


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


@settings(max_examples=2000)
@given(st.text("= xé\u2028\u00a0", max_size=14))
def test_heading_level_is_that_of_a_plain_pattern(text):
    line = clean(text)
    match = re.fullmatch(r"(?P<left>(?:= )+)\S.*?(?P<right>(?: =)+)", line)
    left, right = (match[side].count("=") for side in ("left", "right")) if match else (0, 0)
    assert heading_level(line) == (left if left == right else 0)


def test_heading_level_takes_linear_time():
    signs = "= " * 20_000  # with the pattern above, hours
    levels = {f"{signs}x": 0, f"{signs}x {signs}y =": 0, f"{signs}=": 0, f"= x {signs}y =": 1}
    levels[f"{signs}x{signs[::-1]}"] = 20_000
    assert {line: heading_level(line) for line in levels} == levels


def test_articles_start_at_lone_titles_and_headings_are_left_out(tmp_path):
    path = tmp_path / "wiki.train.tokens"
    path.write_text(
        " \n = First = \n \n One . Two . \n Key \n = Played , W = \n Three . \n \n"
        " = = Section = = \n \n Four . \n \n = Second = \n \n = = Empty = = \n \n Five . \n"
        " = Third = \n"
    )
    assert detect_layout(read_lines(path)) == MOSES
    assert list(read_documents(read_lines(path), MOSES)) == [
        ["One.", "Two.", "Key", "Three.", "Four."],
        ["Five."],
    ]


def test_text_without_titles_is_divided_by_blank_lines(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n\nHe came. She left.\nThey, too.\n\n\nAnother one.\n")
    layout = detect_layout(read_lines(path))
    assert layout == Layout(BLANK_LINES, is_moses=False)
    assert list(read_documents(read_lines(path), layout)) == [
        ["He came.", "She left.", "They, too."],
        ["Another one."],
    ]


BLOCKS = ["He came. She left.", "They, too.", "Another one. Yes."] * 10


@pytest.mark.parametrize("at", [0, 7, 30])
def test_a_few_lines_like_titles_do_not_make_articles_of_a_corpus(tmp_path, at):
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    blocks = [*BLOCKS[:at], "= Early life =", *BLOCKS[at:]]
    train.write_text("\n\n".join(blocks) + "\n")
    valid.write_text("\n\n".join(BLOCKS) + "\n")
    layout = detect_layout(read_lines(train), read_lines(valid))
    assert layout.divider == BLANK_LINES
    assert "1 lines look like titles" in layout.evidence
    seen = Counter()
    assert len(list(read_documents(read_lines(train), layout, seen=seen))) == len(BLOCKS)
    assert seen == {"paragraphs": 30, "headings": 1}
    forced = detect_layout(read_lines(train), read_lines(valid), documents="headings")
    assert forced.divider == HEADINGS
    assert len(list(read_documents(read_lines(train), forced))) == (1 if at in (0, 30) else 2)


@pytest.mark.parametrize("splits", [1, 3])
def test_a_title_above_every_text_does_not_make_one_article_of_it(splits):
    lines = ["= Collected stories =", *(line for block in BLOCKS for line in ("", block))]
    assert detect_layout(*[lines] * splits).divider == BLANK_LINES


def test_paragraphs_between_blank_lines_are_one_article_if_every_split_starts_with_a_title(tmp_path):
    paths = [tmp_path / "train.txt", tmp_path / "valid.txt"]
    for path in paths:
        path.write_text("\n\n".join([f"= T{i} =\n\n" + "\n\n".join(BLOCKS[:9]) for i in range(4)]) + "\n")
    assert detect_layout(*map(read_lines, paths)).divider == HEADINGS
    assert len(list(read_documents(read_lines(paths[0]), detect_layout(*map(read_lines, paths))))) == 4
    assert detect_layout(*map(read_lines, paths), documents="blank-lines").divider == BLANK_LINES


def test_articles_are_recognised_though_the_first_one_lacks_its_title(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("Cut off.\n\n" + "".join(f"= T{i} =\n\nOne.\nTwo.\n\n= = S = =\n\nThree.\n\n" for i in range(5)))
    assert detect_layout(read_lines(path)).divider == HEADINGS
    assert len(list(read_documents(read_lines(path), detect_layout(read_lines(path))))) == 6


def test_bytes_that_are_no_utf8_are_named_with_file_and_line(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(PrepareError, match=r"train\.txt, line 2"):
        detect_layout(read_lines(path))


def test_clean_leaves_no_white_space_that_fairseq_would_split_at():
    assert clean("a\u2028b\u00a0 c\x1cd\x85e\x00f\ufeffg\u200bh\u00ad\u200fi\n") == "a b c d e fghi"


def test_clean_keeps_the_joiners_that_are_part_of_words():
    assert clean("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0d15\u0d4d\u200d") == (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0d15\u0d4d\u200d"
    )


def test_the_real_validation_split_has_sixty_articles():
    folder = Path(os.environ.get("WIKITEXT_DIR") or "/nonexistent")
    path = next(
        (p for p in (folder / "wiki.valid.tokens", folder / "wikitext-2/wiki.valid.tokens") if p.exists()),
        None,
    )
    if path is None:
        pytest.skip("WIKITEXT_DIR does not name a folder with WikiText-2's .tokens files")
    documents = list(read_documents(read_lines(path), detect_layout(read_lines(path))))
    assert len(documents) == 60
    assert documents[0][0].startswith("Homarus gammarus, known as the European lobster")
    assert not any("= =" in sentence for document in documents for sentence in document)
