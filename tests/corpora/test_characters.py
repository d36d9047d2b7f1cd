"""Vocabularies for text with many characters: coverage, byte fallback, and the non-joiner in Persian."""

import random
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preparing import learned

from fairseq_lambda.corpora.characters import plan_characters
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.shared_vocabulary import Vocabulary
from fairseq_lambda.models.pieces import SentencePieceEncoder
from fairseq_lambda.symbols import UNK

HAN = [chr(0x4E00 + i) for i in range(4072)]
WEIGHTS = list(accumulate(1 / (rank + 5) for rank in range(len(HAN))))


def chinese(count, seed=0):
    draw = random.Random(seed)
    return ["".join(draw.choices(HAN, cum_weights=WEIGHTS, k=30)) + "\u3002" for _ in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A vocabulary of 8,000 pieces with default settings, for 4,072 Chinese characters."""
    path = tmp_path_factory.mktemp("chinese") / "sentencepiece.model"
    size, plan = learned(chinese(6000), 8000, path)
    assert size == 8000 and len(plan.kept) == 4000 and plan.byte_fallback
    return path


def test_chinese_has_no_unknown_character_by_default(model):
    encoded = PieceEncoder(model).encode([*chinese(300, seed=1), "\U00020000 \U0001f600"])
    assert sum(sentence.encoder_unknowns for sentence in encoded) == 0
    assert not any(UNK in sentence.pieces for sentence in encoded)


@pytest.mark.parametrize("text", [UNK, f"{UNK}{UNK}", f"{HAN[0]}{UNK}", f"\u9fa5{UNK}\u9fa5 {UNK}"])
def test_a_literal_unk_is_not_spelt_in_bytes(model, text):
    (encoded,) = PieceEncoder(model).encode([text])
    assert encoded.pieces.count(UNK) == encoded.literal_unknowns == text.count(UNK)
    assert encoded.encoder_unknowns == 0
    assert "<0xEE>" not in encoded.pieces


def test_the_dictionary_holds_the_bytes_and_text_decodes_to_itself(model):
    dictionary = Vocabulary.learned(model.read_bytes()).dictionary()
    assert all(f"<0x{byte:02X}>" in dictionary for byte in range(256))
    hub = SentencePieceEncoder(model.read_bytes(), dictionary)
    text = "\U00020000\U0001f600\u9fa5" + HAN[0]
    assert "<0xF0>" in hub.encode(text)
    assert hub.decode(hub.encode(text)) == text
    assert hub.decode(hub.encode("\u9fa5 <mask> \u9fa5")) == "\u9fa5 <mask> \u9fa5"


def test_options_override_what_the_text_suggests(tmp_path):
    path, text = tmp_path / "sentencepiece.model", chinese(2000)
    _, plan = learned(text, 6000, path, coverage=1.0, byte_fallback=False)
    assert len(plan.kept) == len(set("".join(text))) and not plan.byte_fallback
    assert "<0xE4>" not in PieceEncoder(path).pieces
    # SentencePiece itself refuses values below 0.98
    size, plan = learned(text, 1000, path, coverage=0.7, byte_fallback=False)
    assert size == 1000 and 0.7 <= plan.coverage < 0.98
    assert sum(len(piece) == 1 for piece in PieceEncoder(path).pieces) <= len(plan.kept) + 1
    with pytest.raises(PrepareError, match="cannot hold the characters"):
        learned(text, 1000, path, coverage=1.0)


def test_the_non_joiner_stays_inside_persian_words(tmp_path):
    words = ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u06a9\u062a\u0627\u0628\u200c\u0647\u0627"]
    draw = random.Random(0)
    text = [" ".join(draw.choices([*words, "\u0631\u0627", "\u0628\u0631\u0648\u0645"], k=6)) for _ in range(300)]
    path = tmp_path / "sentencepiece.model"
    learned(text, 40, path)
    encoder = PieceEncoder(path)
    hub = SentencePieceEncoder(path.read_bytes(), Vocabulary.learned(path.read_bytes()).dictionary())
    for word in words:
        assert encoder.encode([word])[0].encoder_unknowns == 0
        assert hub.decode(hub.encode(word)) == word


@given(st.dictionaries(st.characters(), st.integers(1, 10**6), min_size=1), st.integers(6, 10**5))
def test_the_plan_keeps_what_it_says(counts, vocab_size):
    characters = Counter(counts)
    plan = plan_characters(characters, vocab_size)
    assert len(plan.kept) <= max(vocab_size // 2, 100)
    assert plan.coverage == sum(characters[c] for c in plan.kept) / characters.total()
    assert vocab_size >= 2048 or not plan.byte_fallback
    for share in (0.5, 1.0):
        asked = plan_characters(characters, vocab_size, coverage=share)
        assert asked.coverage >= share
        least = min(characters[c] for c in asked.kept)
        assert (asked.coverage * characters.total() - least) < share * characters.total() + 1e-6


def test_english_keeps_an_eighth_for_characters():
    counts = Counter({chr(0x100 + i): 10**6 // (i + 1) ** 3 + 2 for i in range(3000)})
    plan = plan_characters(counts, 2000)
    assert len(plan.kept) == 1000  # with two of each, too much text would be left out
    counts = Counter({chr(0x100 + i): 10**9 // (i + 1) ** 3 + 2 for i in range(3000)})
    plan = plan_characters(counts, 2000)
    assert len(plan.kept) == 250 and not plan.byte_fallback and plan.normalisation == "nmt_nfkc"
