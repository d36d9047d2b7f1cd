"""Fourier transforms: how the work is cut up, how much memory it takes, and when they are picked."""

import itertools
import json

import pytest
import torch
from comparisons import assert_same, draw

from fairseq_lambda import ops
from fairseq_lambda.ops import lambda_mix
from fairseq_lambda.ops.fourier.cost import SIZES
from fairseq_lambda.ops.fourier.mix import _Spectra, lambda_mix_fourier
from fairseq_lambda.ops.fourier.partition import Partition
from fairseq_lambda.ops.reference import lambda_mix_reference


def test_items_of_a_batch_together_as_on_a_gpu(monkeypatch):
    """A CPU processes items one by one; groups of two and a rest of one give the same."""
    monkeypatch.setattr(_Spectra, "groups", lambda self: [slice(0, 2), slice(2, 3)])
    assert_same(lambda *t: lambda_mix_fourier(*t, partition=4), lambda_mix_reference, draw(31, 2, 61, batch=3))


@pytest.mark.parametrize("length", [1, 5, 60, 199])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_partition_meets_every_pair_of_positions_once(length, size):
    for context in {min(r, 2 * length - 1) for r in (1, 5, 23, 2 * length - 1)}:
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


def test_autocast_does_not_reach_inside():
    """Autocast may round the content lambda, a plain product. With keys of zero it is zero, so nothing may change."""
    queries, keys, values, embedding = draw(300, 1, 599, dtype=torch.float32)
    keys = torch.zeros_like(keys)
    outside, _ = lambda_mix_fourier(queries, keys, values, embedding)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = lambda_mix_fourier(queries, keys, values, embedding)
    assert inside.equal(outside)


def peak_bytes(tensors, tmp_path):
    """Return the peak memory of a forward and backward pass, without its inputs, as measured by torch's profiler."""
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
    """Nothing is n x n or (b, n, k, v): each further token takes less than its position lambda would."""
    shape = {"batch": 1, "heads": 2, "dim_k": 32, "dim_v": 64, "dtype": torch.float32}
    peaks = [peak_bytes(draw(n, 1, 2 * n - 1, **shape), tmp_path) for n in (2048, 4096, 6144)]
    assert peaks[0] > 0
    for shorter, longer in itertools.pairwise(peaks):
        assert longer - shorter < 2048 * 32 * 64 * 4


@pytest.mark.parametrize("length,context,expected", [
    (2048, 4095, "fourier"), (2048, 2 * 4096 - 1, "fourier"), (4096, 1023, "fourier"),
    (4096, 23, "banded"), (32, 63, "banded"),
])  # fmt: skip
def test_long_contexts_pick_the_transforms_and_short_ones_the_band(monkeypatch, length, context, expected):
    calls = []
    for name in ("banded", "fourier"):
        monkeypatch.setitem(ops._FUNCTIONS, name, lambda *tensors, name=name: calls.append(name))
    lambda_mix(*draw(length, 1, context, 1, heads=12, dim_k=16, dim_v=64, dtype=torch.float32), backend="auto")
    assert calls == [expected]


@pytest.mark.parametrize("backend", ["reference", "banded"])
def test_an_explicit_backend_stays_itself(monkeypatch, backend):
    monkeypatch.setattr(ops, "prefers_fourier", lambda *_: True)
    monkeypatch.setitem(ops._FUNCTIONS, "fourier", lambda *_: pytest.fail(f"{backend} was asked for"))
    lambda_mix(*draw(30, 1, 59), backend=backend)
