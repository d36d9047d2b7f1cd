"""Fourier transforms against the definition, every gradient, rounding, memory, and when they are picked."""

import itertools
import json
import math

import pytest
import torch

from fairseq_lambda import ops
from fairseq_lambda.ops import lambda_mix
from fairseq_lambda.ops.fourier.cost import SIZES
from fairseq_lambda.ops.fourier.mix import lambda_mix_fourier
from fairseq_lambda.ops.fourier.partition import Partition
from fairseq_lambda.ops.reference import lambda_mix_reference

LENGTHS = [1, 2, 7, 63, 130]
DEPTHS = [1, 2, 4]


def inputs(length, context, dim_u=1, batch=2, heads=3, dim_k=4, dim_v=5, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    tensors = (
        draw(batch, length, heads, dim_k),
        draw(batch, length, dim_k, dim_u).softmax(1),
        draw(batch, length, dim_v, dim_u),
        draw(dim_k, dim_u, context) / math.sqrt(dim_k * dim_u * context),
    )
    return [t.to(dtype).requires_grad_() for t in tensors]


def with_gradients(function, tensors):
    """Return y, the content lambda and the gradient of every tensor, for fixed gradients of both outputs."""
    outputs = function(*tensors)
    g = torch.Generator().manual_seed(1)
    grads = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t.dtype) for t in outputs]
    return [*outputs, *torch.autograd.grad(outputs, tensors, grads)]


def contexts(length):
    return sorted({min(r, 2 * length - 1) for r in (1, 5, 23, 2 * length - 1)})


@pytest.mark.parametrize("partition", [1, 3, 8, 60, None])
@pytest.mark.parametrize("dim_u", DEPTHS)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_reference_with_every_gradient(length, dim_u, partition):
    for context in contexts(length):
        tensors = inputs(length, context, dim_u)
        ours = with_gradients(lambda *t: lambda_mix_fourier(*t, partition=partition), tensors)
        theirs = with_gradients(lambda_mix_reference, tensors)
        for got, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("length,context,dim_u", [(1, 1, 1), (5, 3, 2), (4, 7, 1)])
def test_gradcheck(length, context, dim_u):
    tensors = inputs(length, context, dim_u, batch=2, heads=2, dim_k=2, dim_v=2)
    assert torch.autograd.gradcheck(lambda *t: lambda_mix_fourier(*t, partition=2), tensors)


def test_contexts_beyond_the_sequence_through_lambda_mix(monkeypatch):
    tensors = inputs(9, 301)
    ours = with_gradients(lambda *t: lambda_mix(*t, backend="fourier"), tensors)
    theirs = with_gradients(lambda *t: lambda_mix(*t, backend="reference"), tensors)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


def test_items_of_a_batch_together_as_on_a_gpu(monkeypatch):
    """A CPU takes them one by one; groups of two and a rest of one give the same."""
    from fairseq_lambda.ops.fourier.mix import _Spectra

    monkeypatch.setattr(_Spectra, "groups", lambda self: [slice(0, 2), slice(2, 3)])
    tensors = inputs(31, 61, 2, batch=3)
    ours = with_gradients(lambda *t: lambda_mix_fourier(*t, partition=4), tensors)
    for got, expected in zip(ours, with_gradients(lambda_mix_reference, tensors), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("length", [1, 5, 60, 199])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_partition_meets_every_pair_of_positions_once(length, size):
    for context in contexts(length):
        cut = Partition(length, context, size)
        met = torch.zeros(length, length, dtype=torch.int64)
        for block in range(cut.block_count):
            partitions, windows = cut.seen(block)
            assert partitions.stop - partitions.start == windows.stop - windows.start > 0
            for p, w in zip(range(partitions.start, partitions.stop), range(windows.start, windows.stop), strict=True):
                start = (cut.windows.start + w) * size - context // 2
                for a, n in enumerate(range(*cut.positions(block).indices(length))):
                    for j in range(p * size, min((p + 1) * size, context)):
                        m = start + a + j - p * size
                        assert m == n + j - context // 2
                        if 0 <= m < length:
                            met[n, m] += 1
        position = torch.arange(length)
        assert met.equal(((position - position[:, None]).abs() <= context // 2).long())


def test_windows_are_fast_lengths():
    for size in SIZES:
        rest = Partition(1, 1, size).window
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_shifting_the_input_shifts_the_output():
    queries, keys, values, embedding = inputs(90, 41)
    gap = torch.zeros(2, 17, 1, 1, dtype=torch.float64)

    def shifted(t):
        return torch.cat([gap.expand(-1, -1, *t.shape[2:]), t], dim=1)

    y, _ = lambda_mix_fourier(queries, keys, values, embedding)
    moved, _ = lambda_mix_fourier(shifted(queries), shifted(keys), shifted(values), embedding)
    torch.testing.assert_close(moved[:, 17:], y, atol=1e-12, rtol=0)


def errors(function, dtype):
    """Largest error of each result against float64 on the same numbers, over the largest number."""
    tensors = inputs(700, 1399, 2, batch=1, dim_v=8, dtype=dtype)
    exact = with_gradients(lambda_mix_reference, [t.detach().double().requires_grad_() for t in tensors])
    results = with_gradients(function, tensors)
    assert all(t.dtype == dtype for t in results)
    return [((a.double() - b).abs().max() / b.abs().max()).item() for a, b in zip(results, exact, strict=True)]


def test_float32_errs_like_plain_torch():
    for ours, plain in zip(
        errors(lambda_mix_fourier, torch.float32), errors(lambda_mix_reference, torch.float32), strict=True
    ):
        assert ours <= 2 * plain + 1e-7


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_errs_at_most_twice_what_plain_torch_does(dtype):
    for ours, plain in zip(errors(lambda_mix_fourier, dtype), errors(lambda_mix_reference, dtype), strict=True):
        assert ours <= 2 * plain + 1e-7


def test_autocast_does_not_reach_inside():
    """The content lambda is a plain product, which autocast may round; without it the result is the same."""
    queries, keys, values, embedding = inputs(300, 599, dtype=torch.float32)
    keys = torch.zeros_like(keys)
    outside, _ = lambda_mix_fourier(queries, keys, values, embedding)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = lambda_mix_fourier(queries, keys, values, embedding)
    assert inside.equal(outside)


def test_writes_all_memory_it_hands_out(monkeypatch):
    """Outputs and buffers are allocated uninitialised: fill them with NaN and see none in any result."""

    def nan(function):
        return lambda *a, **k: function(*a, **k).fill_(float("nan"))

    monkeypatch.setattr(torch.Tensor, "new_empty", nan(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", nan(torch.empty_like))
    results = with_gradients(lambda *t: lambda_mix_fourier(*t, partition=8), inputs(45, 31, 2))
    assert all(t.isfinite().all() for t in results)


def test_saves_its_inputs_only():
    tensors = inputs(512, 1023, batch=1, dtype=torch.float32)
    saved = {}

    def pack(t):
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        _, content_lambda = lambda_mix_fourier(*tensors)
    assert sum(saved.values()) <= sum(t.nbytes for t in tensors) + content_lambda.nbytes


def peak_bytes(tensors, tmp_path):
    """The most that a forward and backward pass holds at a time beside its inputs, by torch's profiler."""
    trace = tmp_path / "trace.json"
    with torch.profiler.profile(profile_memory=True) as profiler:
        outputs = lambda_mix_fourier(*tensors, partition=60)
        torch.autograd.grad(outputs, tensors, [t.detach() for t in outputs])
        del outputs
    profiler.export_chrome_trace(str(trace))
    held = peak = 0
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    for event in sorted(events, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def test_peak_memory_is_linear_in_the_length(tmp_path):
    """Neither n x n nor (b, n, k, v): a token more costs less than its position lambda would."""
    shape = {"batch": 1, "heads": 2, "dim_k": 32, "dim_v": 64, "dtype": torch.float32}
    peaks = [peak_bytes(inputs(n, 2 * n - 1, **shape), tmp_path) for n in (2048, 4096, 6144)]
    assert peaks[0] > 0
    for shorter, longer in itertools.pairwise(peaks):
        assert longer - shorter < 2048 * 32 * 64 * 4


@pytest.mark.parametrize(
    "length,context,expected",
    [
        (2048, 4095, "fourier"),
        (2048, 2 * 4096 - 1, "fourier"),
        (4096, 1023, "fourier"),
        (4096, 23, "banded"),
        (32, 63, "banded"),
    ],
)
def test_long_contexts_pick_the_transforms_and_short_ones_the_band(monkeypatch, length, context, expected):
    calls = []
    for name in ("banded", "fourier"):
        monkeypatch.setitem(ops._FUNCTIONS, name, lambda *tensors, name=name: calls.append(name))
    tensors = inputs(length, context, 1, 1, heads=12, dim_k=16, dim_v=64, dtype=torch.float32)
    lambda_mix(*(t.detach() for t in tensors), backend="auto")
    assert calls == [expected]


@pytest.mark.parametrize("backend", ["reference", "banded"])
def test_an_explicit_backend_stays_itself(monkeypatch, backend):
    monkeypatch.setattr(ops, "prefers_fourier", lambda *_: True)
    monkeypatch.setitem(ops._FUNCTIONS, "fourier", lambda *_: pytest.fail(f"{backend} was asked for"))
    lambda_mix(*inputs(30, 59), backend=backend)
