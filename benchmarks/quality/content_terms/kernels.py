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
    """Return y (b, g, p, v) for p queries per text and group, in the cheaper form.

    Args:
        queries: factors (b, g, p, d_i); g groups of queries have keys of their own.
        keys: factors (b, g, m, d_i), the first zero where padded.
        values: (b, m, v), zero where padded; all groups share them.
        constant: c.
        count: M, (b, 1, 1), or the same for all.
    """
    with torch.autocast(values.device.type, enabled=False):
        sums = (of_pairs if prefers_pairs(queries, keys, values.shape[-1]) else of_features)(queries, keys, values)
        total = values.sum(1, dtype=_wide(values))[:, None, None]
        weight = denominators(queries, keys)
        weight = weight + constant * torch.as_tensor(count, dtype=weight.dtype, device=weight.device)
        return ((sums + constant * total) / weight[..., None]).to(values.dtype)


def prefers_pairs(queries: Factors, keys: Factors, dim_v: int) -> bool:
    """Return whether the table of pairs takes fewer multiply-adds than the features."""
    p, m = queries[0].shape[2], keys[0].shape[2]
    depths = [factor.shape[-1] for factor in queries]
    distinct = depths[: 1 if _is_square(queries) else 2]
    return p * m * (sum(distinct) + dim_v) <= (p + m) * math.prod(depths) * dim_v


def of_pairs(queries: Factors, keys: Factors, values: Tensor) -> Tensor:
    """Return sum_m kappa V[m], (b, g, p, v), through the table (b, g, p, m)."""
    kappa = queries[0] @ keys[0].transpose(-1, -2)
    if _is_square(queries):
        kappa = kappa.square()
    elif len(queries) == 2:
        kappa = kappa * (queries[1] @ keys[1].transpose(-1, -2))
    return (kappa.flatten(1, 2) @ values).unflatten(1, kappa.shape[1:3])


def of_features(queries: Factors, keys: Factors, values: Tensor) -> Tensor:
    """Return the same through sum_m phi(b[m]) V[m], (b, g, d_1 d_2, v).

    The features of a square have signs, and what is left of a sum of them may be small: float32 at least.
    """
    if _is_square(queries):
        wide = _wide(values)
        queries, keys, values = ([t.to(wide) for t in tensors] for tensors in (queries, keys, [values]))
        (values,) = values
    return features(queries) @ (features(keys).transpose(-1, -2) @ values[:, None])


def features(factors: Factors) -> Tensor:
    """(b, g, n, d_i) -> phi (b, g, n, d_1 d_2)."""
    first, *second = factors
    return (first[..., :, None] * second[0][..., None, :]).flatten(-2) if second else first


def denominators(queries: Factors, keys: Factors) -> Tensor:
    """Return sum_m kappa (b, g, p), in float32 at least, linear in the number of keys for either form."""
    wide = _wide(keys[0])
    q, k = ([factor.to(wide) for factor in factors] for factors in (queries, keys))
    if len(q) == 1:
        return (q[0] @ k[0].sum(2)[..., None]).squeeze(-1)
    return ((q[0] @ (k[0].transpose(-1, -2) @ k[1])) * q[1]).sum(-1)


def _is_square(factors: Factors) -> bool:
    return len(factors) == 2 and factors[1] is factors[0]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class Taylor:
    """Returns factors of ``((1 + s)^2 + 1) / 2 = 1 + s + s^2 / 2``, s = q . k / sqrt(d): exp to the second order.

    Arora et al. (2024, "Based", arXiv 2402.18668), section 4. The half cancels in y.
    """

    depth, groups, gain, constant = 16, 1, 1.0, 1.0

    def __call__(self, x: Tensor) -> Factors:
        scaled = x * self.depth**-0.25
        return [torch.cat([scaled, scaled.new_ones(*x.shape[:-1], 1)], dim=-1)] * 2


class Hedgehog:
    """Returns the factor [softmax(x), softmax(-x)] of 2 * 32 features, after Zhang et al. (2024, arXiv 2402.04347).

    Temperature is the gain of the norm before it, learned.
    """

    depth, groups, gain, constant = 32, 1, 2.0, 1e-3

    def __call__(self, x: Tensor) -> Factors:
        return [torch.cat([x.softmax(-1), (-x).softmax(-1)], dim=-1).to(x.dtype)]


class Codes:
    """Returns two factors, softmax over the halves of 2 * 16 numbers: soft codes of 256 words.

    A query weighs a token by the probability that both draw the same word. Where the codes are sharp that is a hash
    with more buckets than a short text has tokens; a kernel of one softmax would need 256 channels for as many.
    """

    depth, groups, gain, constant = 16, 2, 2.0, 1e-3

    def __call__(self, x: Tensor) -> Factors:
        return [half.softmax(-1).to(x.dtype) for half in x.split(self.depth, dim=-1)]
