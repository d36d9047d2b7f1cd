"""Weights of fairseq's model under the names of transformers' models, and back. No weight changes."""

import re

from torch import Tensor

# fairseq's prefix and transformers', the first that fits; ``{head}`` is the fine-tuned head that is converted.
PRETRAINED = (
    (r"encoder\.bert\.lm_head\.", "lm_head."),
    (r"encoder\.bert\.sentence_head\.dense\.", "lambda_bert.pooler.dense."),
    (r"encoder\.bert\.sentence_head\.out_proj\.", "sentence_classifier."),
    (r"encoder\.bert\.", "lambda_bert.core."),
)
OF_HEAD = (
    ("classification_heads.{head}.dense.", "lambda_bert.pooler.dense."),
    ("classification_heads.{head}.out_proj.", "classifier."),
)
