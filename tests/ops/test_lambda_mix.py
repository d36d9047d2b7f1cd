"""Backends against loops over the definition, against each other, and against finite differences."""

import itertools

import pytest
import torch

from fairseq_lambda.ops import lambda_mix
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.reference import lambda_mix_reference

LENGTHS = [1, 2, 7, 63, 130]
DEPTHS = [1, 2, 4]
CONTEXTS = [1, 5, 23, 301]


def inputs(length, dim_u=1, context=5, batch=2, heads=3, dim_k=4, dim_v=5, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    return (
        draw(batch, length, heads, dim_k),
        draw(batch, length, dim_k, dim_u),
        draw(batch, length, dim_v, dim_u),
        draw(dim_k, dim_u, context),
    )


def loops(queries, keys, values, embedding):
    """The equations, one number at a time."""
    batch, length, heads, dim_k = queries.shape
    dim_v, dim_u = values.shape[2:]
    reach = embedding.shape[-1] // 2
    y = torch.zeros(batch, length, heads, dim_v, dtype=queries.dtype)
    for b, n, m in itertools.product(range(batch), range(length), range(length)):
        for k, u in itertools.product(range(dim_k), range(dim_u)):
            weight = keys[b, m, k, u]
            if abs(m - n) <= reach:
                weight = weight + embedding[k, u, m - n + reach]
            for h in range(heads):
                y[b, n, h] += queries[b, n, h, k] * weight * values[b, m, :, u]
    return y


@pytest.mark.parametrize("backend", ["reference", "banded"])
@pytest.mark.parametrize("length,dim_u,context", [(1, 1, 3), (6, 2, 3), (7, 1, 1), (5, 2, 23), (6, 1, 11)])
def test_equals_loops_over_the_definition(backend, length, dim_u, context):
    tensors = [t.detach() for t in inputs(length, dim_u, context, heads=2, dim_k=2, dim_v=2)]
    y, content_lambda = lambda_mix(*tensors, backend=backend)
    torch.testing.assert_close(y, loops(*tensors), atol=1e-12, rtol=0)
    expected = sum(torch.einsum("bmk,bmv->bkv", tensors[1][..., u], tensors[2][..., u]) for u in range(dim_u))
    torch.testing.assert_close(content_lambda, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dim_u", DEPTHS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_banded_equals_reference_with_every_gradient(length, dim_u, context):
    ours, theirs = inputs(length, dim_u, context), inputs(length, dim_u, context)
    grad_y = torch.randn(2, length, 3, 5, dtype=torch.float64)
    grad_lambda = torch.randn(2, 4, 5, dtype=torch.float64)
    results = []
    for tensors, backend in ((ours, "banded"), (theirs, "reference")):
        y, content_lambda = lambda_mix(*tensors, backend=backend)
        torch.autograd.backward((y, content_lambda), (grad_y, grad_lambda))
        results.append([y, content_lambda, *(t.grad for t in tensors)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("span", [1, 8, 21, 22, 50, 63, 1000])
@pytest.mark.parametrize("context", [5, 23, 41])
def test_any_span_gives_the_same(span, context):
    """Chunks of a part of a sequence, of one, of several, of all; the last with less than the others."""
    results = []
    for function in (lambda_mix_reference, lambda *tensors: lambda_mix_banded(*tensors, span=span)):
        tensors = inputs(21, 2, context, batch=4)
        y, content_lambda = function(*tensors)
        (y.sin().sum() + content_lambda.square().sum()).backward()
        results.append([y, content_lambda, *(t.grad for t in tensors)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_errs_at_most_twice_plain_torch_in_every_gradient(dtype):
    """Against float64 on the same rounded inputs; several chunks, whose sums must not add up errors."""
    exact = [t.detach().to(dtype).double().requires_grad_() for t in inputs(400, 2, 23)]
    grad_y = torch.randn(2, 400, 3, 5, dtype=torch.float64).to(dtype).double()

    def results(function, tensors):
        y, _ = function(*tensors)
        return [y, *torch.autograd.grad(y, tensors, grad_y.to(y.dtype))]

    expected = results(lambda_mix_reference, exact)
    low = [t.detach().to(dtype).requires_grad_() for t in exact]
    ours = results(lambda *tensors: lambda_mix_banded(*tensors, span=64), low)
    plain = results(lambda_mix_reference, low)
    for got, bound, true in zip(ours, plain, expected, strict=True):
        assert (got - true).norm() <= 2 * (bound - true).norm()


@pytest.mark.parametrize("backend", ["reference", "banded"])
@pytest.mark.parametrize("length,dim_u,context", [(1, 1, 3), (5, 2, 3), (3, 1, 9)])
def test_gradcheck(backend, length, dim_u, context):
    tensors = inputs(length, dim_u, context, batch=1, heads=2, dim_k=2, dim_v=2)
    assert torch.autograd.gradcheck(lambda *t: lambda_mix(*t, backend=backend), tensors)


def test_banded_writes_all_memory_it_hands_out(monkeypatch):
    """y and the queries' gradient are allocated uninitialised: fill them with NaN and see none in the result."""
    new_empty, empty_like = torch.Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(float("nan")))
    tensors = inputs(45, 2, 7)
    y, _ = lambda_mix_banded(*tensors, span=16)
    y.sum().backward()
    assert y.isfinite().all() and all(t.grad.isfinite().all() for t in tensors)


def test_banded_keeps_nothing_but_its_inputs_for_the_backward_pass():
    tensors, saved = inputs(300, 2, 23), set()

    def pack(t):
        saved.add(t.untyped_storage().data_ptr())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        lambda_mix(*tensors, backend="banded")
    assert saved == {t.untyped_storage().data_ptr() for t in tensors}


def test_backends_that_cannot_serve_say_why():
    tensors = inputs(3)
    with pytest.raises(ValueError, match="backend=triton: .*; use backend=auto, or backend=banded"):
        lambda_mix(*tensors, backend="triton")
    with pytest.raises(ValueError, match="backend=fast.*choose one of"):
        lambda_mix(*tensors, backend="fast")
    with pytest.raises(ValueError, match="4 offsets.*odd"):
        lambda_mix(*inputs(3, context=4))
