"""The layer in half precision: its errors, the dtype under autocast, and what stays in float32."""

import pytest
import torch

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.modules.lambda_layer import NORMS
from fairseq_lambda.modules.norms import MaskedBatchNorm

BACKENDS = ["reference", "banded"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_low_precision_errs_at_most_twice_plain_torch(dtype, norm):
    """Compared with float64: autocast with "banded", and the same autocast with the definition in einsum."""
    x = torch.randn(2, 130, 64) * 2
    errors = {}
    for backend in BACKENDS:
        torch.manual_seed(0)
        layer = LambdaLayer(64, 4, dim_u=2, local_context=23, norm=norm, backend=backend)
        with torch.autocast("cpu", dtype):
            y = layer(x)
            y.float().square().mean().backward()
        assert y.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
        exact = layer.double()(x.double())
        errors[backend] = ((y.double() - exact).norm() / exact.norm()).item()
    assert errors["banded"] <= 2 * errors["reference"] + 1e-6
    assert errors["banded"] < (2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("dtype,inside", [
    (torch.bfloat16, torch.float16), (torch.float16, torch.bfloat16), (torch.float32, torch.bfloat16),
])  # fmt: skip
def test_autocast_decides_the_dtype_whatever_that_of_the_input(dtype, inside):
    layer, x = LambdaLayer(16, 2), torch.randn(2, 9, 16, dtype=dtype)
    with torch.autocast("cpu", inside):
        y = layer(x)
        y.float().sum().backward()
    assert y.dtype == inside


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_running_statistics_of_a_batch_norm_stay_in_float32(dtype):
    x = 300 * torch.randn(8, 50, 2) + 1
    norms = [MaskedBatchNorm(2), MaskedBatchNorm(2).to(dtype)]
    for norm in norms:
        for _ in range(100):
            norm(x.to(dtype))
    assert norms[1].weight.dtype == dtype and norms[1].running_var.dtype == torch.float32
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norms[1], name), getattr(norms[0], name))
    norms[1].load_state_dict({name: tensor.to(dtype) for name, tensor in MaskedBatchNorm(2).state_dict().items()})
    assert norms[1].running_var.tolist() == [1, 1] and norms[1].running_var.dtype == torch.float32
