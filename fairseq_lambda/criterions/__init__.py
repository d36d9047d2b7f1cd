from fairseq_lambda.criterions import masked_lm_sop  # noqa: F401
