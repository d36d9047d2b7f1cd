"""Vectors of texts, and lists of texts in the hub: the result of a text does not depend on the other texts."""

import pytest
import torch
from conftest import make_model, make_task
from test_hub_interface import trained  # noqa: F401  a fixture

from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.embedding import Pooling

TEXTS = [
    "the river runs north of a small town and its people built many bridges over the water in spring.",
    "a",
    "many bridges",
    "",
]


@pytest.fixture(scope="module")
def bert(trained):  # noqa: F811
    return LambdaBertModel.from_pretrained(trained)


@pytest.mark.parametrize("layer", [-1, 0, 1, 2, -2])
def test_mean_and_cls_are_of_each_text_alone(bert, layer):
    mean, cls = bert.embed(TEXTS, layer=layer), bert.embed(TEXTS, pooling="cls", layer=layer)
    assert mean.shape == cls.shape == (4, 16) and mean.dtype == torch.float32 and not mean.requires_grad
    for text, one, other in zip(TEXTS, mean, cls, strict=True):
        states = bert.extract_features(bert.encode(text), return_all_hiddens=True)
        top = bert.extract_features(bert.encode(text))
        features = (top if layer in (-1, 2) else states[layer])[0]
        torch.testing.assert_close(one, features.mean(0), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(other, features[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [-1, 1])
def test_lambda_is_the_content_lambda(bert, layer):
    matrix = bert.embed(TEXTS, pooling="lambda", layer=layer)
    for text, row in zip(TEXTS, matrix, strict=True):
        _, lambdas = bert.extract_features(bert.encode(text), return_lambdas=True)
        torch.testing.assert_close(row.reshape(4, 8), lambdas[-1 if layer == -1 else layer - 1][0])


@pytest.mark.parametrize("pooling", ["mean", "cls", "lambda"])
def test_batches_change_nothing(bert, pooling):
    expected = bert.embed(TEXTS, pooling, max_tokens=1)
    torch.testing.assert_close(bert.embed(iter(TEXTS), pooling), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(bert.embed([bert.encode(text) for text in TEXTS], pooling), expected)


@pytest.mark.parametrize("ids, message", [
    (torch.tensor([0, 99_999]), "99999 is not an id of this vocabulary"), (torch.tensor([-1]), "-1 is not an id"),
    (torch.tensor([0.5]), "0.5 is not an id"), ([torch.tensor([])], r"are \(n,\), not \(0,\)"),
    ([b"bytes"], "neither a text nor ids: b'bytes'"),
])  # fmt: skip
def test_what_is_neither_a_text_nor_ids(bert, ids, message):
    for function in (bert.embed, bert.score):
        with pytest.raises(ValueError, match=message):
            function(ids)


def test_one_text_and_none(bert):
    vector = bert.embed("a small town")
    assert vector.shape == (1, 16) and torch.equal(bert.embed(bert.encode("a small town")), vector)
    assert bert.embed([]).shape == (0, 16) and bert.embed([], "lambda").shape == (0, 32)


@pytest.mark.parametrize("options,message", [
    ({"pooling": "max"}, "pooling=max: choose one of mean, cls, lambda"),
    ({"layer": 3}, "layer=3: must be between -3 and 2; 0: the embeddings"),
    ({"pooling": "lambda", "layer": 0}, r"layer=0 has no content lambda; the layers that have one: \[1, 2\]"),
])  # fmt: skip
def test_wrong_options(bert, options, message):
    with pytest.raises(ValueError, match=message):
        bert.embed(TEXTS, **options)


def test_a_softmax_layer_has_no_content_lambda():
    model = make_model(make_task(), lambda_layers="0").eval()
    with pytest.raises(ValueError, match=r"layer=-1 has no content lambda; the layers that have one: \[1\]"):
        Pooling(model, "lambda")
    assert Pooling(model, "lambda", 1)(torch.tensor([[0, 5, 6, 2]])).shape == (1, 32)


@pytest.mark.parametrize("states", [False, True])
def test_features_of_a_list_are_those_of_each(bert, states):
    for text, (features, lambdas) in zip(TEXTS, bert.extract_features(TEXTS, states, True), strict=True):
        expected, own = bert.extract_features(bert.encode(text), states, True)
        torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(lambdas, own)
    alone = bert.extract_features(TEXTS, states)
    assert len(alone) == 4
    torch.testing.assert_close(alone[1], bert.extract_features(bert.encode("a"), states), atol=1e-6, rtol=1e-5)


def test_fill_mask_of_a_list_is_that_of_each(bert):
    texts = ["the <mask> runs north of a small town and its people.", "<mask>", "the <mask> runs <mask>."]
    for text, found in zip(texts, bert.fill_mask(texts, topk=3), strict=True):
        alone = bert.fill_mask(text, topk=3)
        flat, expected = (sum(x, []) if isinstance(x[0], list) else x for x in (found, alone))
        assert [(p.text, p.token) for p in flat] == [(p.text, p.token) for p in expected]
        assert [p.probability for p in flat] == pytest.approx([p.probability for p in expected], rel=1e-4)
    assert bert.fill_mask([]) == []
    with pytest.raises(ValueError, match="no <mask> in 'none'"):
        bert.fill_mask(["<mask>", "none"])
    for ids in (bert.encode("the <mask>"), [bert.encode("the <mask>")]):
        with pytest.raises(ValueError, match=r"fill_mask takes texts \(str\), not Tensor: decode\(\) turns ids"):
            bert.fill_mask(ids)
