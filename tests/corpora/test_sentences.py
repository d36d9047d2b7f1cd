"""Splitting tokenised text into sentences, and turning these into ordinary English."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_lambda.corpora.detokenise import detokenise
from fairseq_lambda.corpora.sentences import split_tokenised

TOKENS = st.lists(
    st.sampled_from(["a", "The", "Dr", "of", ".", "?", "!", '"', "'", ")", "(", "...", "<unk>", "7"]),
    max_size=40,
)


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


@given(TOKENS)
def test_splitting_tokenised_text_loses_nothing(tokens):
    sentences = split_tokenised(" ".join(tokens))
    assert " ".join(sentences).split() == tokens
    if any(token.isalnum() or token == "<unk>" for token in tokens):
        assert all(any(map(str.isalnum, sentence)) for sentence in sentences)


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
