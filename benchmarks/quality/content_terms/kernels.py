"""Attention whose weights are a kernel, normalised per query: the same numbers as a table of pairs or as features.

The kernel is one inner product of features, or the product of two::

    kappa[n, m] = prod_i a_i[n] . b_i[m]                                      b_1 zero where m is padded
    y[n]        = (sum_m kappa[n, m] V[m] + c sum_m V[m]) / (sum_m kappa[n, m] + c M)         M real tokens

The constant c > 0 keeps the denominator positive: a query that nothing matches reads the mean of the values. As a table
it costs n^2; as features, phi(a) = a_1 (x) a_2, the sum over m is taken first, and the cost is linear in n.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Factors = Sequence[Tensor]  # one or two; a kernel that is a square has the same tensor twice


def kernel_mix(queries: Factors, keys: Factors, values: Tensor, constant: float, count: Tensor | int) -> Tensor:
    """Return y (b, p, v) for p queries per text, in the cheaper form; the normaliser in float32 at least.

    Args:
        queries: factors (b, p, d_i).
        keys: factors (b, m, d_i), the first zero where padded.
        values: (b, m, v), zero where padded.
        constant: c.
        count: M, (b, 1), or the same for all.
    """
    with torch.autocast(values.device.type, enabled=False):
        sums = (of_pairs if prefers_pairs(queries, keys, values.shape[-1]) else of_features)(queries, keys, values)
        total = values.sum(1, keepdim=True, dtype=_wide(values))
        weight = denominators(queries, keys)
        weight = weight + constant * torch.as_tensor(count, dtype=weight.dtype, device=weight.device)
        return ((sums + constant * total) / weight[..., None]).to(values.dtype)


def prefers_pairs(queries: Factors, keys: Factors, dim_v: int) -> bool:
    """Return whether the table of pairs takes fewer multiply-adds than the features."""
    p, m = queries[0].shape[1], keys[0].shape[1]
    depths = [factor.shape[-1] for factor in queries]
    distinct = depths[:1] if _is_square(queries) else depths
    return p * m * (sum(distinct) + dim_v) <= (p + m) * math.prod(depths) * dim_v


def of_pairs(queries: Factors, keys: Factors, values: Tensor) -> Tensor:
    """Return sum_m kappa V[m], (b, p, v), through the table (b, p, m)."""
    kappa = queries[0] @ keys[0].transpose(1, 2)
    if _is_square(queries):
        kappa = kappa.square()
    elif len(queries) == 2:
        kappa = kappa * (queries[1] @ keys[1].transpose(1, 2))
    return kappa @ values


def of_features(queries: Factors, keys: Factors, values: Tensor) -> Tensor:
    """Return the same through the richer content lambda sum_m phi(b[m]) V[m], (b, d_1 d_2, v).

    The features of a square have signs, so a sum of them may nearly cancel: float32 at least.
    """
    if _is_square(queries):
        wide = _wide(values)
        queries, keys, values = [queries[0].to(wide)] * 2, [keys[0].to(wide)] * 2, values.to(wide)
    return features(queries) @ (features(keys).transpose(1, 2) @ values)


def features(factors: Factors) -> Tensor:
    """(b, n, d_i) -> phi (b, n, d_1 d_2)."""
    first, *second = factors
    return (first[..., :, None] * second[0][..., None, :]).flatten(-2) if second else first


def denominators(queries: Factors, keys: Factors) -> Tensor:
    """Return sum_m kappa (b, p), in float32 at least, linear in the number of keys for either form."""
    wide = _wide(keys[0])
    q, k = ([factor.to(wide) for factor in factors] for factors in (queries, keys))
    if len(q) == 1:
        return (q[0] @ k[0].sum(1)[..., None]).squeeze(-1)
    return ((q[0] @ (k[0].transpose(1, 2) @ k[1])) * q[1]).sum(-1)


def _is_square(factors: Factors) -> bool:
    return len(factors) == 2 and factors[1] is factors[0]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class Taylor:
    """Returns factors of ``(1 + s)^2``, s = q . k / 4, in 16 channels; with c = 1 twice ``1 + s + s^2 / 2``.

    That is exp to the second order: Arora et al. (2024, "Based", arXiv 2402.18668), section 4. The two cancels in y.
    """

    depth, groups, gain, constant = 16, 1, 1.0, 1.0

    def __call__(self, x: Tensor) -> Factors:
        return [torch.cat([x / 2, x.new_ones(*x.shape[:-1], 1)], dim=-1)] * 2


class Hedgehog:
    """Returns the factor [softmax(x), softmax(-x)], 2 * 32 features, after Zhang et al. (2024, arXiv 2402.04347).

    Their temperature is the gain of the norm before them, learned.
    """

    depth, groups, gain, constant = 32, 1, 2.0, 1e-3

    def __call__(self, x: Tensor) -> Factors:
        return [torch.cat([x.softmax(-1), (-x).softmax(-1)], dim=-1).to(x.dtype)]


class Codes:
    """Returns two factors, softmax over the halves of 2 * 16 channels: soft codes of 256 words.

    A query weighs a token by the probability that both draw the same word. Where the codes are sharp that is a hash
    with more buckets than a short text has tokens; a kernel of one softmax would need 256 channels for as many.
    """

    depth, groups, gain, constant = 16, 2, 2.0, 1e-3

    def __call__(self, x: Tensor) -> Factors:
        return [half.softmax(-1).to(x.dtype) for half in x.split(self.depth, dim=-1)]
