"""Reading WikiText: articles, paragraphs, sentences, and ordinary English again."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.documents import (
    Layout,
    clean,
    detect_layout,
    heading_level,
    read_documents,
    split_plain,
    split_tokenised,
)
from fairseq_lambda.corpora.errors import PrepareError

MOSES = Layout(has_titles=True, is_moses=True)
TOKENS = st.lists(
    st.sampled_from(["a", "The", "Dr", "of", ".", "?", "!", '"', "'", ")", "(", "...", "<unk>", "7"]),
    max_size=40,
)


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


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("A b . C d ! E ?", ["A b .", "C d !", "E ?"]),
        ("a b . c d .", ["a b .", "c d ."]),
        ('He said " Go . " She went .', ['He said " Go . "', "She went ."]),
        ('" Who ? " asked he . Nobody .', ['" Who ? " asked he .', "Nobody ."]),
        ('He left . " I stay , " she said .', ["He left .", '" I stay , " she said .']),
        ("It ( was . ) Then", ["It ( was . )", "Then"]),
        ("H. americanus lives . . . Yes .", ["H. americanus lives . . .", "Yes ."]),
        ("It cost 0 @.@ 7 m . Cheap", ["It cost 0 @.@ 7 m .", "Cheap"]),
        ('The players \' union . He " won . "', ["The players ' union .", 'He " won . "']),
        ('End . "', ['End . "']),
        ("", []),
    ],
)
def test_tokenised_paragraphs_split_at_sentence_ends(paragraph, sentences):
    assert split_tokenised(paragraph) == sentences


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("He came. She left! Why?", ["He came.", "She left!", "Why?"]),
        ("J. R. Smith met Dr. Who in St. Ives (c. 1900).", 1),
        ('He said "Go." Then he went.', ['He said "Go."', "Then he went."]),
        ('It ended. "A new one" began.', ["It ended.", '"A new one" began.']),
        ("about 3.5 m. of it", 1),
        ("The U.S. Army came. \u00c9tienne left.", ["The U.S. Army came.", "\u00c9tienne left."]),
    ],
)
def test_plain_paragraphs_split_before_capitals(paragraph, sentences):
    expected = [paragraph] if sentences == 1 else sentences
    assert split_plain(paragraph) == expected


@given(TOKENS)
def test_splitting_tokenised_text_loses_nothing(tokens):
    sentences = split_tokenised(" ".join(tokens))
    assert " ".join(sentences).split() == tokens
    if any(token.isalnum() or token == "<unk>" for token in tokens):
        assert all(any(map(str.isalnum, sentence)) for sentence in sentences)


@given(st.text(alphabet='aBc .?!"()\u00c9', max_size=80))
def test_splitting_plain_text_loses_nothing(text):
    assert " ".join(split_plain(text)) == " ".join(text.split())


@pytest.mark.parametrize(
    ("tokenised", "english"),
    [
        ("a hard @-@ shelled lobster , 1 @,@ 234 @.@ 5 kg", "a hard-shelled lobster, 1,234.5 kg"),
        ("a @-@ b @-@ c", "a-b-c"),
        ("the dog 's tail ( long ) ; it 'll", "the dog's tail (long); it'll"),
        ("I don 't and do n't", "I don't and don't"),
        ('the " cutter " , which " cuts "', 'the "cutter", which "cuts"'),
        ("the players ' union", "the players' union"),
        ("he sang ' Help ' twice", "he sang 'Help' twice"),
        ("O 'Brien paid $ 5 and 3 % .", "O'Brien paid $5 and 3%."),
        ("of <unk> , the <unk> 's ( <unk> )", "of <unk>, the <unk>'s (<unk>)"),
        ("The capital is Paris .", "The capital is Paris."),
    ],
)
def test_detokenise_writes_ordinary_english(tokenised, english):
    assert detokenise([tokenised]) == [english]


def test_a_quotation_over_two_sentences_keeps_its_quotes_apart():
    assert detokenise(['He said : " One .', 'Two . " Then', '" Three "']) == [
        'He said: "One.',
        'Two." Then',
        '"Three"',
    ]


@given(TOKENS)
def test_detokenise_only_moves_spaces(tokens):
    sentences = split_tokenised(" ".join(tokens))
    english = detokenise(sentences)
    assert len(english) == len(sentences)
    assert "".join(english).replace(" ", "") == "".join(tokens)


@given(TOKENS)
def test_detokenised_text_has_no_space_before_a_full_stop(tokens):
    for sentence in detokenise(split_tokenised(" ".join(tokens))):
        assert " ." not in sentence.replace(" ...", "")
        assert sentence == " ".join(sentence.split())


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
