"""What "banded" would do on a GPU, tested without one on device meta, whose tensors raise when a number is read.

torch's fake CUDA tensors cannot be indexed without such a device.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.ops.banded.mix import lambda_mix_banded


class Launches(TorchDispatchMode):
    """Counts the operations that are not views."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def launches(batch, length, context, dim_u=1):
    """Return the number of operations in a call and its backward pass, with the masks for this shape cached."""
    shapes = [(batch, length, 12, 16), (batch, length, 16, dim_u), (batch, length, 64, dim_u), (16, dim_u, context)]
    queries, *others = (torch.empty(shape, device="meta", requires_grad=True) for shape in shapes)
    for _ in range(2):
        with Launches() as counted:
            y, content_lambda = lambda_mix_banded(queries, *others)
            torch.autograd.grad([y, content_lambda], [queries, *others], [y, content_lambda])
    return counted.count


def test_a_read_of_a_number_raises():
    """Otherwise the next test would prove nothing."""
    for read in (lambda x: bool(x.any()), lambda x: x.sum().item(), lambda x: x.tolist()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.ones(3, device="meta"))


@pytest.mark.parametrize("norm", ["layer", "rms", "none"])
def test_a_layer_waits_for_no_number(norm, monkeypatch):
    # autocast does not support the device
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    layer = LambdaLayer(64, 4, dim_u=2, norm=norm, backend="banded").to("meta")
    x = torch.empty(3, 50, 64, device="meta", requires_grad=True)
    for mask in (None, torch.empty(3, 50, dtype=torch.bool, device="meta")):
        y, content_lambda = layer(x, mask, return_lambda=True)
        torch.autograd.backward([y, content_lambda], [y.detach(), content_lambda.detach()])
    assert x.grad.shape == x.shape and all(p.grad.shape == p.shape for p in layer.parameters())


@pytest.mark.parametrize("context,tokens", [(23, 2**18), (255, 2**15)])
def test_a_longer_text_takes_no_more_launches(context, tokens):
    for batch in (1, 4):
        for rest in (0, 1):
            lengths = [128 + rest, 2048 + rest, tokens // batch - 64 + rest]
            counts = [launches(batch, length, context) for length in lengths]
            assert len(set(counts)) == 1 and counts[0] < 90, (batch, rest, counts)
