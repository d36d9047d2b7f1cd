"""Conversion of version 0.1.0's checkpoints: options, names of weights, order of rotary channels.

In 0.1.0 the gate was outside the lambda layer, and rotary positions turned the pairs of channels (i, i + d / 2); now
they turn (2 i, 2 i + 1).
"""

import re

import torch
from torch import Tensor

from fairseq_lambda.modules import LambdaBertOptions

REMOVED = "which was removed after ablations (docs/ablations.md): read this checkpoint with fairseq_lambda 0.1.0"


def with_present_options(model) -> None:
    """Update a checkpoint's model options, a mapping, in place.

    Raises:
        ValueError: an option that no longer exists has a value that changes the meaning of the weights.
    """
    for name, harmless in (("lambda_output_projection", False), ("attention_gate", "none")):
        if str(model.get(name, harmless)) != str(harmless):
            raise ValueError(f"the model was trained with --{name.replace('_', '-')} {model[name]}, {REMOVED}")
    if model.get("no_token_positional_embeddings"):
        model["absolute_positions"] = "none"
    if model.get("lambda_backend") == "chunked":
        model["lambda_backend"] = "banded"
    model.setdefault("lambda_gate", "none")  # a model from before there were gates


def is_older(weights: dict[str, Tensor], prefix: str = "") -> bool:
    """Return whether these are the weights of a model of version 0.1.0."""
    return f"{prefix}encoder.embed_tokens.weight" in weights


def with_present_names(weights: dict[str, Tensor], prefix: str, options: LambdaBertOptions) -> None:
    """Update a model's weights of version 0.1.0 in place; leave newer ones alone.

    Raises:
        ValueError: weights of an option that no longer exists.
    """
    if not is_older(weights, prefix):
        return
    old = f"{prefix}encoder."
    for name in [name for name in weights if name.startswith(old)]:
        weight, rest = weights.pop(name), name.removeprefix(old)
        if re.search(r"layers\.\d+\.(out_proj|mixing\.gate_proj)\.", rest):
            flag = "--lambda-output-projection" if ".mixing." not in rest else "--attention-gate silu"
            raise ValueError(f"the checkpoint was trained with {flag}, {REMOVED}")
        if rest.endswith("embed_positions._float_tensor"):
            continue  # an empty buffer by which fairseq finds the device
        rest = re.sub(r"(layers\.\d+)\.gate_proj\.", r"\1.mixing.gate_proj.", rest)
        weights[f"{old}bert.{rest}"] = with_present_channels(rest, weight, options)


def with_present_channels(name: str, tensor: Tensor, options: LambdaBertOptions) -> Tensor:
    """Return a weight, or an optimizer's moment of it, with the rows of queries and keys in today's order."""
    if not (options.attention_rotary and ".qkv_proj." in name) or tensor.dim() == 0:
        return tensor
    rows = torch.arange(tensor.size(0)).view(3, options.heads, 2, -1)  # halves of a head's channels
    rows[:2] = rows[:2].transpose(-1, -2).reshape(rows[:2].shape)
    return tensor[rows.flatten()]


def with_present_optimizer(state: dict, names: list[str], options: LambdaBertOptions) -> None:
    """Update an optimizer's state of version 0.1.0 in place; ``names`` are those of the parameters, in order.

    Raises:
        ValueError: the model has rotary positions and the state, as with --fp16, holds all parameters as one.
    """
    if not options.attention_rotary or options.lambda_layers == "all":
        return
    if len(state["state"]) != len(names):
        raise ValueError(
            "the optimizer's state is of version 0.1.0, with rotary positions and --fp16, so its moments cannot be "
            "told apart: resume with --reset-optimizer"
        )
    for index, moments in state["state"].items():
        for key, value in moments.items():
            if isinstance(value, Tensor):
                moments[key] = with_present_channels(names[index], value, options)
