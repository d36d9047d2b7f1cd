"""torch.hub entry point: ``torch.hub.load(checkout, "lambda_bert", folder, source="local")``."""

dependencies = ["torch", "fairseq", "sentencepiece"]


def lambda_bert(folder, checkpoint_file=None):
    """Return a hub interface over the model in ``folder``; see ``LambdaBertModel.from_pretrained``."""
    from fairseq_lambda.models import LambdaBertModel

    return LambdaBertModel.from_pretrained(folder, checkpoint_file)
