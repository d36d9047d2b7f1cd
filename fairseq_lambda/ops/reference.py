"""The lambda layer's equations, written as in the paper: slow and obvious. Other backends are tested against them."""

import torch
from torch import Tensor


def lambda_mix_reference(
    queries: Tensor, keys: Tensor, values: Tensor, position_embedding: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``y`` (b, n, h, v) and the content lambda (b, k, v); see :func:`fairseq_lambda.ops.lambda_mix`.

    Stores the relative embeddings (n, m, k, u) and the position lambdas (b, n, k, v): memory is quadratic in n.
    """
    length, reach = queries.shape[1], position_embedding.shape[-1] // 2
    position = torch.arange(length, device=queries.device)
    offset = position[None, :] - position[:, None]  # (n, m): m - n
    inside = offset.abs() <= reach
    index = (offset + reach).masked_fill(~inside, 0)
    relative = position_embedding[:, :, index].permute(2, 3, 0, 1)  # (n, m, k, u)
    relative = relative * inside[:, :, None, None].to(relative.dtype)

    content_lambda = torch.einsum("bmku,bmvu->bkv", keys, values)
    position_lambda = torch.einsum("nmku,bmvu->bnkv", relative, values)
    y = torch.einsum("bnhk,bnkv->bnhv", queries, content_lambda.unsqueeze(1) + position_lambda)
    return y, content_lambda
