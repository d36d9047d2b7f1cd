"""The cross entropy of bfloat16 logits over a large vocabulary, a few rows at a time, which stay in the cache."""

import torch
from fairseq import modules
from torch import Tensor

ENTRIES = 2**19  # of logits worked on at a time


def token_loss(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross entropies of ``logits`` (m, V), in float32 or better, and how many are right.

    A row whose label is ``ignore_index`` counts nowhere. On a CPU the gradient is computed beside the loss, so that no
    tensor (m, V) of float32 is ever in memory.
    """
    if logits.device.type == "cpu" and logits.dtype == torch.bfloat16:
        return _TokenLoss.apply(logits, labels, ignore_index)
    return token_loss_reference(logits, labels, ignore_index)


def token_loss_reference(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """As :func:`token_loss`, in one piece."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = modules.cross_entropy(wide, labels, ignore_index=ignore_index, reduction="sum")
    return loss, (wide.argmax(-1).eq(labels) & labels.ne(ignore_index)).sum()


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, ignore_index):
        loss, correct = logits.new_zeros((), dtype=torch.float32), labels.new_zeros(())
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        rows = max(1, ENTRIES // logits.shape[1])
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            label, wide = labels[part, None], logits[part].float()
            counts = label.ne(ignore_index)
            correct += (wide.argmax(-1, keepdim=True).eq(label) & counts).sum()
            log_p, label = wide.log_softmax(-1), label.masked_fill(~counts, 0)
            loss -= log_p.gather(1, label).masked_fill(~counts, 0).sum()
            if gradient is not None:  # softmax - one-hot
                p = log_p.exp_().scatter_add_(1, label, log_p.new_full(label.shape, -1.0))
                gradient[part] = p.masked_fill_(~counts, 0)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_loss, _):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_loss.to(gradient.dtype) if grad_loss != 1 else gradient, None, None
