"""A folder that transformers loads, made from any folder that the hub loads."""

import json
import shutil
from pathlib import Path

from omegaconf import OmegaConf
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from fairseq_lambda.checkpointing.exported import CONFIG, PIECES, find_checkpoint, is_exported
from fairseq_lambda.conversion.card import card
from fairseq_lambda.conversion.checks import check_ids, check_logits, check_weights
from fairseq_lambda.conversion.names import prefixes, renamed
from fairseq_lambda.files import check_destination, whole_folder
from fairseq_lambda.huggingface import LambdaBertConfig, modeling
from fairseq_lambda.huggingface.configuration import of_core
from fairseq_lambda.huggingface.tokenizer import fast_tokenizer, save_tokenizer
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.models.loading import load_checkpoint
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT
from fairseq_lambda.version import KEY, version_of

PROBLEMS = {  # transformers' names of the objectives of fine-tuning
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


def to_transformers(checkpoint: Path, destination: Path, force: bool = False) -> dict:
    """Write the folder, whole or not at all; return a report of the checks.

    Args:
        checkpoint: what :func:`find_checkpoint` takes.
        destination: the folder to make.
        force: replace an earlier folder of transformers at the destination.

    Returns:
        ``model`` (the class in the folder), ``weights`` (number of bit-equal tensors), ``logits`` (the largest
        difference), ``sentences`` (number with equal ids; 0 without a SentencePiece model: there is no tokenizer then).

    Raises:
        FileExistsError: the destination already exists, and ``force`` does not replace it.
        FileNotFoundError: no checkpoint.
        NotEqual: the two models differ.
        ValueError: not a checkpoint of this plugin, or a vocabulary without a fast tokenizer.
    """
    check_destination(destination, force, CONFIG, source=Path(checkpoint))
    path = find_checkpoint(checkpoint)
    hub = LambdaBertModel.from_pretrained(path)
    labels = getattr(hub.task, "labels", None)
    name = class_of(hub)
    config = configuration(hub, load_checkpoint(path))
    pairs = prefixes(None if labels is None else hub.task.HEAD, name == "LambdaBertForTokenClassification")

    weights = hub.model.state_dict()
    dtype = weights["encoder.bert.embed_tokens.weight"].dtype
    model = getattr(modeling, name)(config).to(dtype).eval()
    wanted = renamed(weights, pairs, model.state_dict().keys())
    model.load_state_dict(wanted)

    destination.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(destination) as part:
        model.save_pretrained(part)
        for file in part.glob("*.safetensors"):  # which safetensors makes readable by its owner only
            shutil.copymode(part / CONFIG, file)
        if hub.bpe is not None:
            limit = hub.model.max_positions()
            pieces = hub.bpe.processor.serialized_model_proto()
            tokenizer = fast_tokenizer(pieces, hub.task.source_dictionary.symbols, None if limit == NO_LIMIT else limit)
            save_tokenizer(tokenizer, part)
            (part / PIECES).write_bytes(pieces)  # for the conversion back
        report = {"model": name, **compare(hub, part, name, wanted)}
        stored = json.loads((path.parent / CONFIG).read_text(encoding="utf-8")) if is_exported(path) else {}
        about = stored.get("about")  # data, licence, limits
        (part / "README.md").write_text(card(destination.name, config, name, about), encoding="utf-8")
    return report


def class_of(hub) -> str:
    """Return the name of transformers' class that has the heads of this model."""
    labels = getattr(hub.task, "labels", None)
    if labels is not None:
        return "LambdaBertFor" + ("Token" if labels.objective == "tagging" else "Sequence") + "Classification"
    return "LambdaBertForPreTraining" if hub.model.encoder.bert.sentence_head is not None else "LambdaBertForMaskedLM"


def configuration(hub, state: dict) -> LambdaBertConfig:
    """Return transformers' configuration; its ``fairseq`` holds what only fairseq needs, for the conversion back."""
    task, dictionary = hub.task, hub.task.source_dictionary
    parts = {part: OmegaConf.to_container(hub.cfg[part]) for part in ("model", "task", "criterion")}
    parts["task"]["data"] = "."
    parts[KEY] = version_of(state)
    parts[KEY] = version_of(state)
    parts["updates"] = (state.get("optimizer_history") or [{}])[-1].get("num_updates")
    options = {
        **of_core(hub.model.encoder.bert.options),
        "lambda_backend": "auto",
        "bos_token_id": dictionary.bos(),
        "mask_token_id": task.mask_idx,
        "sentence_loss_weight": parts["criterion"].get("sentence_loss_weight", 1.0),
    }
    if (labels := getattr(task, "labels", None)) is not None:
        names = labels.names or ["number"]
        options |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        options |= {"problem_type": PROBLEMS.get(labels.objective)}
        options |= {"label_mean": labels.mean, "label_deviation": labels.deviation}
        options |= {"classifier_pooling": str(parts["task"].get("pooling", "cls"))}
        parts["task_state"] = {"labels": labels.state(), "max_length": task.max_length}
    return LambdaBertConfig(**options, fairseq=parts)


def compare(hub, folder: Path, name: str, wanted: dict[str, Tensor]) -> dict:
    """Return the numbers of the report for the written folder; raise NotEqual if its model differs from the hub's."""
    quiet = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        loaded = getattr(modeling, name).from_pretrained(folder, dtype="auto").eval()
        tokenizer = None if hub.bpe is None else AutoTokenizer.from_pretrained(folder)
    finally:
        transformers_logging.set_verbosity(quiet)
    weights = check_weights(wanted, loaded.state_dict())
    loaded, hub = loaded.float(), hub.float()
    logits = check_logits(fairseq_logits(hub), transformers_logits(loaded), hub.model.encoder.bert.options)
    sentences = 0
    if tokenizer is not None:
        sentences = check_ids(lambda text: hub.encode(text).tolist(), tokenizer, hub.bpe.processor)
    return {"weights": weights, "logits": logits, "sentences": sentences}


def fairseq_logits(hub):
    """Return a function from ids (b, n) to the logits of all converted heads."""
    labels = getattr(hub.task, "labels", None)

    def logits(tokens: Tensor) -> list[Tensor]:
        if labels is None:
            predictions, extra = hub.model(tokens)
            return [predictions, *filter(lambda x: x is not None, [extra["sentence_logits"]])]
        found, _ = hub.model(tokens, features_only=True, classification_head_name=hub.task.HEAD)
        return [found * labels.deviation + labels.mean if labels.objective == "regression" else found]

    return logits


def transformers_logits(model):
    """Return the same function for transformers' model."""

    def logits(tokens: Tensor) -> list[Tensor]:
        out = model(input_ids=tokens)
        return [value for key, value in out.items() if key.endswith("logits")]

    return logits
