"""Text to pieces and back: SentencePiece's own result, with symbols kept in place."""

import io
import re

import pytest
import sentencepiece
from fairseq.data import Dictionary
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_lambda.models.pieces import SentencePieceEncoder
from fairseq_lambda.symbols import MASK, UNK

TEXT = [
    "The (quick) brown-fox was in a pre-war film; f(x) = 3, x<y.",
    'List<String> a <b> c, 1 < 2 and 3 > 2, he said "so".',
]


def make(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20), model_writer=model, vocab_size=300, hard_vocab_limit=False, minloglevel=2,
        **options,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    dictionary = Dictionary()
    for i in range(len(processor)):
        if not processor.is_control(i) and not processor.is_unknown(i):
            dictionary.add_symbol(processor.id_to_piece(i))
    return SentencePieceEncoder(model.getvalue(), dictionary)


ENCODERS = {"plain": make(), "space behind": make(treat_whitespace_as_suffix=True), "bytes": make(byte_fallback=True)}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_text_without_symbols_comes_back_as_from_sentencepiece(name, text):
    if MASK in text or UNK in text:
        return
    encoder = ENCODERS[name]
    pieces = encoder.processor.encode(re.sub(r"\s", " ", text), out_type=str)
    assert encoder.encode(text) == " ".join(pieces)
    assert encoder.decode(encoder.encode(text)) == encoder.processor.decode_pieces(pieces)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(
    "text",
    [
        "The film was <mask>.", "f(x) = <mask>;", "(<mask>)", "a pre-<mask> film", "x<y", "1 < 2 and 3 > 2",
        "List<String> a", "a <b> c", "<mask>", "<mask> <mask> two", 'he said "<mask>" and <unk>, so',
        "a - <mask>, <mask>!",
    ],
)  # fmt: skip
def test_symbols_are_kept_where_they_stand(name, text):
    encoder = ENCODERS[name]
    pieces = encoder.encode(text)
    assert [p for p in pieces.split() if p in (MASK, UNK)] == [w for w in (MASK, UNK) for _ in range(text.count(w))]
    assert encoder.decode(pieces).rstrip() == text
    assert encoder.encode(encoder.decode(pieces)) == pieces


def test_a_lone_surrogate_is_a_question_mark():
    encoder = ENCODERS["plain"]
    assert encoder.encode("a \ud800 film") == encoder.encode("a ? film")
