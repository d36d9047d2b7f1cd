"""An encoder layer: the residual sums, written out."""

import pickle
import tracemalloc

import pytest
import torch
from fairseq.utils import get_activation_fn

from fairseq_lambda.modules import LambdaBert, LambdaBertOptions, LambdaLayer, SoftmaxAttention
from fairseq_lambda.modules.activations import ACTIVATIONS
from fairseq_lambda.modules.encoder import EncoderLayer, parse_layers


def normed(x, norm):
    return (
        norm.weight * (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        + norm.bias
    )


def written_out(layer, x, padding_mask):
    mixed_from = x if layer.post_norm else normed(x, layer.mixing_layer_norm)
    y = layer.mixing(mixed_from, padding_mask)
    x = normed(x + y, layer.mixing_layer_norm) if layer.post_norm else x + y
    hidden = (x if layer.post_norm else normed(x, layer.final_layer_norm)) @ layer.fc1.weight.T + layer.fc1.bias
    x = x + hidden.relu() @ layer.fc2.weight.T + layer.fc2.bias
    return normed(x, layer.final_layer_norm) if layer.post_norm else x


@pytest.mark.parametrize("post_norm", [False, True])
def test_outputs_and_gradients_are_those_written_out(post_norm):
    torch.manual_seed(0)
    layer = EncoderLayer(
        LambdaLayer(12, 3, dim_k=5, local_context=3),
        12,
        7,
        dropout=0.0,
        activation_fn="relu",
        post_norm=post_norm,
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    padding_mask = torch.arange(7) >= torch.tensor([[7], [4]])
    grad = torch.randn_like(x)
    results = []
    for y in (layer(x, padding_mask)[0], written_out(layer, x, padding_mask)):
        results.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_gelu_of_bfloat16_has_the_values_of_fairseqs():
    activation = EncoderLayer(SoftmaxAttention(16, heads=2), 16, 32).activation_fn
    x = torch.linspace(-9, 9, 1001).bfloat16()
    results = []
    for function in (activation, get_activation_fn("gelu")):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(x.cos())
        results += [(y.detach(), leaf.grad)]
    assert results[0][0].dtype == torch.bfloat16
    for ours, theirs in zip(*results, strict=True):  # up to one unit in the last place
        torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-6)


SMALL = {"vocab_size": 10, "layers": 1, "embed_dim": 8, "ffn_embed_dim": 8, "heads": 2}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_model_can_be_pickled(name):
    model = LambdaBert(LambdaBertOptions(**SMALL, activation_fn=name), sentence_head=True).eval()
    copy, tokens = pickle.loads(pickle.dumps(model)), torch.tensor([[0, 5, 6, 2]])
    assert torch.equal(copy(tokens).features, model(tokens).features)


def test_an_empty_batch_has_empty_features_and_an_empty_text_is_refused():
    model = LambdaBert(LambdaBertOptions(**SMALL))
    assert model(torch.zeros(0, 5, dtype=torch.long)).features.shape == (0, 5, 8)
    with pytest.raises(ValueError, match="a sequence needs at least one position"):
        model(torch.zeros(2, 0, dtype=torch.long))


@pytest.mark.parametrize("options,message", [
    ({"layers": 2.5}, "layers=2.5: must be a whole number"),
    ({"max_positions": True}, "max_positions=True: must be a whole number"),
])  # fmt: skip
def test_bad_options_of_a_model_raise_naming_them(options, message):
    with pytest.raises(ValueError, match=message):
        LambdaBertOptions(**SMALL | options)


def test_layers_are_named_by_numbers_and_ranges():
    assert parse_layers("0, 2-3", 4) == {0, 2, 3}


def test_a_range_far_too_long_is_refused_before_it_is_written_out():
    tracemalloc.start()
    with pytest.raises(ValueError, match="layer 300000 does not exist .layers=4"):
        parse_layers("0-300000", 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6
