"""Token-to-token maps: what moves from token m to token n in one layer or through all of them, and for bertviz."""

import torch
from torch import Tensor

from fairseq_lambda.inspection.contributions import Contributions, from_trace
from fairseq_lambda.inspection.reader import LayerTrace, Reader, Text, reader, trace


def contributions_of_layers(model, text: Text, tokenizer=None) -> list[Contributions]:
    """Return the :class:`Contributions` of every layer, from one forward pass over the text."""
    reads = reader(model, tokenizer)
    ids = reads.ids(text)
    return [from_trace(reads, ids, i, traced) for i, traced in enumerate(trace(reads, ids))]


def norm_maps(model, text: Text, tokenizer=None) -> Tensor:
    """Return the norms of what token m contributes to each layer's output at n, all heads: (layers, n, m).

    Kobayashi et al. (2020), "Attention is not only a weight": the norm of the weighted vector, including the gate.
    """
    return torch.stack([norm_map(c) for c in contributions_of_layers(model, text, tokenizer)])


def norm_map(c: Contributions) -> Tensor:
    """Return the norms of :meth:`Contributions.vectors`, (n, m)."""
    return torch.cat([c.vectors(rows=rows).norm(dim=-1) for rows in c.row_slices()])


def term_norms(model, text: Text, tokenizer=None) -> list[dict[str, Tensor]]:
    """Return, per layer, the norms (n,) of each part of its output: content and position, or attention."""
    return [
        {part: c.output(part).norm(dim=-1) for part in c.parts} for c in contributions_of_layers(model, text, tokenizer)
    ]


def rollout(model, text: Text, tokenizer=None) -> Tensor:
    """Return how much of token m is in the state of n above each layer: (layers, n, m), rows sum to 1.

    It is the product of the layers' maps (Abnar & Zuidema, 2020). A layer's map (Kobayashi et al., 2021) is the norm of
    what m contributes to the sum of residual and mixing at n, divided by its sum over m. In a post-norm layer, the
    LayerNorm is applied to each contribution with the deviation of the sum. Biases are left out, and so is the
    feed-forward network, which mixes no tokens. So this is an estimate, whereas a layer's contributions are exact.
    """
    reads = reader(model, tokenizer)
    ids = reads.ids(text)
    total, found = None, []
    for index, traced in enumerate(trace(reads, ids)):
        here = layer_map(reads, from_trace(reads, ids, index, traced), traced)
        total = here if total is None else here @ total
        found.append(total)
    return torch.stack(found)


def layer_map(reads: Reader, c: Contributions, traced: LayerTrace) -> Tensor:
    """Return a layer's map (n, m), including the residual; rows sum to 1. See :func:`rollout`."""
    layer = reads.core.encoder.layers[c.layer]
    rows_of_map = []
    for rows in c.row_slices():
        vectors = c.vectors(rows=rows)  # (rows, m, C)
        index = torch.arange(len(vectors), device=vectors.device)
        vectors[index, index + rows.start] += traced.residual[rows]
        if layer.post_norm:
            norm = layer.mixing_layer_norm
            summed = traced.residual[rows] + traced.mixing_output[rows]
            deviation = (summed.var(dim=-1, unbiased=False) + norm.eps).sqrt()
            vectors = (vectors - vectors.mean(dim=-1, keepdim=True)) / deviation[:, None, None] * norm.weight.detach()
        rows_of_map.append(vectors.norm(dim=-1))
    map_ = torch.cat(rows_of_map)
    return map_ / map_.sum(dim=-1, keepdim=True)


def to_bertviz(model, text: Text, tokenizer=None, part: str = "all") -> dict:
    """Return ``attention`` and ``tokens`` for bertviz: ``head_view(**to_bertviz(model, text))``.

    ``attention`` is a list with a tensor (1, h, n, m) per layer: the norms of what m contributes to head h at n,
    divided by their sum over m, because bertviz draws shares. ``part`` is "all", "content", "position" or "attention";
    a layer without that part gets zeros, which bertviz draws as no lines: it numbers layers by their place in the list,
    so none can be left out.

    Raises:
        ValueError: no layer has such a part.
    """
    layers = contributions_of_layers(model, text, tokenizer)
    parts = {"all", *(name for c in layers for name in c.parts)}
    if part not in parts:
        raise ValueError(f"part={part!r}: this model has {', '.join(sorted(parts))}")
    norms = [c.norms(part) if part in ("all", *c.parts) else torch.zeros_like(c.weights()[..., 0]) for c in layers]
    norms = [n.transpose(0, 1)[None] for n in norms]
    attention = [n / n.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(n.dtype).tiny) for n in norms]
    return {"attention": attention, "tokens": layers[0].tokens}
