"""What the tests of all backends share: random tensors, results with every gradient, errors, and memory."""

import torch

from fairseq_lambda.ops.reference import lambda_mix_reference

NAMES = ("y", "content_lambda", "queries", "keys", "values", "position_embedding")


def draw(
    length, dim_u=1, context=5, batch=2, heads=3, dim_k=4, dim_v=5, dtype=torch.float64, device="cpu", seed=0
):  # fmt: skip
    """Return queries, keys, values and position embedding."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(batch, length, heads, dim_k), (batch, length, dim_k, dim_u), (batch, length, dim_v, dim_u)]
    shapes += [(dim_k, dim_u, context)]
    return [torch.randn(*s, generator=g, dtype=torch.float64).to(device, dtype).requires_grad_() for s in shapes]


def results(function, tensors, used=(0, 1)):
    """Return the six tensors of NAMES, given fixed gradients of the outputs in ``used``."""
    tensors = [t.detach().requires_grad_() for t in tensors]
    outputs = function(*tensors)
    g = torch.Generator().manual_seed(1)
    # multiples of 1/8, which every precision represents exactly
    grads = [(torch.randint(-16, 17, t.shape, generator=g) / 8).to(t.device, t.dtype) for t in outputs]
    torch.autograd.backward([outputs[i] for i in used], [grads[i] for i in used])
    return [*(t.detach() for t in outputs), *(torch.zeros_like(t) if t.grad is None else t.grad for t in tensors)]


def assert_same(function, expected, tensors, atol=1e-10, rtol=1e-10):
    """Compare outputs and every gradient of two functions."""
    for name, ours, theirs in zip(NAMES, results(function, tensors), results(expected, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol, msg=lambda text, name=name: f"{name}: {text}")


def errors(function, tensors):
    """Return the errors of outputs and gradients relative to the reference, computed in float64 on the same inputs."""
    expected = results(lambda_mix_reference, [t.double() for t in tensors])
    found = results(function, tensors)
    assert all(r.dtype == tensors[0].dtype and r.shape == e.shape for r, e in zip(found, expected, strict=True))
    return {n: float((r.double() - e).norm() / e.norm()) for n, r, e in zip(NAMES, found, expected, strict=True)}


def poison(monkeypatch):
    """Fill newly allocated memory with NaN, so that numbers that were never written show."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        allocate = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, allocate=allocate, **k: allocate(*a, **k).fill_(float("nan")))


def kept_for_backward(function, tensors):
    """Return the content lambda, and the addresses of the memory that is kept for the backward pass."""
    kept = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.add(where(t)) or t, lambda t: t):
        _, content_lambda = function(*tensors)
    return content_lambda, kept


def where(tensor):
    return tensor.untyped_storage().data_ptr()
