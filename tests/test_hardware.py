"""Whether bfloat16 is the faster precision, on other machines than this one."""

import pytest
import torch

from fairseq_lambda import hardware


@pytest.mark.parametrize("onednn,bfloat16,answer", [
    (True, 0.5, True),  # AMD with AVX512_BF16; AMX is faster still
    (True, 1.8, False),  # Intel with AVX512_BF16 but without AMX
    (True, 1.0, False),  # emulated with AVX-512
    (False, 0.5, False),  # oneDNN would refuse
    (None, 0.5, False),  # torch without oneDNN: macOS
])  # fmt: skip
def test_on_a_cpu(monkeypatch, onednn, bfloat16, answer):
    hardware._measured.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn is not None)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(hardware, "product_seconds", {torch.float32: 1.0, torch.bfloat16: bfloat16}.__getitem__)
    assert hardware.bfloat16_is_faster("cpu") is hardware.bfloat16_is_faster(torch.device("cpu")) is answer
    hardware._measured.cache_clear()


def test_the_shortest_product_counts(monkeypatch):
    durations = iter([5.0, 0.5, 2.0, 3.0])
    times = []

    def clock():  # a start and an end for each product
        times.append(times[-1] + next(durations) if len(times) % 2 else 100.0 * len(times))
        return times[-1]

    monkeypatch.setattr(hardware.time, "perf_counter", clock)
    assert hardware.product_seconds(torch.bfloat16, size=4, turns=4) == 0.5


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_gpu(monkeypatch, answer):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: answer and not including_emulation)
    assert hardware.bfloat16_is_faster("cuda:0") is answer
    assert hardware.bfloat16_is_faster("mps") is False
