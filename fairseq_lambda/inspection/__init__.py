"""Looking inside a model: contributions of tokens, content lambdas, interventions. Needs torch and numpy alone."""

from fairseq_lambda.inspection.contributions import Contributions, contributions
from fairseq_lambda.inspection.interventions import (
    MaskChange,
    edited,
    hidden_from,
    leave_one_out,
    mask_distribution,
    replaced_by,
    swap_content,
    without,
    zero,
    zero_content,
)
from fairseq_lambda.inspection.lambdas import lambdas
from fairseq_lambda.inspection.maps import contributions_of_layers, norm_maps, rollout, term_norms, to_bertviz
from fairseq_lambda.inspection.reader import Reader, reader
from fairseq_lambda.inspection.slots import PositionKernel, Slots, position_kernels, slots

__all__ = [
    "Contributions",
    "MaskChange",
    "PositionKernel",
    "Reader",
    "Slots",
    "contributions",
    "contributions_of_layers",
    "edited",
    "hidden_from",
    "lambdas",
    "leave_one_out",
    "mask_distribution",
    "norm_maps",
    "position_kernels",
    "reader",
    "replaced_by",
    "rollout",
    "slots",
    "swap_content",
    "term_norms",
    "to_bertviz",
    "without",
    "zero",
    "zero_content",
]
