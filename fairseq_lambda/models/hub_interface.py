"""Using a trained model from Python: encode, fill masks, order, score and embed texts, take features and lambdas."""

import itertools
import logging
import re
from typing import NamedTuple

import torch
import torch.nn.functional as F
from fairseq import checkpoint_utils, utils
from fairseq.models.roberta.hub_interface import RobertaHubInterface
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from fairseq_lambda.checkpointing.exported import find_checkpoint
from fairseq_lambda.checkpointing.reading import CheckpointError
from fairseq_lambda.models.fine_tuned import FineTuned
from fairseq_lambda.models.lambda_bert_config import plain
from fairseq_lambda.models.loading import load_checkpoint
from fairseq_lambda.models.many_texts import ManyTexts, checked_ids
from fairseq_lambda.models.older_checkpoints import with_present_options
from fairseq_lambda.models.pieces import SentencePieceEncoder
from fairseq_lambda.models.task_of_checkpoint import task_of
from fairseq_lambda.symbols import MASK, WORD_START

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """A filled mask: the text with this mask filled, the probability, and what was filled in."""

    text: str
    probability: float
    token: str


class LambdaBertHubInterface(FineTuned, ManyTexts, RobertaHubInterface):
    """fairseq's RoBERTa interface over a lambda_bert, its vocabulary and nothing else: no network, no training paths.

    ``encode``, ``decode``, ``predict`` and ``register_classification_head`` are fairseq's. ``bpe`` is None if the
    checkpoint came without a SentencePiece model; everything then works on ids. ``classify`` and ``tag`` are for
    fine-tuned models.
    """

    def __init__(self, cfg, task, model, sentencepiece_model: bytes | None):
        nn.Module.__init__(self)  # fairseq's own would build the bpe of cfg, by default one from the network
        self.cfg, self.task, self.model = plain(cfg), task, model
        task.cfg = self.cfg.task
        self.bpe = None
        if sentencepiece_model is not None:
            self.bpe = SentencePieceEncoder(sentencepiece_model, task.source_dictionary)
        self.register_buffer("_float_tensor", torch.zeros(1))  # fairseq finds the device by it

    @classmethod
    def from_folder(
        cls, folder, checkpoint_file: str | None = None, backend: str = "auto", dictionary=None, labels=None
    ) -> "LambdaBertHubInterface":
        """Return the model of a training or exported folder, or an included model, in evaluation mode.

        Args:
            folder: a training or exported folder, wherever it is now; a checkpoint file; or the name of an included
                model, such as "lambda_bert_mini-enwiki". A folder of that name takes precedence.
            checkpoint_file: a file in the folder; default: the first of model.safetensors, model.pt,
                checkpoint_best.pt, checkpoint_last.pt.
            backend: of the lambda layers, see :func:`fairseq_lambda.ops.lambda_mix`; the one used in training may not
                suit this machine.
            dictionary: a ``dict.txt``, or fairseq's dictionary, for a checkpoint that was fine-tuned under fairseq's
                ``sentence_prediction`` by an older version and has none.
            labels: names of such a checkpoint's classes, in the order of its ``label/dict.txt``.

        Raises:
            FileNotFoundError: no such folder or no checkpoint in it.
            ValueError: the file is not a checkpoint of this plugin.
        """
        path = find_checkpoint(folder, checkpoint_file)
        state = load_checkpoint(path)
        saved = state.get("task_state") or {}
        cfg = state["cfg"]
        with open_dict(cfg):
            with_present_options(cfg.model)
            cfg.model.load_checkpoint_heads, cfg.model.lambda_backend = True, backend
            cfg.task.setdefault("required_seq_len_multiple", 1)  # older checkpoints lack it
        piece_file = path.parent / "sentencepiece.model"
        pieces = None
        if "sentencepiece" in saved:
            pieces = saved["sentencepiece"].numpy().tobytes()
        elif piece_file.is_file():
            pieces = piece_file.read_bytes()
        try:
            with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten at once
                task = task_of(cfg.task, saved, dictionary, labels)
                with open_dict(cfg):
                    cfg.task = task.cfg
                (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], task=task, state=state)
            return cls(cfg, task, model, pieces).eval()
        except (RuntimeError, TypeError, KeyError, OmegaConfBaseException) as error:  # weights that do not fit
            reason = f"{type(error).__name__} {str(error).strip()}".splitlines()[0]
            raise CheckpointError(f"{path}: its options, weights and pieces do not fit together ({reason})") from error

    def encode(self, sentence: str, *addl_sentences, no_separator: bool = False) -> Tensor:
        """Return ids (n,) of ``<s> A </s>`` or ``<s> A </s> </s> B </s>``; ``<mask>`` in a text is the mask.

        Raises:
            ValueError: the checkpoint came without a SentencePiece model.
            TypeError: something that is not a text.
        """
        self.require_pieces()
        for text in (sentence, *addl_sentences):
            if not isinstance(text, str):
                raise TypeError(f"encode takes texts (str), not {type(text).__name__}: give several one by one")
        return super().encode(sentence, *addl_sentences, no_separator=no_separator)

    def decode(self, tokens: Tensor) -> str | list[str]:
        """Return the text of ids (n,), or the two texts of a pair; symbols joined by spaces if there are no pieces.

        Raises:
            ValueError: not whole numbers of that shape, or one outside the vocabulary.
        """
        dictionary = self.task.source_dictionary
        tokens = checked_ids(tokens, len(dictionary))
        texts = [[]]
        for index, following in itertools.pairwise([*tokens.tolist(), None]):
            if index == dictionary.eos() and following == dictionary.eos():
                texts.append([])
            elif index not in (dictionary.bos(), dictionary.eos(), dictionary.pad()):
                texts[-1].append(dictionary[index])
        texts = [" ".join(pieces) if self.bpe is None else self.bpe.decode(" ".join(pieces)) for pieces in texts]
        return texts[0] if len(texts) == 1 else texts

    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False, return_lambdas: bool = False):
        """Return features (b, n, C), or all L + 1 hidden states; with ``return_lambdas`` also the content lambdas.

        Args:
            tokens: ids (n,) or (b, n), right-padded; or a list of texts or of ids (n,): the result is then a list of
                what each gives alone, with b = 1.
            return_all_hiddens: return a list, the embeddings first, in place of the top features.
            return_lambdas: return (features, lambdas), lambdas being a list of (b, dim_k, dim_v), None for softmax
                layers.
        """
        if not isinstance(tokens, Tensor):
            return self._features_of_each(tokens, return_all_hiddens, return_lambdas)
        tokens = tokens.unsqueeze(0) if tokens.dim() == 1 else tokens
        features, extra = self.model(
            tokens.to(self.device),
            features_only=True,
            return_all_hiddens=return_all_hiddens,
            return_lambdas=return_lambdas,
        )
        features = extra["inner_states"] if return_all_hiddens else features
        return (features, extra["lambdas"]) if return_lambdas else features

    def predict(self, head: str, tokens: Tensor, return_logits: bool = False) -> Tensor:
        """Return a head's log-probabilities (b, classes) for ids (n,) or (b, n); with ``return_logits``, its logits.

        Raises:
            ValueError: there is no such head.
        """
        if head not in self.model.classification_heads:
            there = ", ".join(self.model.classification_heads) or "none"
            raise ValueError(f"no classification head {head!r} (there is {there}): see register_classification_head")
        return super().predict(head, tokens, return_logits)

    @torch.no_grad()
    def fill_mask(self, masked_input: str | list[str], topk: int = 5):
        """Return the ``topk`` likeliest fillings as :class:`Prediction`, best first; for several masks, one list each.

        All masks are predicted at once, each with all others masked. Special symbols, which are never targets in
        training, and byte pieces, which are not text, are left out. For a list of texts, a list of their results.

        Raises:
            ValueError: ids in place of a text, a text without ``<mask>``, or topk out of range.
        """
        texts = [masked_input] if isinstance(masked_input, str) else list(masked_input)
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(
                    f"fill_mask takes texts (str), not {type(text).__name__}: decode() turns ids into text"
                )
            if MASK not in text:
                raise ValueError(
                    f"no <mask> in {text!r}: write <mask> where a word is to be predicted, "
                    "such as 'The capital of France is <mask>.'"
                )
        dictionary = self.task.source_dictionary
        never = [*range(dictionary.nspecial), self.task.mask_idx, *self._byte_pieces()]
        if not 1 <= topk <= len(dictionary) - len(never):
            raise ValueError(f"topk={topk}: must be between 1 and the number of pieces")

        def likeliest(tokens: Tensor) -> list[list[list]]:
            masked = tokens.eq(self.task.mask_idx)
            with utils.model_eval(self.model):
                logits, _ = self.model(tokens.to(self.device), masked_tokens=masked.to(self.device))
            logits = logits.float()
            logits[:, never] = float("-inf")
            best = zip(*(values.tolist() for values in logits.softmax(dim=-1).topk(topk)), strict=True)  # (masks, topk)
            return [list(itertools.islice(best, masks)) for masks in masked.sum(1).tolist()]

        filled = [
            _fill_all(text, best, dictionary) for text, best in zip(texts, self._many(likeliest, texts), strict=True)
        ]
        return filled[0] if isinstance(masked_input, str) else filled

    def _byte_pieces(self) -> list[int]:
        """Return the ids of SentencePiece's byte pieces, which are parts of characters: ``<0x00>`` and so on."""
        symbols = self.task.source_dictionary.symbols
        return [index for index, symbol in enumerate(symbols) if re.fullmatch("<0x[0-9A-F]{2}>", symbol)]

    @torch.no_grad()
    def sentence_order(self, first: str, second: str) -> float:
        """Return the probability that the two texts are in this order.

        Raises:
            ValueError: the model was not trained with ``--sentence-objective sop``.
        """
        objective = self.task.sentence_objective
        if objective != "sop":
            raise ValueError(f"this model was trained with --sentence-objective {objective}; sentence order needs sop")
        tokens = self.encode(first, second)[None].to(self.device)
        with utils.model_eval(self.model):
            _, extra = self.model(tokens, features_only=True)
        return F.softmax(extra["sentence_logits"].float(), dim=-1)[0, 0].item()


def _fill_all(text: str, best: list, dictionary) -> list:
    """Return the predictions for a text, given (probabilities, ids) for each of its masks."""
    starts = [match.start() for match in re.finditer(MASK, text)]
    predictions = [
        [_fill(text, start, dictionary[i], probability) for probability, i in zip(*of_mask, strict=True)]
        for start, of_mask in zip(starts, best, strict=True)
    ]
    return predictions[0] if len(predictions) == 1 else predictions


def _fill(text: str, start: int, piece: str, probability: float) -> Prediction:
    before, after = text[:start], text[start + len(MASK) :]
    if piece.endswith(WORD_START) and piece != WORD_START:  # a vocabulary with the spaces at the ends of words
        token = piece.removesuffix(WORD_START)
        return Prediction(before + token + after, probability, token)
    token = piece.removeprefix(WORD_START)
    before = before.rstrip()  # a piece that starts no word continues the one before it
    if before and piece.startswith(WORD_START):
        before += " "
    return Prediction(before + token + after, probability, token)
