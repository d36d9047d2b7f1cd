"""The trial content terms: against loops, forms that must agree, and what may not reach what."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from content_terms import kernels
from content_terms.layer import ContentLayer
from content_terms.terms import TERMS, SoftmaxTerm
from content_terms.windowed import windowed_softmax

from fairseq_lambda.modules import LambdaBertOptions
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention, rotate

OPTIONS = LambdaBertOptions(
    vocab_size=20, layers=2, embed_dim=32, ffn_embed_dim=16, heads=2, dim_k=16, local_context=3, backend="reference"
)
GLOBAL = [name for name in TERMS if not name.startswith("softmax")]


def make(name, **options):
    """Return a layer in float64 with no weight at a value that hides something."""
    torch.manual_seed(0)
    layer = ContentLayer(OPTIONS, TERMS[name](OPTIONS, **options)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return layer


def inputs(batch=2, length=9):
    torch.manual_seed(1)
    shapes = (32,), (2, 16), (16,)
    return [torch.randn(batch, length, *shape, dtype=torch.float64) for shape in shapes]


def normed(x, norm):
    return torch.nn.functional.layer_norm(x, x.shape, norm.weight, norm.bias, norm.eps)


def in_groups(x, term, norm):
    return torch.cat([normed(part, norm) for part in x.chunk(term.groups)])


def turned(x, position):
    """Rotary positions, one pair of channels after the other."""
    out = torch.empty_like(x)
    for i in range(0, len(x), 2):
        angle = position * 10000 ** (-i / len(x))
        out[i] = x[i] * math.cos(angle) - x[i + 1] * math.sin(angle)
        out[i + 1] = x[i] * math.sin(angle) + x[i + 1] * math.cos(angle)
    return out


def kappa(name, q, k):
    """The kernel of one query and one key, by its definition."""
    if name.startswith("taylor"):
        s = q @ k / 16**0.5
        return 1 + s + s**2 / 2
    if name.startswith("hedgehog"):
        return q.softmax(0) @ k.softmax(0) + (-q).softmax(0) @ (-k).softmax(0)
    return (q[:16].softmax(0) @ k[:16].softmax(0)) * (q[16:].softmax(0) @ k[16:].softmax(0))


def by_loops(name, term, x, queries, values):
    """The term of one text without padding, (n, h, v)."""
    n, heads = queries.shape[:2]
    rows = []
    for h in range(heads):
        k = [term.k_proj(one) for one in x]
        if term.of_neighbours:
            zero = torch.zeros(3, len(k[0]) // 3, dtype=x.dtype)
            beside = [zero, *(one.view(3, -1) for one in k), zero]
            k = [beside[i][0] + beside[i + 1][1] + beside[i + 2][2] for i in range(n)]
        k = [in_groups(one, term, term.k_norm) for one in k]
        if term.q_proj is None:
            q = list(queries[:, h])
        else:
            q = [in_groups(term.q_proj(one).view(heads, -1)[h], term, term.q_norm) for one in x]
        if name.startswith("softmax"):
            q, k = ([turned(one, i) for i, one in enumerate(side)] for side in (q, k))
        for i in range(n):
            if name.startswith("softmax"):
                near = [m for m in range(n) if abs(m - i) <= term.window]
                weights = torch.stack([q[i] @ k[m] / 4 for m in near]).softmax(0)
            else:
                near = range(n)
                # the constant of the Taylor kernel is in kappa: (1 + s)^2 + 1, halved
                constant = 0 if name.startswith("taylor") else term.kernel.constant
                weights = torch.stack([kappa(name, q[i], k[m]) + constant for m in near])
                weights = weights / weights.sum()
            rows.append(sum(w * values[m] for w, m in zip(weights, near, strict=True)))
    return torch.stack(rows).view(heads, n, -1).transpose(0, 1)


@pytest.mark.parametrize("form", ["pairs", "features"])
@pytest.mark.parametrize("name", TERMS)
def test_equals_loops_with_every_gradient(name, form, monkeypatch):
    if name.startswith("softmax"):
        options = {"window": 3 if form == "pairs" else 20}  # shorter than the text: blocks; longer: all pairs
    else:
        options = {}
        monkeypatch.setattr(kernels, "prefers_pairs", lambda *_: form == "pairs")
    term = make(name, **options).term
    tensors = [t.requires_grad_() for t in inputs()]
    lengths = 9, 5
    padding_mask = torch.arange(9) >= torch.tensor(lengths)[:, None]
    values = tensors[2].masked_fill(padding_mask[..., None], 0)
    y = term(tensors[0], tensors[1], values, padding_mask, None)
    expected = [by_loops(name, term, *(t[b, :n] for t in tensors)) for b, n in enumerate(lengths)]
    given = [tensors[0], tensors[2]] if term.q_proj is not None else tensors  # queries of its own
    wanted = [*given, *term.parameters()]
    weights = torch.randn_like(y)
    for b, n in enumerate(lengths):
        torch.testing.assert_close(y[b, :n], expected[b], atol=1e-10, rtol=1e-8)
    ours = torch.autograd.grad((y * weights)[~padding_mask].sum(), wanted)
    theirs = torch.autograd.grad(sum((e * weights[b, : len(e)]).sum() for b, e in enumerate(expected)), wanted)
    for gradient, reference in zip(ours, theirs, strict=True):
        assert reference.abs().max() > 1e-6  # nothing here hides a gradient
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("name", TERMS)
def test_padding_never_leaks(name):
    layer = make(name, **({"window": 3} if name.startswith("softmax") else {}))
    x, lengths = inputs(3, 12)[0], torch.tensor([12, 7, 0])
    padding_mask = torch.arange(12) >= lengths[:, None]
    for garbage in (1e30, float("nan"), float("inf")):
        y, _ = layer(x.masked_fill(padding_mask[..., None], garbage), padding_mask)
        for b, n in enumerate(lengths.tolist()):
            alone = layer(x[b : b + 1, :n])[0][0] if n else x[b, :0]
            torch.testing.assert_close(y[b, :n], alone, atol=1e-10, rtol=1e-9)
    clean = x.masked_fill(padding_mask[..., None], 7).requires_grad_()
    y, _ = layer(clean, padding_mask)
    y[~padding_mask].sum().backward()
    assert y.isfinite().all() and not clean.grad[padding_mask].any()


@pytest.mark.parametrize("name", [name for name in TERMS if name not in GLOBAL])
def test_a_window_knows_offsets_only_and_no_farther_than_its_end(name):
    term = make(name, window=3).term
    x, queries, values = inputs(1, 30)
    part = term(*(t[:, 5:25] for t in (x, queries, values)), None, None)
    one = term(x, queries, values, None, None)
    reach = 3 + term.of_neighbours
    torch.testing.assert_close(part[:, reach : 20 - reach], one[:, 5 + reach : 25 - reach], atol=1e-10, rtol=1e-9)
    changed = x.clone()
    changed[:, 20] += 1
    two = term(changed, queries, values, None, None)
    assert (one != two).flatten(2).any(2)[0].nonzero().flatten().tolist() == list(range(20 - reach, 21 + reach))


@pytest.mark.parametrize("name", GLOBAL)
def test_a_kernel_knows_no_positions(name):
    term = make(name).term
    tensors = inputs(1, 14)
    if term.of_neighbours:
        with torch.no_grad():
            term.k_proj.weight.unflatten(0, (3, -1))[[0, 2]] = 0
    order = torch.randperm(14)
    permuted = term(*(t[:, order] for t in tensors), None, None)
    torch.testing.assert_close(permuted, term(*tensors, None, None)[:, order], atol=1e-10, rtol=1e-9)


def test_a_text_of_the_window_is_read_by_softmax_attention():
    term = SoftmaxTerm(OPTIONS).double()
    x, queries, values = inputs(1, term.window + 1)
    q, k = (t.transpose(1, 2) for t in (queries, term.k_norm(term.k_proj(x))[:, :, None].expand_as(queries)))
    rotation = SoftmaxAttention(32, 2, rotary=True).rotation(x)
    both = torch.stack([q, k], 1).permute(0, 3, 1, 2, 4)
    q, k = rotate(both, rotation).permute(2, 0, 3, 1, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, values[:, None].expand(-1, 2, -1, -1))
    torch.testing.assert_close(term(x, queries, values, None, None), expected.transpose(1, 2))


@pytest.mark.parametrize("name", TERMS)
def test_positions_that_are_asked_for_are_those_of_all(name):
    layer = make(name)
    x = inputs(3, 11)[0].requires_grad_()
    padding_mask = torch.arange(11) >= torch.tensor([11, 8, 4])[:, None]
    at = torch.tensor([0, 11, 22, 3, 7, 2, 15, 23, 3, 0])  # <s> of each, then masked ones, some of them twice
    y, content_lambda = layer(x, padding_mask, return_lambda=True, at=at)
    full, expected_lambda = layer(x, padding_mask, return_lambda=True)
    torch.testing.assert_close(y, full.flatten(0, 1)[at])
    torch.testing.assert_close(content_lambda, expected_lambda)
    weights = torch.randn_like(y)
    wanted = [x, *layer.parameters()]
    ours = torch.autograd.grad((y * weights).sum(), wanted)
    theirs = torch.autograd.grad((full.flatten(0, 1)[at] * weights).sum(), wanted)
    for gradient, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, reference)


@pytest.mark.parametrize("length", [24, 400])  # all pairs; features, or blocks
@pytest.mark.parametrize("name", TERMS)
def test_bfloat16_is_near_and_finite_however_large_the_keys(name, length):
    layer = make(name).float()
    x = inputs(2, length)[0].float()
    for gain in (1.0, 30.0):
        for module in layer.term.modules():
            if isinstance(module, torch.nn.LayerNorm):
                torch.nn.init.constant_(module.weight, gain)
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = layer(x)
        assert y.dtype == torch.float32
        exact, _ = copy.deepcopy(layer).double()(x.double())
        error = (y - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < (0.02 if gain == 1 else 0.3)
        y.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
        layer.zero_grad()


def test_the_denominator_is_positive_where_nothing_matches():
    queries, keys = torch.ones(1, 3, 2), torch.zeros(1, 5, 2)
    values = torch.randn(1, 5, 4)
    y = kernels.kernel_mix([queries], [keys], values, 1e-3, 5)
    torch.testing.assert_close(y, values.mean(1, keepdim=True).expand(1, 3, 4))


def test_what_the_trial_leaves_out_is_refused():
    with pytest.raises(ValueError, match="--lambda-intra-depth 2"):
        ContentLayer(replace(OPTIONS, dim_u=2), TERMS["softmax"](OPTIONS))
    assert windowed_softmax(*(torch.ones(1, 1, *s) for s in ((2, 4), (4,), (3,))), window=0).eq(1).all()
