"""The SentencePiece model, dict.txt made from it, and encoding."""

import random
from collections import Counter

import pytest
from fairseq.data import Dictionary
from fairseq.tokenizer import tokenize_line
from hypothesis import given
from hypothesis import strategies as st
from preparing import learned

from fairseq_lambda.corpora import vocabulary
from fairseq_lambda.corpora.characters import plan_characters
from fairseq_lambda.corpora.encoding import PieceEncoder
from fairseq_lambda.corpora.errors import PrepareError
from fairseq_lambda.corpora.shared_vocabulary import Vocabulary
from fairseq_lambda.corpora.training_text import TextStatistics
from fairseq_lambda.corpora.vocabulary import SPECIALS
from fairseq_lambda.corpora.workers import Workers
from fairseq_lambda.symbols import MASK, UNK, WORD_START

SYLLABLES = ["ba", "ke", "li", "mo", "nu", "ra", "si", "to"]
# the trainer skips its own control symbols, so their letters also occur outside them
ODD = " <pad> <mask> #fairseq:overwrite <s> pads < masks >"


def sentences(count=400, seed=0):
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(150)]
    return [" ".join(draw.choices(words, k=8)) + f" <unk>, the{ODD if i % 3 == 0 else ''}." for i in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "sentencepiece.model"
    assert learned(sentences(), 110, path)[0] == 110
    return path


@pytest.fixture(scope="module")
def encoder(model):
    return PieceEncoder(model)


def test_the_same_text_gives_the_same_model(model, tmp_path):
    learned(sentences(), 110, tmp_path / "sentencepiece.model")
    assert (tmp_path / "sentencepiece.model").read_bytes() == model.read_bytes()


def test_the_dictionary_has_every_piece_once_and_no_special(model, encoder, tmp_path):
    path = tmp_path / "dict.txt"
    counts = Counter({piece: n for n, piece in enumerate(encoder.pieces)})
    Vocabulary.learned(model.read_bytes()).dictionary(counts).save(str(path))
    dictionary = Dictionary.load(str(path))
    assert dictionary.symbols[dictionary.nspecial :] == encoder.pieces
    assert dictionary.count[dictionary.nspecial :] == [counts[piece] for piece in encoder.pieces]
    # including the <mask> that the task appends, there is one symbol per row of the model
    assert len(dictionary) + 1 == 110 == len(encoder.pieces) + SPECIALS
    assert not {"<pad>", MASK, "<s>", "</s>", UNK} & set(encoder.pieces)


def test_literal_unk_teaches_no_pieces(encoder):
    for piece in encoder.pieces:
        assert not {"un", "unk", "nk>", "<u"} & {piece.strip(WORD_START)}


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<unk>", [UNK]),
        ("<unk> <unk>", [UNK, UNK]),
        ("<unk><unk>", [UNK, UNK]),
        ("<unk>, the", [UNK, ",", f"{WORD_START}the"]),
        ("", []),
    ],
)
def test_a_literal_unk_is_one_token_between_ordinary_pieces(encoder, text, pieces):
    (encoded,) = encoder.encode([text])
    assert encoded.pieces == pieces
    assert (encoded.literal_unknowns, encoded.encoder_unknowns) == (text.count(UNK), 0)


def test_unknown_characters_are_counted_apart_from_literal_unk(encoder):
    (encoded,) = encoder.encode(["ba \u6f22 <unk> \u5b57"])
    assert encoded.pieces.count(UNK) == 3
    assert (encoded.literal_unknowns, encoded.encoder_unknowns) == (1, 2)


@given(st.text(max_size=60))
def test_fairseq_reads_back_the_pieces_that_were_encoded(encoder, text):
    (encoded,) = encoder.encode([text])
    assert tokenize_line(" ".join(encoded.pieces)) == encoded.pieces
    assert set(encoded.pieces) <= {*encoder.pieces, UNK}


def test_text_that_is_encoded_decodes_to_itself(encoder):
    for sentence in sentences(20, seed=0):
        text = sentence.replace("<unk>", "ba")
        (encoded,) = encoder.encode([text])
        assert "".join(encoded.pieces).replace(WORD_START, " ").strip() == text


def test_long_lines_are_learned_from_and_not_dropped(tmp_path):
    line = " ".join(s.replace("<unk>", "") for s in sentences(300))
    assert len(line) > 4192
    path = tmp_path / "sentencepiece.model"
    learned([line], 100, path)
    assert PieceEncoder(path).encode([line])[0].encoder_unknowns == 0


def test_rare_characters_do_not_crowd_out_the_pieces(tmp_path):
    rare = [chr(0x4E00 + i) for i in range(300)]
    path = tmp_path / "sentencepiece.model"
    learned([*sentences(), *rare], 200, path)
    assert sum(piece.strip(WORD_START) in rare for piece in PieceEncoder(path).pieces) < 110


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (1, "too small"),
        (SPECIALS, "too small"),
        (SPECIALS + 1, "cannot hold the characters"),
        (100_000, r"far too large .* largest possible is \d+"),
    ],
)
def test_impossible_sizes_are_refused_with_the_reason(tmp_path, size, reason):
    with pytest.raises(PrepareError, match=reason):
        learned(sentences(), size, tmp_path / "sentencepiece.model")


def test_the_largest_size_that_is_named_is_possible(tmp_path):
    path = tmp_path / "sentencepiece.model"
    with pytest.raises(PrepareError) as caught:
        learned(sentences(), 100_000, path)
    largest = int(str(caught.value).rpartition("--vocab-size ")[2].split()[0])
    assert learned(sentences(), largest, path)[0] == largest


def test_of_a_long_text_an_even_sample_is_enough(tmp_path, monkeypatch):
    assert vocabulary.sampling_step(TextStatistics()) == 1
    monkeypatch.setattr(vocabulary, "_MAX_CHARACTERS", 1000)
    statistics = TextStatistics(10, Counter(a=1000))
    assert vocabulary.sampling_step(statistics) == 1
    statistics.characters["b"] += 1001
    assert vocabulary.sampling_step(statistics) == 3
    monkeypatch.setattr(vocabulary, "_MAX_LINES", 2)
    assert vocabulary.sampling_step(statistics) == 5
    text = tmp_path / "text"
    text.write_text("".join(f"{s}\n\n" if i % 5 else f"{s}\n" for i, s in enumerate(sentences(300))))
    plan = plan_characters(Counter("".join(sentences(300))), 100)
    (tmp_path / "third").write_text("".join(f"{s}\n" for s in sentences(300)[::3]))
    expected = vocabulary.learn(vocabulary.Lesson(tmp_path / "third", 1, 100, plan))
    assert vocabulary.learn(vocabulary.Lesson(text, 3, 100, plan)) == expected
    with Workers(1, vocabulary.learner) as pool:  # the result does not depend on the machine or the process
        assert list(pool.map([vocabulary.Lesson(text, 3, 100, plan)])) == [expected]
