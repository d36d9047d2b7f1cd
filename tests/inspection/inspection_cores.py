"""What the inspection tests share: a core model with random weights, and ids for it."""

import torch

from fairseq_lambda.modules import LambdaBert, LambdaBertOptions


def make_core(**options):
    """A core with three layers and a vocabulary of 60; biases and the norms' statistics are random, too."""
    shape = {"vocab_size": 60, "layers": 3, "embed_dim": 16, "ffn_embed_dim": 32, "heads": 2, "dim_k": 4}
    core = LambdaBert(LambdaBertOptions(**(shape | {"local_context": 5, "max_positions": 40} | options)))
    with torch.no_grad():
        core.embed_tokens.weight.mul_(20)  # else all predictions are nearly uniform
        for layer in core.encoder.layers:
            if hasattr(layer.mixing, "out_proj"):
                layer.mixing.qkv_proj.weight.mul_(10)
                layer.mixing.out_proj.weight.mul_(10)
        for name, tensor in core.state_dict().items():
            if tensor.is_floating_point() and ("norm" in name or "bias" in name or "gate" in name):
                tensor.add_(0.2 * torch.randn_like(tensor))
            if name.endswith("running_var"):
                tensor.abs_()
    return core


def ids(length=23, seed=0):
    """Ids (n,): <s>, random words, </s>."""
    found = torch.randint(4, 60, (length,), generator=torch.Generator().manual_seed(seed))
    found[0], found[-1] = 0, 2
    return found
