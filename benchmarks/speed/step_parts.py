"""The parts of a training step, each timed alone, and the lower bound set by its floating-point operations."""

import measuring
import torch

from fairseq_lambda.modules import LambdaLayer


def parts(trainer, length: int, options, rate: float) -> dict[str, dict[str, float]]:
    """Return seconds, share, floor and time over floor of each part of a step of ``trainer``.

    The floor is 3 x (multiply-adds forward) x 2 / ``rate``: the backward pass does each product twice, for inputs and
    weights. It is 0 for parts that are limited by memory, not arithmetic.
    """
    bert = trainer.model.encoder.bert
    layer, count = bert.encoder.layers[0], len(bert.encoder.layers)
    device, batch = options.device, max(1, options.tokens // length)
    tokens, masked = batch * length, masked_tokens(batch * length)
    vocabulary, width = bert.embed_tokens.weight.shape
    cost = costs(bert, length, tokens)
    x = torch.randn(batch, length, width, device=device, requires_grad=True)
    few = torch.randn(masked, width, device=device, requires_grad=True)
    labels = torch.randint(4, vocabulary, (masked,), device=device)
    ids = torch.randint(4, vocabulary, (batch, length), device=device)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def trained(function):
        with torch.autocast(device, torch.bfloat16, enabled=options.autocast == "bfloat16"):
            y = function()
        y.backward(torch.ones_like(y))

    def feed_forward():
        trained(lambda: layer.fc2(layer.activation_fn(layer.fc1(x))))

    def head():
        trained(lambda: torch.nn.functional.cross_entropy(bert.lm_head(few).float(), labels, reduction="sum"))

    def update():
        trainer.clip_grad_norm(1.0)
        trainer.optimizer.step()

    functions = {  # with the number of calls per step
        "token mixing": (lambda: trained(lambda: layer.mixing(x)), count),
        "feed-forward": (feed_forward, count),
        "LM head and loss": (head, 1),
        "norms and residuals": (
            lambda: trained(lambda: x + layer.mixing_layer_norm(x) + layer.final_layer_norm(x)),
            count,
        ),
        "embeddings": (lambda: trained(lambda: bert.embed(ids)), 1),
        "gradient norm, optimizer": (update, 1),
    }
    steps = {name: function for name, (function, _) in functions.items()}
    seconds = measuring.interleaved(steps, device, options.repeats, budget=1.0)
    result = {name: {"seconds": seconds[name] * calls} for name, (_, calls) in functions.items()}
    total = sum(part["seconds"] for part in result.values())
    for name, part in result.items():
        floor = cost.get(name, 0) / rate
        part |= {"share": part["seconds"] / total, "floor": floor, "over": part["seconds"] / floor if floor else None}
    return result


def masked_tokens(tokens: int) -> int:
    return int(0.15 * tokens)


def costs(bert, length: int, tokens: int) -> dict[str, float]:
    """Return the floating-point operations of a step of ``tokens`` by part: 6 per multiply-add of the forward pass."""
    layer, count = bert.encoder.layers[0], len(bert.encoder.layers)
    vocabulary, width = bert.embed_tokens.weight.shape
    return {
        "token mixing": 6 * count * tokens * mixing_cost(layer, length),
        "feed-forward": 6 * count * tokens * 2 * width * layer.fc1.out_features,
        "LM head and loss": 6 * masked_tokens(tokens) * width * (width + vocabulary),
    }


def mixing_cost(layer, length: int) -> float:
    """Return the fewest multiply-adds per token of a layer's mixing, including projections, in any implementation."""
    mixing, width = layer.mixing, layer.fc1.in_features
    if isinstance(mixing, LambdaLayer):
        h, k, u, v = mixing.heads, mixing.dim_k, mixing.dim_u, mixing.dim_v
        seen = min(mixing.local_context or 2 * length - 1, length)
        projections = width * (h * k + k * u + v * u)
        projections += width**2 * (mixing.gate_proj is not None)
        return projections + k * u * v + h * k * v + h * u * seen * (k + v)
    return 4 * width**2 + 2 * length * width
