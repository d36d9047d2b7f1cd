"""Backends are compared with loops over the definition, with the reference, and with finite differences."""

import itertools

import pytest
import torch
from comparisons import assert_same, draw, errors, kept_for_backward, poison, results, where

from fairseq_lambda.ops import lambda_mix
from fairseq_lambda.ops.banded.mix import lambda_mix_banded
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier
from fairseq_lambda.ops.reference import lambda_mix_reference

BACKENDS = ["reference", "banded", "fourier"]


def banded(span):
    return lambda *tensors: lambda_mix_banded(*tensors, span=span)


def fourier(partition):
    return lambda *tensors: lambda_mix_fourier(*tensors, partition=partition)


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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length,dim_u,context", [(1, 1, 3), (6, 2, 3), (7, 1, 1), (5, 2, 23), (6, 1, 11)])
def test_equals_loops_over_the_definition(backend, length, dim_u, context):
    tensors = [t.detach() for t in draw(length, dim_u, context, heads=2, dim_k=2, dim_v=2)]
    y, content_lambda = lambda_mix(*tensors, backend=backend)
    torch.testing.assert_close(y, loops(*tensors), atol=1e-12, rtol=0)
    expected = sum(torch.einsum("bmk,bmv->bkv", tensors[1][..., u], tensors[2][..., u]) for u in range(dim_u))
    torch.testing.assert_close(content_lambda, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("make,size", [
    # spans of a part of a sequence, of one, of several, of all; the last span may be shorter
    *((banded, span) for span in (None, 1, 8, 50, 63, 126, 1000)), *((fourier, p) for p in (None, 1, 3, 8, 60)),
])  # fmt: skip
@pytest.mark.parametrize("dim_u", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 7, 63, 130])
def test_equals_reference_with_every_gradient(make, size, dim_u, length):
    for context in {min(r, 2 * length - 1) for r in (1, 5, 23, 41, 2 * length - 1)}:
        assert_same(make(size), lambda_mix_reference, draw(length, dim_u, context, batch=3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_beyond_the_sequence_is_cut(backend):
    assert_same(lambda *t: lambda_mix(*t, backend=backend), lambda_mix_reference, draw(9, 2, 301))


@pytest.mark.parametrize("function", [lambda_mix_reference, banded(None), fourier(2)])
@pytest.mark.parametrize("length,dim_u,context", [(1, 1, 1), (5, 2, 3), (4, 1, 7)])
def test_first_and_second_derivatives_are_finite_differences(function, length, dim_u, context):
    tensors = draw(length, dim_u, context, heads=2, dim_k=2, dim_v=2)
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("function", [banded(None), fourier(2)])
def test_second_derivatives_of_tensors_that_are_made_of_another(function):
    """Keys computed from the queries, an embedding that needs no gradient, one output alone, half precision."""

    def second(function, dtype):
        queries, _, values, embedding = (t.detach().to(dtype) for t in draw(7, dim_u=1, context=5))
        queries.requires_grad_(), values.requires_grad_()
        y, _ = function(queries, queries.mean(2).unsqueeze(-1).softmax(1), values, embedding)
        first = torch.autograd.grad(y.square().mean(), [queries, values], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [queries, values])

    for dtype, tolerance in ((torch.float64, 1e-10), (torch.bfloat16, 0.1)):
        expected = second(lambda_mix_reference, torch.float64)
        for ours, theirs in zip(second(function, dtype), expected, strict=True):
            assert ours.dtype == dtype and (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("function", [banded(None), fourier(2)])
@pytest.mark.parametrize("which,used", [*((i, 0) for i in range(4)), (1, 1), (2, 1)])
def test_second_derivatives_of_one_tensor_alone(function, which, used):
    """The others need no gradient, and of the results the content lambda may need none."""
    tensors = [t.detach() for t in draw(6, 2, 5)]

    def alone(of):
        x = tensors[which].clone().requires_grad_()
        y = of(*tensors[:which], x, *tensors[which + 1 :])[used]
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), x)

    torch.testing.assert_close(alone(function), alone(lambda_mix_reference))


@pytest.mark.parametrize("function,context", [(banded(16), 23), (fourier(None), 799)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_errs_at_most_twice_what_plain_torch_errs(function, context, dtype):
    """Errors must not accumulate in the sums over spans."""
    tensors = draw(400, 2, context, batch=2, dtype=dtype)
    plain = errors(lambda_mix_reference, tensors)
    for name, error in errors(function, tensors).items():
        assert error <= 2 * plain[name] + 1e-7, name


@pytest.mark.parametrize("function", [banded(16), fourier(8)])
def test_writes_all_memory_it_hands_out(function, monkeypatch):
    poison(monkeypatch)
    assert all(t.isfinite().all() for t in results(function, draw(45, 2, 31)))


@pytest.mark.parametrize("function,with_content", [(banded(None), False), (fourier(None), True)])
def test_keeps_nothing_but_its_inputs_and_result_for_the_backward_pass(function, with_content):
    tensors = draw(300, 1, 599)
    content_lambda, kept = kept_for_backward(function, tensors)
    assert kept == {where(t) for t in tensors + [content_lambda] * with_content}


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("which,message", [
    (0, "queries .2, 8, 3, 4., keys .2, 9, 4, 1., .* do not fit together: expected .b, n, h, k."),
    (1, "keys .2, 8, 4, 1., .* do not fit together"),
    (2, "values .2, 8, 5, 1., .* do not fit together"),
])  # fmt: skip
def test_tensors_that_do_not_fit_together_are_refused(backend, which, message):
    tensors = draw(9)
    with pytest.raises(ValueError, match=message):
        lambda_mix(*tensors[:which], tensors[which][:, :8], *tensors[which + 1 :], backend=backend)
    with pytest.raises(ValueError, match="do not fit together"):
        lambda_mix(*tensors[:3], tensors[3][:-1], backend=backend)
    with pytest.raises(ValueError, match="torch.float64 on cpu: all must have one dtype and device"):
        lambda_mix(*tensors[:which], tensors[which].float(), *tensors[which + 1 :], backend=backend)
    with pytest.raises(ValueError, match="queries .2, 0, 3, 4.: a sequence needs at least one position"):
        lambda_mix(*draw(0), backend=backend)


def test_backends_that_cannot_serve_say_why():
    tensors = draw(3)
    with pytest.raises(ValueError, match="backend=triton: .*; use backend=auto, or backend=banded"):
        lambda_mix(*tensors, backend="triton")
    with pytest.raises(ValueError, match="backend=fast.*choose one of"):
        lambda_mix(*tensors, backend="fast")
    with pytest.raises(ValueError, match="4 offsets.*odd"):
        lambda_mix(*draw(3, context=4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_stays_in_its_text(backend, bad):
    for length in (5, 13, 40):
        queries, keys, values, embedding = (t.detach() for t in draw(length, batch=3, context=9))
        clean, _ = lambda_mix(queries, keys, values, embedding, backend=backend)
        values[1, length // 2] = bad
        y, content = lambda_mix(queries, keys, values, embedding, backend=backend)
        torch.testing.assert_close(y[[0, 2]], clean[[0, 2]], atol=1e-10, rtol=0)
        assert not y[1].isfinite().any() and content[[0, 2]].isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_stays_in_its_channel(backend, bad):
    queries, keys, values, embedding = (t.detach() for t in draw(13, dim_u=2, batch=3, context=9))
    expected, _ = lambda_mix_reference(queries, keys, values, embedding)
    values[1, 6, 2, 1] = bad
    y, _ = lambda_mix(queries, keys, values, embedding, backend=backend)
    other = torch.ones_like(y, dtype=torch.bool)
    other[1, ..., 2] = False
    torch.testing.assert_close(y[other], expected[other], atol=1e-10, rtol=0)
    assert not y[~other].isfinite().any()


def test_large_numbers_whose_sum_overflows_count_as_they_are():
    queries, keys, values, embedding = (t.detach().float() / 100 for t in draw(6, batch=2, context=3))
    values[0, [0, 5], 0] = 3e38
    expected, _ = lambda_mix_reference(*(t.double() for t in (queries, keys, values, embedding)))
    y, _ = lambda_mix(queries, keys, values, embedding, backend="banded")
    torch.testing.assert_close(y, expected.float(), atol=0, rtol=1e-4)


@pytest.mark.parametrize("where", ["queries", "keys", "values", "gradient"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_a_text_beside_one_that_is_not_finite(backend, where):
    """They do not change; those of the broken text are NaN wherever the reference has NaN."""

    def gradients(broken, backend, length):
        tensors = [t.detach() for t in draw(length, dim_u=2, batch=3, context=9)]
        grad_y = torch.ones(3, length, 3, 5, dtype=torch.float64)
        for name, tensor in zip(("queries", "keys", "values", "gradient"), (*tensors[:3], grad_y), strict=False):
            if broken and name == where:
                tensor[1, -2:] = float("nan")
        tensors = [t.requires_grad_() for t in tensors]
        y, _ = lambda_mix(*tensors, backend=backend)
        return torch.autograd.grad(y, tensors, grad_y)

    for length in (5, 13, 40):
        runs = ((False, backend), (True, backend), (True, "reference"))
        clean, found, expected = (gradients(*run, length) for run in runs)
        for before, ours, theirs in zip(clean[:3], found[:3], expected[:3], strict=True):
            torch.testing.assert_close(ours[[0, 2]], before[[0, 2]], atol=1e-10, rtol=0)
            assert (ours[1].isnan() >= theirs[1].isnan()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["reference", "banded", "fourier"])
def test_autocast_leaves_the_dtype_alone(backend, dtype):
    with torch.autocast("cpu", torch.bfloat16):
        results = lambda_mix(*draw(9, dtype=dtype), backend=backend)
    assert [result.dtype for result in results] == [dtype, dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", [1, 2])
def test_autocast_around_the_backward_pass_changes_nothing(dtype, order):
    tensors, found = draw(9, dim_u=2, dtype=dtype), []
    for enabled in (False, True):
        y, content = lambda_mix(*tensors, backend="banded")
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = y.square().sum() + content.square().sum()
            found.append(torch.autograd.grad(loss, tensors, create_graph=order == 2))
    for outside, inside in zip(*found, strict=True):
        assert torch.equal(outside, inside) and inside.dtype == dtype
