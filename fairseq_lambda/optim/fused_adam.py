"""``--optimizer fused_adam``: the updates of fairseq's Adam by torch's fused kernel, one pass over the memory."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from fairseq import utils
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from torch.optim.adamw import adamw


@dataclass
class FusedAdamConfig(FairseqAdamConfig):
    """The options of fairseq's Adam: ``--adam-betas``, ``--adam-eps``, ``--weight-decay``."""


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FusedAdam(FairseqOptimizer):
    """Updates weights as fairseq's Adam does; the two resume from each other's checkpoints.

    The factors of the gradients, for the size of the batch and for clipping, are kept as one number until :meth:`step`,
    as with fairseq's ``--fp16``. This saves two passes over all gradients.
    """

    def __init__(self, cfg: FusedAdamConfig, params):
        super().__init__(cfg)
        for flag, chosen in (("--fp16-adam-stats", cfg.fp16_adam_stats), ("--use-old-adam", cfg.use_old_adam)):
            if chosen:
                raise ValueError(f"{flag} does not work with --optimizer fused_adam: use --optimizer adam")
        self._optimizer = ScaledAdam(params, **self.optimizer_config)

    optimizer_config = FairseqAdam.optimizer_config
    average_params = FairseqAdam.average_params

    def multiply_grads(self, c) -> None:
        self.optimizer.factor *= c

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn=None) -> torch.Tensor:
        """Return the norm of all gradients; if ``max_norm`` is positive, scale them so that it is at most that."""
        norm = self.optimizer.factor * utils.clip_grad_norm_(self.params, 0, aggregate_norm_fn)
        if max_norm > 0:
            self.optimizer.factor *= (max_norm / (norm + 1e-6)).clamp_(max=1)
        return norm


class ScaledAdam(torch.optim.Optimizer):
    """Kingma & Ba (2015) with the weight decay of Loshchilov & Hutter (2019); ``step`` divides gradients by ``scale``.

    fairseq adds eps to the root of the second moment before its bias is corrected, torch after that::

        w <- w - lr m^ / (sqrt(v^) + eps / sqrt(1 - beta2^t))        m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)

    so torch's kernel gets another eps at each step. The state is that of fairseq's Adam: ``step``, an integer,
    ``exp_avg`` and ``exp_avg_sq``.

    ``factor`` multiplies the gradients of the next step, or of none if :meth:`zero_grad` comes first: after gradients
    that overflow, fairseq skips the step.

    Raises ValueError for weights in half precision, since the moments have the dtype of their weight.
    """

    supports_flat_params = True
    supports_step_with_scale = True

    def __init__(self, params, lr: float, betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.factor: float | torch.Tensor = 1.0
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.dtype.itemsize < 4:
                raise ValueError(
                    f"--optimizer fused_adam does not update weights in {parameter.dtype}: use --fp16 or --bf16, which "
                    "update copies in float32, or --optimizer adam"
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self.factor = 1.0

    @torch.no_grad()
    def step(self, closure=None, scale: float | torch.Tensor = 1.0):
        """Update the weights that have a gradient; gradients may be overwritten, divided by ``scale / factor``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, parameters in self._by_step(group["params"]).items():
                self._update(parameters, step, group, scale / self.factor)
        self.factor = 1.0
        return loss

    def _by_step(self, parameters: list[torch.Tensor]) -> dict[int, list[torch.Tensor]]:
        """Return the weights with a gradient, grouped by their number of updates, which differs with LayerDrop."""
        result = defaultdict(list)
        for parameter in parameters:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = 0
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            for name in ("exp_avg", "exp_avg_sq"):  # loaded ones may have another layout
                state[name] = _laid_out_as(parameter, state[name])
            state["step"] = int(state["step"]) + 1
            result[state["step"]].append(parameter)
        return result

    def _update(self, parameters: list[torch.Tensor], step: int, group: dict, scale: float | torch.Tensor) -> None:
        beta1, beta2 = group["betas"]
        device = parameters[0].device
        before = torch.full((len(parameters),), step - 1, dtype=torch.float32, device=device).unbind()
        adamw(
            parameters,
            [_laid_out_as(parameter, parameter.grad) for parameter in parameters],
            [self.state[parameter]["exp_avg"] for parameter in parameters],
            [self.state[parameter]["exp_avg_sq"] for parameter in parameters],
            [],
            list(before),
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"] / (1 - beta2**step) ** 0.5,
            maximize=False,
            grad_scale=torch.as_tensor(scale, dtype=torch.float32, device=device),
        )


def _laid_out_as(parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` with the strides of ``parameter``: the fused CPU kernel goes through both in the order of memory."""
    return x if x.stride() == parameter.stride() else torch.empty_like(parameter).copy_(x)
