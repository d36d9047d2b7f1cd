"""fairseq's ``lambda_bert`` models: :class:`fairseq_lambda.modules.LambdaBert` behind the hooks of its RoBERTa."""

import logging
from numbers import Integral
from types import SimpleNamespace

import torch
from fairseq.models import FairseqEncoder, FairseqEncoderModel, register_model
from fairseq.models.roberta.model import RobertaModel
from torch import Tensor, nn

from fairseq_lambda.checkpointing import fairseq_hooks
from fairseq_lambda.models import fairseq_sentence_prediction
from fairseq_lambda.models.hub_interface import LambdaBertHubInterface
from fairseq_lambda.models.lambda_bert_config import (
    SIZES,
    LambdaBertConfig,
    core_options,
    flag_of,
    in_flags,
    plain,
    sized_config,
)
from fairseq_lambda.models.older_checkpoints import (
    is_older,
    with_present_names,
    with_present_optimizer,
    with_present_options,
)
from fairseq_lambda.modules import Documents, LambdaBert, LambdaBertOptions
from fairseq_lambda.modules.heads import ClassificationHead
from fairseq_lambda.ops.unrolled import is_recording, is_transformed

logger = logging.getLogger(__name__)


class LambdaBertEncoder(FairseqEncoder):
    """What fairseq calls the encoder: the whole :class:`LambdaBert`, as ``bert``, with fairseq's calling convention.

    Args:
        options: the core's.
        dictionary: fairseq's, ``<mask>`` included.
        sentence_head: whether to build the core's sentence head.

    Raises:
        ValueError: options that contradict each other, naming flag and value.
    """

    def __init__(self, options: LambdaBertOptions, dictionary, sentence_head: bool):
        super().__init__(dictionary)
        try:
            self.bert = LambdaBert(options, sentence_head=sentence_head)
        except ValueError as error:
            raise ValueError(in_flags(str(error))) from error

    def forward(
        self,
        src_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        masked_tokens: Tensor | None = None,
        return_lambdas: bool = False,
        has_padding: bool | None = None,
        document_lengths: list[list[int]] | None = None,
        **unused,
    ) -> tuple[Tensor, dict]:
        """Return logits over the vocabulary (b, n, V), or features (b, n, C), and a dictionary.

        The dictionary has ``sentence_logits``, so that both losses come from one forward pass, ``inner_states`` and
        ``lambdas``.

        Args:
            src_tokens: (b, n) token ids, right-padded.
            features_only: leave out the masked-LM head.
            return_all_hiddens: fill ``inner_states`` with L + 1 tensors (b, n, C).
            masked_tokens: (b, n) bool, or positions (masked,) in the flattened (b * n), which avoid waiting for a GPU.
                Only these tokens get logits, (masked, V), and the top layer skips most of its work for all others but
                ``<s>``. With ``features_only``, their features (masked, C) are returned, and no sentence logits.
            return_lambdas: fill ``lambdas`` with a content lambda (b, k, v) per layer, None for attention layers.
            has_padding: whether there is any padding; None: check, which waits for a GPU.
            document_lengths: of packed rows, see :class:`Documents`; None: a row is one text.

        Raises:
            ValueError: more tokens than ``max_positions``.
        """
        padding_mask = src_tokens.eq(self.dictionary.pad())
        if has_padding is None:
            # a graph has to serve inputs with and without padding, and vmap cannot check
            has_padding = is_recording() or is_transformed() or bool(padding_mask.any())
        padding_mask = padding_mask if has_padding else None
        documents = None
        if document_lengths is not None:
            documents = Documents(document_lengths, src_tokens.size(1), src_tokens.device)
        if masked_tokens is not None and masked_tokens.dtype == torch.bool:
            masked_tokens = masked_tokens.flatten().nonzero().squeeze(1)
        head = self.bert.sentence_head
        if features_only and masked_tokens is not None:
            head = None
        at = None if return_all_hiddens and not features_only else masked_tokens
        if at is not None and head is not None:  # which reads <s>
            batch, length = src_tokens.shape
            at = torch.cat([torch.arange(0, batch * length, length, device=at.device), at])
        x, states, lambdas = self.bert(
            src_tokens, padding_mask, None, return_all_hiddens, return_lambdas, documents=documents, at=at
        )
        first = x if at is None else x[: len(src_tokens), None]
        extra = {
            "inner_states": states if return_all_hiddens else None,
            "lambdas": lambdas if return_lambdas else None,
            "sentence_logits": None if head is None else head(first),
        }
        if at is not None:
            x = x if head is None else x[len(src_tokens) :]
        elif masked_tokens is not None:
            x = x.flatten(0, 1).index_select(0, masked_tokens)
        return (x if features_only else self.bert.lm_head(x)), extra

    def max_positions(self) -> int:
        return self.bert.max_positions


@register_model("lambda_bert", dataclass=LambdaBertConfig)
class LambdaBertModel(RobertaModel):
    """fairseq's model: a RoBERTa with another encoder, other options and another hub interface.

    ``fairseq_lambda.huggingface`` has a class of the same name for transformers.
    """

    def __init__(self, cfg, encoder: LambdaBertEncoder):
        FairseqEncoderModel.__init__(self, encoder)
        self.args = self.cfg = plain(cfg)  # fairseq makes its enumerations at run time, so they cannot be pickled
        self.classification_heads = nn.ModuleDict()

    @classmethod
    def add_args(cls, parser):
        # RobertaModel lists its argparse options by hand here; ours come from the dataclass.
        super(RobertaModel, cls).add_args(parser)

    @classmethod
    def build_model(cls, cfg, task):
        """Return the model; install the plugin's checkpoint handling in fairseq."""
        fairseq_hooks.install(cls._trains)
        _check_format(task)
        fairseq_sentence_prediction.describe(task)
        max_positions = task.max_positions() if cfg.max_positions is None else cfg.max_positions
        sentence_head = getattr(task, "sentence_objective", "none") != "none"
        options = core_options(cfg, task.source_dictionary, max_positions)
        return cls(cfg, LambdaBertEncoder(options, task.source_dictionary, sentence_head))

    def forward(
        self, src_tokens, features_only=False, return_all_hiddens=False, classification_head_name=None, **options
    ):
        """Do as RobertaModel does; heads also get the padding mask."""
        reads_head = classification_head_name is not None
        x, extra = self.encoder(src_tokens, features_only or reads_head, return_all_hiddens, **options)
        if reads_head:
            padding_mask = src_tokens.eq(self.encoder.dictionary.pad())
            x = self.classification_heads[classification_head_name](x, padding_mask)
        return x, extra

    @staticmethod
    def _trains(trainer) -> bool:
        return isinstance(trainer.get_model(), LambdaBertModel)

    def register_classification_head(self, name, num_classes=None, inner_dim=None, kind=ClassificationHead, **kwargs):
        """Add a head, by default on ``<s>``, with ``num_classes`` outputs; a head of that name is replaced.

        It takes the model's dtype, device and mode, and is saved with the model.

        Raises:
            ValueError: ``num_classes`` is not a number of at least 1, or torch does not allow the name.
        """
        if not isinstance(num_classes, Integral) or num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: must be a whole number of at least 1")
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"a head cannot be named {name!r}: choose a word without dots, and not one of torch's")
        if name in self.classification_heads:
            logger.warning("classification head %r is replaced", name)
        head, like = (
            self.encoder.bert.build_head(num_classes, inner_dim, kind),
            self.encoder.bert.layernorm_embedding.weight,
        )
        self.classification_heads[name] = head.to(like.device, like.dtype).train(self.training)

    def upgrade_state_dict_named(self, state_dict, name):
        """Do as RobertaModel does, and read older names; a sentence head may be missing, or present but unused."""
        prefix = f"{name}." if name else ""
        with_present_names(state_dict, prefix, self.encoder.bert.options)
        super().upgrade_state_dict_named(state_dict, name)
        own = self.encoder.bert.sentence_head
        key = f"{prefix}encoder.bert.sentence_head."
        saved = [k for k in state_dict if k.startswith(key)]
        if own is None:
            for k in saved:
                del state_dict[k]
        elif not saved:
            logger.warning("the checkpoint has no sentence head: the model's has its initial weights")
            state_dict.update({key + k: v for k, v in own.state_dict().items()})

    def differing_options(self, cfg: dict) -> list[tuple[str, object, object]]:
        """Return (flag, value in ``cfg``, value here) where a checkpoint's options give its weights another meaning."""
        present, options = dict(cfg), self.encoder.bert.options
        with_present_options(present)
        present = SimpleNamespace(**{**vars(LambdaBertConfig()), **present})
        theirs = core_options(present, self.encoder.dictionary, options.max_positions).meaning()
        ours = options.meaning()
        names = [name for name in ours | theirs if theirs.get(name) != ours.get(name)]
        return [(flag_of(name), theirs.get(name), ours.get(name)) for name in names]

    def upgrade_older_state(self, state: dict) -> None:
        """Convert the weights and the optimizer's state of an older version's checkpoint in place.

        Raises:
            ValueError: it was trained with an option that no longer exists.
        """
        if is_older(state["model"]):
            options = self.encoder.bert.options
            with_present_names(state["model"], "", options)
            if state.get("last_optimizer_state"):
                trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
                with_present_optimizer(state["last_optimizer_state"], trained, options)

    @classmethod
    def hub_models(cls):
        return {}  # those of RobertaModel are other models

    @classmethod
    def from_pretrained(cls, folder, checkpoint_file=None, backend="auto", dictionary=None, labels=None):
        """Return a :class:`LambdaBertHubInterface` over the model in ``folder``: see its ``from_folder``."""
        return LambdaBertHubInterface.from_folder(folder, checkpoint_file, backend, dictionary, labels)


def _check_format(task) -> None:
    """Make a fairseq task that joins texts itself write ``<s> A </s> </s> B </s>``, where ``</s> </s>`` marks segments.

    Raises:
        ValueError: a flag says otherwise.
    """
    for name, index in (
        ("init_token", task.source_dictionary.bos()),
        ("separator_token", task.source_dictionary.eos()),
    ):
        value = getattr(task.cfg, name, index)
        if value is None:
            setattr(task.cfg, name, index)
        elif value != index:
            raise ValueError(
                f"--{name.replace('_', '-')} {value}: must be {index} (leave the flag out), because a lambda_bert "
                "reads <s> A </s> </s> B </s>"
            )


for _size, (_layers, _width, _heads) in SIZES.items():
    _name = f"LambdaBert{_size.capitalize()}Model"
    globals()[_name] = type(_name, (LambdaBertModel,), {"__module__": __name__})  # where pickle looks for it
    register_model(f"lambda_bert_{_size}", dataclass=sized_config(_layers, _width, _heads))(globals()[_name])
