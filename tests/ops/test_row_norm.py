"""The norm of short rows: on a CPU it is torch's. The kernels are tested in test_triton_kernels.py."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fairseq_lambda.modules.norms import RowLayerNorm, RowRMSNorm
from fairseq_lambda.ops.triton import support


@pytest.mark.parametrize("ours,torchs", [(RowLayerNorm, nn.LayerNorm), (RowRMSNorm, nn.RMSNorm)])
def test_the_modules_are_torchs(ours, torchs):
    norm, expected = ours(5, eps=1e-3), torchs(5, eps=1e-3)
    nn.init.uniform_(norm.weight)
    expected.load_state_dict(norm.state_dict())
    x = torch.randn(3, 4, 5)
    assert torch.equal(norm(x), expected(x))


def test_kernels_take_short_rows_on_a_gpu_that_has_them(monkeypatch):
    def rows(depth=16, dtype=torch.bfloat16):
        return SimpleNamespace(is_cuda=True, shape=(2, 3, depth), dtype=dtype, device=torch.device("cuda"))

    monkeypatch.setattr(support, "_why_not_installed", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert support.norms_rows(rows())
    assert not support.norms_rows(rows(depth=129)) and not support.norms_rows(rows(dtype=torch.float64))
    assert not support.norms_rows(torch.zeros(2, 16))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not support.norms_rows(rows())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(support, "_why_not_installed", lambda: "not there")
    assert not support.norms_rows(rows())
