"""``lambda-bert preprocess``: text to a data folder for training."""

from fairseq_lambda.corpora.prepare import main

__all__ = ["main"]
