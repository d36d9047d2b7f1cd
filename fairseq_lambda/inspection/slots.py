"""The slots of a content lambda, and the kernels of the position lambdas."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_lambda.inspection.contributions import check_layer
from fairseq_lambda.inspection.reader import Text, is_lambda_layer, reader, reading, trace


@dataclass
class Slots:
    """The k slots of a layer's content lambda for one text, and the share of each token in each slot.

    Attributes:
        tokens: m symbols.
        layer: its index.
        keys: K (m, k, u): the share of token m in slot k, summing to 1 over m.
        content_lambda: lc (k, v) = sum_m,u K[m] V[m].
        evenness: (k, u), the entropy of the shares divided by log m: 1 where a slot is the plain mean of the values.
    """

    tokens: list[str]
    layer: int
    keys: Tensor
    content_lambda: Tensor
    evenness: Tensor

    def top(self, slot: int, count: int = 5, intra: int = 0) -> list[tuple[str, float]]:
        """Return the tokens with the largest shares in a slot, and these shares."""
        shares, positions = self.keys[:, slot, intra].topk(min(count, len(self.tokens)))
        return [(self.tokens[m], share) for m, share in zip(positions.tolist(), shares.tolist(), strict=True)]


def slots(model, text: Text, layer: int, tokenizer=None) -> Slots:
    """Return the :class:`Slots` of a lambda layer.

    Args:
        model, tokenizer: see :func:`fairseq_lambda.inspection.reader`.
        text: a text, a pair of texts, or ids (n,).
        layer: its index from 0; negative ones count from the top.

    Raises:
        ValueError: no such layer, or one without a content lambda.
    """
    reads = reader(model, tokenizer)
    index = check_layer(reads, layer)
    mixing = reads.mixings[index]
    if not is_lambda_layer(mixing) or mixing.k_proj is None:
        raise ValueError(f"layer={layer}: this layer has no content lambda and thus no slots")
    ids = reads.ids(text)
    x = trace(reads, ids)[index].mixing_input[None]
    with reading(reads.core):
        _, (keys,), (values,), _ = mixing.projections(x)
    keys = keys.float()
    entropy = -torch.special.xlogy(keys, keys).sum(0)
    evenness = entropy / torch.tensor(float(max(len(ids), 2))).log()
    return Slots(reads.tokens(ids), index, keys, torch.einsum("mku,mvu->kv", keys, values.float()), evenness)


@dataclass
class PositionKernel:
    """How a layer's heads weigh the token at each offset, over all queries of some texts.

    Attributes:
        layer: its index.
        offsets: (r,), m - n.
        mean, deviation: (h, u, r), of q[n, h] . E[offset] over the queries n: the part of the weight that is the same
            for every query, and how much it depends on the query. A mean of 0 does not say that the head does not read
            there, because weights are signed; see :attr:`size`.
    """

    layer: int
    offsets: Tensor
    mean: Tensor
    deviation: Tensor

    @property
    def size(self) -> Tensor:
        """(h, u, r): the root mean square of the weight over the queries; 0 only where the head does not read."""
        return (self.mean**2 + self.deviation**2).sqrt()

    @property
    def reach(self) -> Tensor:
        """(h,): the mean distance |m - n|, weighted by the mean square weight."""
        square = (self.size**2).sum(1)
        return (square * self.offsets.abs()).sum(-1) / square.sum(-1)


def position_kernels(model, texts: Iterable[Text], tokenizer=None) -> list[PositionKernel]:
    """Return the :class:`PositionKernel` of every lambda layer that has position lambdas.

    All heads share the table E; a head's queries turn it into that head's kernel. A local context is kept whole; of a
    global one, the offsets that occur in the longest text.

    Raises:
        ValueError: no text.
    """
    reads = reader(model, tokenizer)
    sums: dict[int, list] = {}
    longest = 0
    for text in texts:
        ids = reads.ids(text)
        longest = max(longest, len(ids))
        for index, traced in enumerate(trace(reads, ids)):
            mixing = reads.mixings[index]
            if not is_lambda_layer(mixing) or mixing.position_embedding is None:
                continue
            with reading(reads.core):
                (q,), _, _, embedding = mixing.projections(traced.mixing_input[None])
                scores = torch.einsum("nhk,kur->nhur", q.double(), embedding.double())
            new = [len(ids), scores.sum(0), (scores**2).sum(0)]
            sums[index] = new if index not in sums else [a + b for a, b in zip(sums[index], new, strict=True)]
    if not longest:
        raise ValueError("texts is empty: the kernels are means over the tokens of at least one text")
    kernels = []
    for index, (count, total, squares) in sums.items():
        reach = total.size(-1) // 2
        kept = reach if reads.mixings[index].local_context else min(reach, max(longest - 1, 1))
        mean, square = (t[..., reach - kept : reach + kept + 1] / count for t in (total, squares))
        deviation = (square - mean**2).clamp(min=0).sqrt()
        kernels.append(PositionKernel(index, torch.arange(-kept, kept + 1), mean.float(), deviation.float()))
    return kernels
