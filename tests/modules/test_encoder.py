"""An encoder layer: the residual sums, written out."""

import pytest
import torch
from fairseq.utils import get_activation_fn

from fairseq_lambda.modules import LambdaLayer, SoftmaxAttention
from fairseq_lambda.modules.encoder import EncoderLayer


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
