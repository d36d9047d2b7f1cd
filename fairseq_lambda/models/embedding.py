"""One vector per text, from a layer's features or its content lambda."""

import torch
from torch import Tensor

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.modules.heads import mean_of_tokens

POOLINGS = ("mean", "cls", "lambda")


class Pooling:
    """Returns vectors (b, C) of texts, or (b, k * v) with "lambda".

    "mean" is the mean of the features of all of a text's tokens, ``<s>`` and ``</s>`` included; "cls" the features of
    ``<s>``; "lambda" the layer's content lambda (k, v), row by row.

    Args:
        model: a :class:`fairseq_lambda.models.LambdaBertModel` in evaluation mode.
        pooling: one of ``POOLINGS``.
        layer: 0 for the embeddings, 1 to L for the layers; negative numbers count from the top. The top is what
            ``extract_features`` returns.

    Raises:
        ValueError: an unknown pooling, no such layer, or "lambda" for a layer without a content lambda.
    """

    def __init__(self, model, pooling: str = "mean", layer: int = -1):
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling}: choose one of {', '.join(POOLINGS)}")
        bert = model.encoder.bert
        layers = len(bert.encoder.layers)
        if not -layers - 1 <= layer <= layers:
            raise ValueError(f"layer={layer}: must be between {-layers - 1} and {layers}; 0: the embeddings")
        self.layer = layer % (layers + 1)
        if pooling == "lambda":
            with_lambda = [i + 1 for i, one in enumerate(bert.encoder.layers) if isinstance(one.mixing, LambdaLayer)]
            if self.layer not in with_lambda:
                raise ValueError(f"layer={layer} has no content lambda; the layers that have one: {with_lambda}")
        self.model, self.pooling = model, pooling
        self.is_top = self.layer == layers
        mixing = bert.encoder.layers[self.layer - 1].mixing
        self.width = mixing.dim_k * mixing.dim_v if pooling == "lambda" else bert.options.embed_dim
        self.padding_idx = bert.options.padding_idx

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the vectors of ids (b, n), right-padded, as float32 on the CPU."""
        wants_lambda = self.pooling == "lambda"
        features, extra = self.model(
            tokens.to(next(self.model.parameters()).device),
            features_only=True,
            return_all_hiddens=not (wants_lambda or self.is_top),
            return_lambdas=wants_lambda,
        )
        if wants_lambda:
            return extra["lambdas"][self.layer - 1].flatten(1).float().cpu()
        if not self.is_top:
            features = extra["inner_states"][self.layer]
        features = features.float().cpu()
        if self.pooling == "cls":
            return features[:, 0]
        return mean_of_tokens(features, tokens.eq(self.padding_idx))
