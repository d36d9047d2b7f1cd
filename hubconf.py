"""torch.hub entry point: ``torch.hub.load(checkout, "lambda_bert", source="local")``."""

dependencies = ["torch", "fairseq", "sentencepiece"]


def lambda_bert(folder="lambda_bert_mini-enwiki", checkpoint_file=None):
    """Return a hub interface over the included model, or another: see ``LambdaBertModel.from_pretrained``."""
    from fairseq_lambda.models import LambdaBertModel

    return LambdaBertModel.from_pretrained(folder, checkpoint_file)
