"""Trials of richer content terms: layers that find the token that matches, beside the lambdas of some layers.

A fairseq user-dir that imports fairseq_lambda and adds the architecture ``lambda_bert_content``: lambda_bert_mini with
``--content-term NAME`` in ``--content-layers LIST``. Nothing in the package depends on it, so terms that lose can be
deleted with this folder. comparisons/content_terms.yaml trains them; costs.py counts and times them.

    kernels.py   kernels made of one or two inner products, as a table of pairs or as features
    windowed.py  softmax over nearby tokens
    terms.py     the terms by name, with the projections of their own
    layer.py     an encoder layer with a term; the top one works only for the positions that a loss reads
    model.py     fairseq's model
"""

from content_terms import model  # noqa: F401  registers it
