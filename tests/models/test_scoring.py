"""Pseudo-log-likelihoods: equal to those of masked copies, read one by one; the right words; the options."""

import pytest
import torch
from fairseq.data import Dictionary
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.scoring import METHODS, PseudoLogLikelihood

TEXTS = [
    "the river runs north.",
    "a",
    "many bridges, over the water - in spring!",
    "its people built a small town and its people built many bridges over the water in spring.",
    "the river runs north.",
    "",
]


@pytest.fixture(scope="module")
def bert(trained):  # noqa: F811
    return LambdaBertModel.from_pretrained(trained)


def words(pieces):
    """Return for each piece the number of its word, slowly."""
    numbers, number, closed = [], -1, True
    for piece in pieces:
        text = piece.replace("\u2581", "")
        is_mark = bool(text) and all(not c.isalpha() and not c.isdigit() for c in text)
        if piece[0] == "\u2581" or is_mark or closed:
            number += 1
        closed = is_mark
        numbers.append(number)
    return numbers


@torch.no_grad()
def reference(bert, text, method):
    """Return [(piece, log probability)]: each copy alone, all logits, a softmax over all of them."""
    ids = bert.encode(text)
    pieces = [bert.task.source_dictionary[i] for i in ids[1:-1]]
    word, result = words(pieces), []
    for i, piece in enumerate(pieces):
        copy = ids.clone()
        for j in range(len(pieces)):
            if j == i or (method == "word_l2r" and j > i and word[j] == word[i]):
                copy[j + 1] = bert.task.mask_idx
        logits, _ = bert.model(copy[None])
        result.append((piece, logits[0, i + 1].log_softmax(0)[ids[i + 1]].item()))
    return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("max_tokens", [1, 40, 8192])
def test_scores_are_those_of_masked_copies_read_alone(bert, method, max_tokens):
    expected = [reference(bert, text, method) for text in TEXTS]
    pieces = bert.score(TEXTS, method, per_piece=True, max_tokens=max_tokens)
    assert [[piece for piece, _ in text] for text in pieces] == [[piece for piece, _ in text] for text in expected]
    for one, other in zip(pieces, expected, strict=True):
        assert [value for _, value in one] == pytest.approx([value for _, value in other], abs=1e-5)
    sums = bert.score(iter(TEXTS), method, max_tokens=max_tokens)
    assert sums == pytest.approx([sum(value for _, value in text) for text in expected], abs=1e-4)
    assert sums[0] == pytest.approx(sums[4]) and sums[5] == 0


def test_the_two_methods_differ_where_a_word_has_several_pieces(bert):
    both = PseudoLogLikelihood(bert.model, bert.task.source_dictionary)
    ids = bert.encode("the river qzx.")
    ((found),) = both(ids[None])
    pieces = [bert.task.source_dictionary[i] for i in ids[1:-1]]
    number = words(pieces)
    differs = (found["original"] - found["word_l2r"]).abs().gt(1e-6).tolist()
    assert differs == [number[i] in number[i + 1 :] for i in range(len(number))] and any(differs)
    for method in METHODS:
        assert found[method].tolist() == pytest.approx(
            [value for _, value in reference(bert, "the river qzx.", method)]
        )


def dictionary(*symbols):
    made = Dictionary()
    for symbol in (*symbols, "<mask>"):
        made.add_symbol(symbol)
    return made


class Recorder(torch.nn.Module):
    """A stand-in for the model: records its inputs, and returns equal logits for all pieces."""

    def __init__(self, symbols):
        super().__init__()
        self.seen, self.encoder = [], torch.nn.Module()
        self.encoder.bert = torch.nn.Module()
        self.encoder.bert.lm_head = torch.nn.Linear(2, symbols)
        torch.nn.init.zeros_(self.encoder.bert.lm_head.weight)
        torch.nn.init.zeros_(self.encoder.bert.lm_head.bias)

    def forward(self, tokens, features_only, masked_tokens):
        self.seen += [row[row != 1].tolist() for row in tokens]
        return torch.zeros(len(masked_tokens), 2), {}


@pytest.mark.parametrize("space_behind,symbols,masked", [
    (False, "\u2581un able . \u2581x \u2581( y z ' s", ["01", "1", "2", "3", "4", "56", "6", "7", "8"]),
    (False, "\u2581 ab \u2581c", ["01", "1", "2"]),
    (False, "\u2581 <unk> s", ["012", "12", "2"]),
    (True, "un able\u2581 x\u2581 ( y z\u2581 .", ["01", "1", "2", "3", "45", "5", "6"]),
])  # fmt: skip
def test_the_copies_of_word_l2r(space_behind, symbols, masked):
    symbols = symbols.split()
    made = dictionary(*symbols)
    model = Recorder(len(made))
    scorer = PseudoLogLikelihood(model, made, space_behind, ["word_l2r"], max_tokens=20)
    ids = [0, *map(made.index, symbols), 2]
    ((found),) = scorer(torch.tensor([[*ids, 1, 1]]))
    expected = [[made.index("<mask>") if str(i - 1) in hidden else x for i, x in enumerate(ids)] for hidden in masked]
    assert model.seen == expected
    uniform = -torch.tensor(float(len(made))).log().item()
    assert found["word_l2r"].tolist() == pytest.approx([uniform] * len(symbols))


def test_what_both_methods_hide_is_computed_once():
    made = dictionary("\u2581a", "b", "\u2581c")
    model = Recorder(len(made))
    PseudoLogLikelihood(model, made)(torch.tensor([[0, 4, 5, 6, 2]]))
    assert len(model.seen) == 3 + 1 == len({tuple(row) for row in model.seen})


def test_one_text_is_a_float_and_ids_are_texts(bert):
    score = bert.score("the river runs north.")
    assert isinstance(score, float) and score < 0
    ids = bert.encode("the river runs north.")
    assert bert.score([ids]) == pytest.approx([score]) and bert.score(ids) == pytest.approx(score)
    assert bert.score([]) == []
    assert "".join(piece for piece, _ in bert.score("the river", per_piece=True)) == "\u2581the\u2581river"


def test_bfloat16_is_close(bert):
    exact = bert.score(TEXTS)
    assert bert.score(TEXTS, precision="bfloat16") == pytest.approx(exact, rel=0.01)
    assert bert.score(TEXTS, precision="bfloat16")[0] != exact[0]


def test_the_model_keeps_its_mode(bert):
    bert.train()
    try:
        assert bert.score(TEXTS[:1]) == pytest.approx(bert.score(TEXTS[:1])) and bert.model.training
    finally:
        bert.eval()


@pytest.mark.parametrize("options,message", [
    ({"method": "l2r"}, "method=l2r: choose one of original, word_l2r"),
    ({"precision": "half"}, "precision=half: choose one of float32, bfloat16, auto"),
])  # fmt: skip
def test_wrong_options(bert, options, message):
    with pytest.raises(ValueError, match=message):
        bert.score(TEXTS, **options)


def test_a_mask_in_a_text_is_refused(bert):
    with pytest.raises(ValueError, match="<mask> in a text to be scored.*fill_mask"):
        bert.score(["the <mask> runs"])
