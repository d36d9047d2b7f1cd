from fairseq_lambda.tasks import masked_lm_sop  # noqa: F401
