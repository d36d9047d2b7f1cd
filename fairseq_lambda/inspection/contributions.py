"""What each token contributes to a layer's output: an exact sum, because the layer is linear in its values."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fairseq_lambda.inspection.reader import LayerTrace, Reader, Text, is_lambda_layer, reader, reading, trace

ROWS = 64  # query positions at a time, because contribution vectors are n times as large as the layer's output


@dataclass
class Contributions:
    """A layer's output for one text as a sum over its tokens m.

    For a lambda layer, which is linear in V given q, K and E, with separate terms::

        y[n, h, :] = gate[n, h, :] * sum_m,u (content[n, h, m, u] + position[n, h, m, u]) V[m, :, u]
        content[n, h, m, u] = q[n, h] . K[m, :, u]        position[n, h, m, u] = q[n, h] . E[m - n, :, u]

    For an attention layer: y[n] = bias + sum_h projection[h] sum_m attention[n, h, m] V[m, h].

    The sum is exact given the normaliser of K's softmax, the gate, and the norms of queries and values. These depend on
    text, so removing a token from the text changes them too; :mod:`.interventions` measures that.

    Attributes:
        tokens: n symbols.
        layer: its index, from 0.
        parts: (n, h, m, u) each: "content" and "position", or "attention" (u = 1). They are signed; only the rows of
            "attention" sum to 1.
        values: V (m, v, u), or (m, h, v, 1) for an attention layer, which has values per head.
        gate: (n, h, v); None: no gate.
        projection, bias: (h, C, v) and (C,) for an attention layer, else None.
    """

    tokens: list[str]
    layer: int
    parts: dict[str, Tensor]
    values: Tensor
    gate: Tensor | None = None
    projection: Tensor | None = None
    bias: Tensor | None = None

    @property
    def content(self) -> Tensor:
        return self._part("content")

    @property
    def position(self) -> Tensor:
        return self._part("position")

    def _part(self, name: str) -> Tensor:
        if name not in self.parts:
            raise ValueError(f"layer {self.layer} has no {name} part: choose one of {', '.join(self.parts)}")
        return self.parts[name]

    def weights(self, part: str = "all") -> Tensor:
        """Return the weights A (n, h, m, u) of one part, or for "all" the sum of the parts."""
        return sum(self.parts.values()) if part == "all" else self._part(part)

    def head_vectors(self, part: str = "all", rows: slice = slice(None)) -> Tensor:
        """Return what token m contributes to head h at n: (n, h, m, v), or (n, h, m, C) for an attention layer.

        ``rows`` selects among n.
        """
        weights = self.weights(part)[rows]
        if self.projection is None:
            vectors = torch.einsum("nhmu,mvu->nhmv", weights, self.values)
            return vectors if self.gate is None else vectors * self.gate[rows, :, None]
        projected = torch.einsum("mhv,hcv->hmc", self.values[..., 0], self.projection)
        return weights * projected  # (n, h, m, 1) times (h, m, C)

    def vectors(self, part: str = "all", rows: slice = slice(None)) -> Tensor:
        """Return what token m contributes to the layer's output at n, all heads: (n, m, C)."""
        vectors = self.head_vectors(part, rows)
        return vectors.transpose(1, 2).flatten(2) if self.projection is None else vectors.sum(1)

    def norms(self, part: str = "all") -> Tensor:
        """Return the norms of :meth:`head_vectors`, (n, h, m), as in Kobayashi et al. (2020)."""
        return torch.cat([self.head_vectors(part, rows).norm(dim=-1) for rows in self.row_slices()])

    def along(self, part: str = "all") -> Tensor:
        """Return the length of :meth:`head_vectors` along the head's output, signed, (n, h, m).

        For "all", the sum over m is the norm of the head's output at n: positive where token m makes it longer,
        negative where m works against it.
        """
        rows_found = []
        for rows in self.row_slices():
            direction = nn.functional.normalize(self.head_vectors(rows=rows).sum(2), dim=-1)  # (rows, h, v)
            rows_found.append(torch.einsum("nhmv,nhv->nhm", self.head_vectors(part, rows), direction))
        return torch.cat(rows_found)

    def output(self, part: str = "all") -> Tensor:
        """Return the sum over m, (n, C); for "all", this is the layer's output, including its bias."""
        total = torch.cat([self.vectors(part, rows).double().sum(1) for rows in self.row_slices()])
        if part == "all" and self.bias is not None:
            total = total + self.bias
        return total.to(self.values.dtype)

    def row_slices(self) -> list[slice]:
        return [slice(start, start + ROWS) for start in range(0, len(self.tokens), ROWS)]


def contributions(model, text: Text, layer: int, tokenizer=None) -> Contributions:
    """Return the :class:`Contributions` of a text's tokens to the output of a layer, lambda or softmax.

    It takes the memory of two tensors (n, h, n, u). Contributions are computed in float64 from the layer's input, and
    kept in float32, or in the model's dtype if that is wider.

    Args:
        model, tokenizer: see :func:`fairseq_lambda.inspection.reader`.
        text: a text, a pair of texts, or ids (n,).
        layer: its index from 0; negative ones count from the top.

    Raises:
        ValueError: no such layer.
    """
    reads = reader(model, tokenizer)
    index = check_layer(reads, layer)
    ids = reads.ids(text)
    return from_trace(reads, ids, index, trace(reads, ids)[index])


def check_layer(reads: Reader, layer: int) -> int:
    """Return the layer's index from 0.

    Raises:
        ValueError: there is none.
    """
    count = len(reads.mixings)
    if not -count <= layer < count:
        raise ValueError(f"layer={layer}: the model has {count} layers, counted from 0")
    return layer % count


def from_trace(reads: Reader, ids: Tensor, layer: int, traced: LayerTrace) -> Contributions:
    """Return the contributions for a text that has been traced."""
    mixing, tokens = reads.mixings[layer], reads.tokens(ids)
    with reading(reads.core):
        of_layer = _of_lambda_layer if is_lambda_layer(mixing) else _of_softmax_layer
        fields = of_layer(mixing, traced.mixing_input[None])
    dtype = torch.promote_types(traced.mixing_input.dtype, torch.float32)
    parts = {name: weights.to(dtype) for name, weights in fields.pop("parts").items()}
    return Contributions(tokens, layer, parts, **{name: tensor.to(dtype) for name, tensor in fields.items()})


def _of_lambda_layer(mixing: nn.Module, x: Tensor) -> dict:
    q, keys, values, embedding = (t.detach().double() for t in mixing.projections(x))
    q, keys, values = q[0], keys[0], values[0]
    # the scores per query and offset first, (n, h, u, r), because E[m - n] itself would take (n, m, k, u)
    position = _by_token(torch.einsum("nhk,kur->nhur", q, embedding))
    fields = {"parts": {"content": torch.einsum("nhk,mku->nhmu", q, keys), "position": position}, "values": values}
    gate = mixing.gate(x)
    return fields if gate is None else fields | {"gate": gate[0].double().unflatten(-1, (mixing.heads, -1))}


def _by_token(scores: Tensor) -> Tensor:
    """Return the scores per query n and token m (n, h, m, u) from those per query and offset (n, h, u, r)."""
    length, reach = scores.size(0), scores.size(-1) // 2
    position = torch.arange(length, device=scores.device)
    offset = position[None] - position[:, None]  # (n, m)
    inside = (offset.abs() <= reach)[:, None, None]
    index = (offset + reach).clamp(0, 2 * reach)[:, None, None].expand(-1, *scores.shape[1:3], -1)
    return (scores.gather(-1, index) * inside).transpose(-1, -2)


def _of_softmax_layer(mixing: nn.Module, x: Tensor) -> dict:
    attention = mixing.weights(x)[0].detach().double()  # (h, n, m)
    v = mixing.projections(x)[2][0].detach().double()  # (h, m, d)
    return {
        "parts": {"attention": attention.transpose(0, 1)[..., None]},
        "values": v.transpose(0, 1)[..., None],
        "projection": mixing.out_proj.weight.detach().double().unflatten(1, (mixing.heads, -1)).transpose(0, 1),
        "bias": mixing.out_proj.bias.detach().double(),
    }
