"""Softmax attention, plain and rotary, is compared with the textbook, one token and one head at a time."""

import math

import pytest
import torch

from fairseq_lambda.modules import SoftmaxAttention
from fairseq_lambda.modules.softmax_attention import rotate


def textbook(layer, x, padding_mask):
    """One query at a time, real tokens only; channel pairs are rotated as complex numbers."""
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
    return torch.where(padding_mask[..., None], 0, y @ layer.out_proj.weight.T + layer.out_proj.bias)


def turn(x):
    d, rows = x.size(-1), []
    for m, token in enumerate(x):
        angles = [torch.tensor(m * 10000 ** (-2 * i / d), dtype=x.dtype) for i in range(d // 2)]
        turned = [
            torch.complex(token[2 * i], token[2 * i + 1]) * torch.polar(torch.ones_like(a), a)
            for i, a in enumerate(angles)
        ]
        rows.append(torch.stack([part for t in turned for part in (t.real, t.imag)]))
    return torch.stack(rows)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_outputs_and_gradients_are_the_textbook_s(rotary, compiling, monkeypatch):
    """``compiling``: without complex numbers, as for compilers and exporters."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    layer = SoftmaxAttention(12, 3, rotary=rotary).double()
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("rotary", [False, True])
def test_what_is_not_finite_in_padding_reaches_no_real_token(rotary, bad):
    layer, x = SoftmaxAttention(12, 3, rotary=rotary), torch.randn(2, 7, 12)
    padding_mask = torch.arange(7) >= torch.tensor([[7], [4]])
    clean, dirty = (layer(x.masked_fill(padding_mask[..., None], filled), padding_mask) for filled in (0, bad))
    assert torch.equal(clean[~padding_mask], dirty[~padding_mask])


def turned(x):
    """Apply the layer's rotary positions to (n, d), d = 8."""
    rotation = SoftmaxAttention(8, 1, rotary=True).rotation(x[None])
    return rotate(x[None, :, None, None], rotation)[0, :, 0, 0]


def test_rotary_scores_depend_on_the_offset_alone():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    scores = turned(q.expand(50, 8)) @ turned(k.expand(50, 8)).T
    for offset in (-30, -1, 0, 7):
        along = torch.diagonal(scores, offset)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert scores[10, 3] != pytest.approx(scores[3, 10])


def test_rotary_keeps_the_precision_it_is_given_and_counts_in_float32():
    x = torch.ones(300, 8)
    assert turned(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(turned(x.bfloat16()).float(), turned(x), atol=1e-2, rtol=0)


@pytest.mark.parametrize("rotary", [False, True])
def test_without_rotary_positions_it_knows_no_order_and_with_them_it_does(rotary):
    torch.manual_seed(0)
    layer, x = SoftmaxAttention(8, 2, rotary=rotary).double(), torch.randn(1, 6, 8, dtype=torch.float64)
    order = torch.tensor([1, 0, 2, 5, 4, 3])
    assert layer(x)[:, order].allclose(layer(x[:, order])) == (not rotary)


def test_a_head_of_odd_width_cannot_turn():
    with pytest.raises(ValueError, match="attention_rotary=True"):
        SoftmaxAttention(6, 2, rotary=True)
