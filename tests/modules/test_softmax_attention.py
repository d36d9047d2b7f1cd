"""The twin's attention against the textbook, one token and one head at a time: plain, rotary, with a gate."""

import math

import pytest
import torch

from fairseq_lambda.modules import SoftmaxAttention
from fairseq_lambda.modules.softmax_attention import rotate


def textbook(layer, x, padding_mask):
    """One query at a time, real tokens only; channel pairs turned as complex numbers."""
    y = torch.zeros_like(x)
    for row, padded in enumerate(padding_mask):
        real = x[row, ~padded]
        q, k, v = (real @ layer.qkv_proj.weight.T + layer.qkv_proj.bias).chunk(3, dim=-1)
        d = x.size(-1) // layer.heads
        for head in range(layer.heads):
            qh, kh, vh = (t[:, head * d : (head + 1) * d] for t in (q, k, v))
            if layer.rotary:
                qh, kh = turn(qh), turn(kh)
            for n in range(len(real)):
                weights = torch.stack([qh[n] @ kh[m] / math.sqrt(d) for m in range(len(real))]).softmax(0)
                y[row, n, head * d : (head + 1) * d] = weights @ vh
    if layer.gate_proj is not None:
        gate = x @ layer.gate_proj.weight.T
        y = y * gate / (1 + (-gate).exp())
    return torch.where(padding_mask[..., None], 0, y @ layer.out_proj.weight.T + layer.out_proj.bias)


def turn(x):
    half = x.size(-1) // 2
    rows = []
    for m, token in enumerate(x):
        turned = [
            torch.complex(token[i], token[i + half]) * torch.polar(*angle(m * 10000 ** (-i / half), token))
            for i in range(half)
        ]
        rows.append(torch.stack([t.real for t in turned] + [t.imag for t in turned]))
    return torch.stack(rows)


def angle(radians, like):
    return torch.ones((), dtype=like.dtype), torch.tensor(radians, dtype=like.dtype)


@pytest.mark.parametrize("rotary,gate", [(False, False), (True, False), (True, True)])
def test_outputs_and_gradients_are_the_textbook_s(rotary, gate):
    torch.manual_seed(0)
    layer = SoftmaxAttention(12, 3, rotary=rotary, gate=gate).double()
    torch.nn.init.normal_(layer.qkv_proj.bias)
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    padding_mask = torch.arange(7) >= torch.tensor([[7], [4]])
    grad = torch.randn_like(x).masked_fill(padding_mask[..., None], 0)
    results = []
    for y in (layer(x, padding_mask), textbook(layer, x, padding_mask)):
        y = y.masked_fill(padding_mask[..., None], 0)
        results.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], grad)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


def test_rotary_scores_depend_on_the_offset_alone():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    queries, keys = (rotate(t.expand(50, 8)) for t in (q, k))
    scores = queries @ keys.T
    for offset in (-30, -1, 0, 7):
        along = torch.diagonal(scores, offset)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert scores[10, 3] != pytest.approx(scores[3, 10])


def test_rotary_keeps_the_precision_it_is_given_and_counts_in_float32():
    x = torch.ones(300, 4)
    assert rotate(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(rotate(x.bfloat16()).float(), rotate(x), atol=1e-2, rtol=0)


@pytest.mark.parametrize("rotary", [False, True])
def test_without_rotary_positions_it_knows_no_order_and_with_them_it_does(rotary):
    torch.manual_seed(0)
    layer, x = SoftmaxAttention(8, 2, rotary=rotary).double(), torch.randn(1, 6, 8, dtype=torch.float64)
    order = torch.tensor([1, 0, 2, 5, 4, 3])
    assert layer(x)[:, order].allclose(layer(x[:, order])) == (not rotary)


def test_a_head_of_odd_width_cannot_turn():
    with pytest.raises(ValueError, match="--attention-rotary"):
        SoftmaxAttention(6, 2, rotary=True)
