"""Whether the hardware multiplies bfloat16, on other machines than this one."""

import pytest
import torch

from fairseq_lambda.hardware import multiplies_bfloat16


@pytest.mark.parametrize("machine,onednn,instructions,answer", [
    ("x86_64", True, ["_is_avx512_bf16_supported"], True),
    ("AMD64", True, ["_is_amx_tile_supported"], True),
    ("x86_64", True, [], False),  # oneDNN emulates it
    ("aarch64", True, [], True),
    ("aarch64", False, [], False),
    ("arm64", None, [], False),  # torch without oneDNN: macOS
])  # fmt: skip
def test_on_a_cpu(monkeypatch, machine, onednn, instructions, answer):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn is not None)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in instructions)
    assert multiplies_bfloat16("cpu") is multiplies_bfloat16(torch.device("cpu")) is answer


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_gpu(monkeypatch, answer):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: answer and not including_emulation)
    assert multiplies_bfloat16("cuda:0") is answer
    assert multiplies_bfloat16("mps") is False
