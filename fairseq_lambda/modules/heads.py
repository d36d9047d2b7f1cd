"""The heads on top of the encoder: for masked LM, and for the classification of texts and of tokens."""

from torch import Tensor, nn

from fairseq_lambda.modules.activations import activation


class MaskedLMHead(nn.Linear):
    """Returns logits over the vocabulary (..., V): ``LN(act(x W + b)) Wv^T + bv``, as in BERT.

    The module itself is the last projection, ``weight`` (V, C) and ``bias`` (V,), so that the weight can be tied to the
    token embeddings; the dense layer and the LayerNorm before it are submodules.

    Args:
        embed_dim: C.
        vocab_size: V.
        activation_fn: a name of :data:`fairseq_lambda.modules.activations.ACTIVATIONS`.
    """

    def __init__(self, embed_dim: int, vocab_size: int, activation_fn: str = "gelu"):
        super().__init__(embed_dim, vocab_size)
        self.dense = nn.Linear(embed_dim, embed_dim)
        self.activation_fn = activation(activation_fn)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.layer_norm(self.activation_fn(self.dense(x))))


def mean_of_tokens(features: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Return the mean (b, C) of the features (b, n, C) of all tokens that are not padding, of special ones too."""
    if padding_mask is None:
        return features.mean(dim=1)
    tokens = (~padding_mask).sum(dim=1, keepdim=True).clamp(min=1)  # a text may be empty
    return features.masked_fill(padding_mask[..., None], 0).sum(dim=1) / tokens


class ClassificationHead(nn.Module):
    """Returns logits (b, classes) from the first token's features: dense layer, activation, projection.

    Args:
        embed_dim: C.
        num_classes: number of logits.
        inner_dim: width of the dense layer, by default C.
        activation_fn: a name of :data:`fairseq_lambda.modules.activations.ACTIVATIONS`.
        dropout: before both layers.
    """

    def __init__(
        self,
        embed_dim: int,
        num_classes: int,
        inner_dim: int | None = None,
        activation_fn: str = "tanh",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.dense = nn.Linear(embed_dim, inner_dim or embed_dim)
        self.activation_fn = activation(activation_fn)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(inner_dim or embed_dim, num_classes)

    def forward(self, features: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return the logits of ``features`` (b, n, C), right-padded where ``padding_mask`` (b, n) is True."""
        pooled = self.pool(features, padding_mask)
        return self.out_proj(self.dropout(self.activation_fn(self.dense(self.dropout(pooled)))))

    def pool(self, features: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Return what the dense layer reads."""
        return features[:, 0]


class MeanClassificationHead(ClassificationHead):
    """Returns logits (b, classes) from the mean of all tokens' features, see :func:`mean_of_tokens`."""

    def pool(self, features: Tensor, padding_mask: Tensor | None) -> Tensor:
        return mean_of_tokens(features, padding_mask)


class TokenClassificationHead(ClassificationHead):
    """Returns logits (b, n, classes), computed for each token from its own features."""

    def pool(self, features: Tensor, padding_mask: Tensor | None) -> Tensor:
        return features


CLASSIFIERS = {"cls": ClassificationHead, "mean": MeanClassificationHead}  # of texts, by what they read
