"""fairseq's architecture ``lambda_bert_content``: lambda_bert_mini with a content term in some layers."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model

from content_terms.layer import add_term
from content_terms.terms import TERMS
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.lambda_bert_config import SIZES, sized_config
from fairseq_lambda.modules import parse_layers


@dataclass
class ContentConfig(sized_config(*SIZES["mini"])):
    content_term: ChoiceEnum(["none", *TERMS]) = field(
        default="none", metadata={"help": "term beside the lambdas of --content-layers; none: the model as it is"}
    )
    content_layers: str = field(default="3", metadata={"help": "layers with the content term, such as 0,1,3-5"})


@register_model("lambda_bert_content", dataclass=ContentConfig)
class ContentBertModel(LambdaBertModel):
    """A :class:`LambdaBertModel` with a content term in some layers."""

    def __init__(self, cfg, encoder):
        term = str(getattr(cfg.content_term, "value", cfg.content_term))
        if term != "none":
            layers = encoder.bert.encoder.layers
            add_term(encoder.bert, term, parse_layers(cfg.content_layers, len(layers)))
        super().__init__(cfg, encoder)
