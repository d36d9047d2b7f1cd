"""The fast tokenizer: SentencePiece's pieces on any text, symbols kept in place, pairs, its file."""

import io
import json
import re
import unicodedata

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from small_port import folder, pieces, sentences, symbols, tokenizer  # noqa: F401  folder is a fixture
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fairseq_lambda.huggingface.tokenizer import fast_tokenizer

KINDS = {
    "plain": {},
    "bytes": {"byte_fallback": True, "vocab_size": 400},
    "other norm": {"normalization_rule_name": "nfkc_cf"},
}
SYMBOL = re.compile("<mask>|<unk>|<s>|</s>|<pad>")


def expected(kind, text):
    """Ids of SentencePiece's pieces of a text without symbols."""
    model = pieces(**KINDS[kind])
    index = {symbol: i for i, symbol in enumerate(symbols(model))}
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [0, *(index.get(piece, 3) for piece in sp.encode(re.sub(r"\s", " ", text), out_type=str)), 2]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_has_sentencepieces_ids(kind, text):
    if not SYMBOL.search(text):
        assert tokenizer(**KINDS[kind])(text).input_ids == expected(kind, text)


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_have_sentencepieces_ids(kind):
    made = tokenizer(**KINDS[kind])
    for text in (*sentences(300, seed=1), "  two   spaces ", "\u2581", "a\u2581b", "tab\tnew\nline\x1c\x85\u3000.", ""):
        assert made(text).input_ids == expected(kind, text), text


@pytest.mark.parametrize("text", ["ti\u1ebfng vi\u1ec7t", "\ud55c\uad6d\uc5b4"])
def test_decomposed_text_keeps_its_marks(text):
    model = io.BytesIO()
    special = {"pad_id": 3, "control_symbols": ["<mask>"], "hard_vocab_limit": False, "vocab_size": 40}
    lines = iter([text, f"{text} {text}", "of\ufb01ce i\u0331"] * 20)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, minloglevel=2, **special)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    names = symbols(model.getvalue())
    made = fast_tokenizer(model.getvalue(), names)
    for form in (text, unicodedata.normalize("NFD", text), "of\ufb01\u0331"):  # a mark behind a ligature
        assert made(form).input_ids == [0, *map(names.index, sp.encode(form, out_type=str)), 2]


def tokens(text):
    made = tokenizer()
    return made.convert_ids_to_tokens(made(text).input_ids)[1:-1]


@pytest.mark.parametrize(
    "text, found",
    [
        ("The <mask> .", ["The", "<mask>", "."]),
        ("<mask> the <mask>", ["<mask>", "the", "<mask>"]),
        ("a  <mask>  b", ["a", "<mask>", "b"]),
        ("(<mask>)", ["(", "<mask>", ")"]),
        ("the <unk> film", ["the", "<unk>", "film"]),
    ],
)
def test_symbols_stand_where_they_stood(text, found):
    joined = "".join(tokens(text)).replace("\u2581", " ")
    assert joined.split() == " ".join(found).split() or joined.replace(" ", "") == "".join(found)
    assert [t for t in tokens(text) if SYMBOL.fullmatch(t)] == [t for t in found if SYMBOL.fullmatch(t)]


def test_text_behind_a_mask_starts_no_word_unless_there_is_a_space():
    assert tokens("<mask>the")[1][0] != "\u2581" and tokens("<mask> the")[1][0] == "\u2581"
    assert tokens("the <mask>") == tokens("the<mask>")


def test_tokens_are_those_of_the_ids():
    made = tokenizer()
    for text in ("The film was <mask> in 1997", "<mask>  the <unk>", " <mask>", "the(<mask>"):
        assert made.convert_tokens_to_ids(made.tokenize(text)) == made(text, add_special_tokens=False).input_ids
        assert made.tokenize(text).count("<mask>") == 1


def test_spaces_before_a_mask_where_the_vocabulary_keeps_spaces():
    made = tokenizer(remove_extra_whitespaces=False)
    assert made("the <mask>").input_ids == made("the<mask>").input_ids


def test_pairs_and_their_segments():
    made = tokenizer()
    first, second = made("the film").input_ids, made("the city").input_ids
    pair = made("the film", "the city", padding="max_length", max_length=len(first) + len(second) + 3)
    assert pair.input_ids == [*first, 2, *second[1:], 1, 1, 1, 1][: len(pair.input_ids)]
    assert pair.token_type_ids == [0] * len(first) + [1] * len(second) + [0] * 3
    assert pair.attention_mask == [1] * (len(first) + len(second)) + [0] * 3
    assert made("the film").token_type_ids == [0] * len(first)


def test_decoding_puts_spaces_back():
    made = tokenizer()
    for text in ("The film was <mask> in 1997", "The city , near a river", "<mask> was near"):
        assert made.decode(made(text).input_ids[1:-1]) == text
    assert made.decode(made("The film").input_ids, skip_special_tokens=True) == "The film"


def test_auto_tokenizer_reads_the_folder_without_code(folder):  # noqa: F811
    again = AutoTokenizer.from_pretrained(folder)
    assert isinstance(again, PreTrainedTokenizerFast) and again.is_fast
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # 4.x knows no other name
    made = tokenizer()
    for text in sentences(50, seed=2):
        assert again(text).input_ids == made(text).input_ids
    assert (again.mask_token_id, again.pad_token_id, again.cls_token_id, again.sep_token_id) == (len(made) - 1, 1, 0, 2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_type": "bpe"}, "bpe, but only unigram"),
        ({"treat_whitespace_as_suffix": True}, "spaces after the words"),
        ({"user_defined_symbols": ["<x>"]}, "user-defined symbols"),
    ],
)
def test_other_vocabularies_are_refused(options, message):
    model = pieces(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
    with pytest.raises(ValueError, match=message):
        fast_tokenizer(model, symbols(model))


def test_another_dictionary_is_refused():
    model = pieces()
    for wrong in ([*symbols(model)[:50], "<mask>"], ["<pad>", *symbols(model)], symbols(model)[:-1]):
        with pytest.raises(ValueError, match="dictionary"):
            fast_tokenizer(model, wrong)
