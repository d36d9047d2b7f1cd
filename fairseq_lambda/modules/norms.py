"""The norms of queries and values: over a short last dimension, or the paper's batch norm over real tokens only."""

import torch
from torch import Tensor, nn

from fairseq_lambda.ops.row_norm import row_norm


class RowLayerNorm(nn.LayerNorm):
    """:class:`torch.nn.LayerNorm` over the last dimension, fast where that is short."""

    def forward(self, x: Tensor) -> Tensor:
        return row_norm(x, self.weight, self.bias, self.eps, centred=True)


class RowRMSNorm(nn.RMSNorm):
    """:class:`torch.nn.RMSNorm` over the last dimension, fast where that is short."""

    def forward(self, x: Tensor) -> Tensor:
        return row_norm(x, self.weight, None, self.eps, centred=False)


class MaskedBatchNorm(nn.Module):
    """Returns ``x`` (b, n, channels) normalised per channel over the real tokens of the whole batch.

    Ioffe & Szegedy (2015): ``(x - mean) / sqrt(var + eps) * weight + bias``. In training, mean and biased variance are
    those of the real tokens of all ranks, in float32 or better; in evaluation, the running ones. A batch without real
    tokens is normalised by the running statistics and does not change them. These stay in float32 or better, whatever
    ``half()`` and the like make of the module: in half precision they would round most batches away, or overflow.

    Args:
        channels: size of the last dimension.
        momentum: weight of the new batch in the running statistics, 0.1 as in torch.
        eps: 1e-5 as in torch.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.momentum, self.eps, self.tracking = momentum, eps, True
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean, var = self.running_mean.to(dtype), self.running_var.to(dtype)
        wide = x.to(dtype)
        if self.training:
            real = wide.flatten(0, 1) if padding_mask is None else wide[~padding_mask]
            count, total = _sum_over_ranks(real.new_tensor(real.shape[0]), real.sum(0))
            if count > 0:
                mean = total / count
                (squares,) = _sum_over_ranks((real - mean).square().sum(0))
                var = squares / count
                if self.tracking:
                    self._track(mean.detach(), var.detach() * count / (count - 1).clamp(min=1))
        return (((wide - mean) * torch.rsqrt(var + self.eps)) * self.weight + self.bias).to(x.dtype)

    def _apply(self, fn, recurse=True):
        statistics = {"running_mean": self.running_mean, "running_var": self.running_var}
        super()._apply(fn, recurse)
        for name, before in statistics.items():
            now = getattr(self, name)
            if torch.promote_types(now.dtype, torch.float32) != now.dtype:
                setattr(self, name, before.to(now.device, torch.float32))
        return self

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), self.momentum)


class WithoutTracking:
    """A context in which batch norms in ``module`` do not update their running statistics: for recomputed batches."""

    def __init__(self, module: nn.Module):
        self.norms = [norm for norm in module.modules() if isinstance(norm, MaskedBatchNorm)]

    def __enter__(self) -> None:
        self._set(False)

    def __exit__(self, *raised) -> None:
        self._set(True)

    def _set(self, tracking: bool) -> None:
        for norm in self.norms:
            norm.tracking = tracking


def _sum_over_ranks(*tensors: Tensor) -> tuple[Tensor, ...]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_world_size() == 1:
        return tensors
    from torch.distributed.nn.functional import all_reduce  # the differentiable one

    return tuple(all_reduce(tensor) for tensor in tensors)
