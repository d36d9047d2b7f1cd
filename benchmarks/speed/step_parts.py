"""The parts of a training step, each timed alone, beside the floor that its floating-point operations set."""

import measuring
import torch

from fairseq_lambda.modules import LambdaLayer


def parts(trainer, length: int, options, rate: float) -> dict[str, dict[str, float]]:
    """Return {part: {"seconds", "floor"}} of a step of ``trainer``; floor 0 where memory, not arithmetic, is the limit.

    The floor is 3 x (multiply-adds forward) x 2 / ``rate``: backward does each product twice, for inputs and weights.
    """
    bert = trainer.model.encoder.bert
    layers, layer = bert.encoder.layers, bert.encoder.layers[0]
    device, batch = options.device, max(1, options.tokens // length)
    tokens, masked = batch * length, int(0.15 * batch * length)
    vocabulary, width = bert.embed_tokens.weight.shape
    x = torch.randn(batch, length, width, device=device, requires_grad=True)
    few = torch.randn(masked, width, device=device, requires_grad=True)
    labels = torch.randint(4, vocabulary, (masked,), device=device)
    ids = torch.randint(4, vocabulary, (batch, length), device=device)

    def feed_forward():
        return layer.fc2(layer.activation_fn(layer.fc1(x)))

    def head():
        return torch.nn.functional.cross_entropy(bert.lm_head(few).float(), labels, reduction="sum")

    def residual():
        return x + layer.mixing_layer_norm(x) + layer.final_layer_norm(x)

    optimizer = trainer.optimizer
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def update():
        trainer.clip_grad_norm(1.0)
        optimizer.step()

    multiply_adds = {
        "token mixing": len(layers) * tokens * mixing_cost(layer, length),
        "feed-forward": len(layers) * tokens * 2 * width * layer.fc1.out_features,
        "LM head and loss": masked * width * (width + vocabulary),
        "norms and residuals": 0,
        "embeddings": 0,
        "gradient norm, optimizer": 0,
    }
    functions = {
        "token mixing": lambda: layer.mixing(x),
        "feed-forward": feed_forward,
        "LM head and loss": head,
        "norms and residuals": residual,
        "embeddings": lambda: bert.embed(ids),
        "gradient norm, optimizer": None,
    }

    def trained(function):
        with torch.autocast(device, torch.bfloat16, enabled=options.autocast == "bfloat16"):
            y = function()
        y.backward(torch.ones_like(y))

    steps = {name: lambda f=f: trained(f) for name, f in functions.items() if f is not None}
    steps["gradient norm, optimizer"] = update
    seconds = measuring.interleaved(steps, device, options.repeats, budget=1.0)
    per_layer = ("token mixing", "feed-forward", "norms and residuals")
    return {
        name: {
            "seconds": seconds[name] * (len(layers) if name in per_layer else 1),
            "floor": 6 * multiply_adds[name] / rate,
        }
        for name in functions
    }


def mixing_cost(layer, length: int) -> float:
    """Return the multiply-adds a token of a layer's mixing, projections included, that no implementation can spare."""
    mixing, width = layer.mixing, layer.fc1.in_features
    if isinstance(mixing, LambdaLayer):
        h, k, u, v = mixing.heads, mixing.dim_k, mixing.dim_u, mixing.dim_v
        seen = min(mixing.local_context or 2 * length - 1, length)
        projections = width * (h * k + k * u + v * u)
        projections += width**2 * (mixing.gate_proj is not None)
        return projections + k * u * v + h * k * v + h * u * seen * (k + v)
    return 4 * width**2 + 2 * length * width
