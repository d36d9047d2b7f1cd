"""What fairseq needs to know about a model besides its weights: options of model, task and criterion, and labels."""

from omegaconf import OmegaConf

from fairseq_lambda.conversion.to_transformers import PROBLEMS
from fairseq_lambda.criterions.fine_tuning import FineTuningCriterionConfig
from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterionConfig
from fairseq_lambda.finetuning.labels import ANY, Labels
from fairseq_lambda.huggingface import LambdaBertConfig
from fairseq_lambda.huggingface.configuration import core_options
from fairseq_lambda.models.lambda_bert_config import FLAGS, OF_DICTIONARY
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig as FairseqConfig
from fairseq_lambda.modules.lambda_bert_options import NO_LIMIT, LambdaBertOptions
from fairseq_lambda.tasks.fine_tuning import DEFAULT_LENGTH, FineTuningConfig
from fairseq_lambda.tasks.lambda_sentence_prediction import (
    LambdaSentencePredictionConfig,
    LambdaSentencePredictionTask,
)
from fairseq_lambda.tasks.lambda_sequence_tagging import LambdaSequenceTaggingTask
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig
from fairseq_lambda.version import KEY

HEADS = {  # the classes that fairseq has too, and the names of their fine-tuned heads there
    "LambdaBertForMaskedLM": None,
    "LambdaBertForPreTraining": None,
    "LambdaBertForSequenceClassification": LambdaSentencePredictionTask.HEAD,
    "LambdaBertForTokenClassification": LambdaSequenceTaggingTask.HEAD,
}
OF_COMMAND = {"seed": 1, "train_subset": "train", "required_seq_len_multiple": 1, "fp16": False}  # fairseq's own flags


def described(config: LambdaBertConfig, name: str) -> dict:
    """Return ``version``, ``model``, ``task``, ``criterion``, ``updates`` and, of a fine-tuned model, ``task_state``.

    Values that the conversion to transformers stored in ``config.fairseq`` are used if they are still valid.
    """
    stored = getattr(config, "fairseq", None) or {}
    options = core_options(config)
    model = stored.get("model") or {**_plain(FairseqConfig()), "_name": "lambda_bert"}
    others = (*OF_DICTIONARY, "max_positions", "checkpoint_activations")
    own = {FLAGS.get(key, key): value for key, value in vars(options).items() if key not in others}
    model = {**model, **own}
    if options.length_limit != NO_LIMIT:
        model["max_positions"] = options.max_positions
    parts = {KEY: stored.get(KEY), "model": model, "updates": stored.get("updates")}
    if HEADS[name] is None:
        return {**parts, **_pretraining(stored, options, name, config.sentence_loss_weight)}
    return {**parts, **_fine_tuning(stored, options, name, config)}


def _pretraining(stored: dict, options: LambdaBertOptions, name: str, weight: float) -> dict:
    task, criterion = stored.get("task") or {}, stored.get("criterion") or {}
    objective = task.get("sentence_objective", "sop")  # also of a model pretrained elsewhere, if it was written down
    if task.get("_name") != "masked_lm_sop":
        length = min(options.length_limit, DEFAULT_LENGTH)
        task = {**_plain(MaskedLMSOPConfig(data=".", tokens_per_sample=length)), "_name": "masked_lm_sop"}
        criterion = {**_plain(MaskedLMSOPCriterionConfig(sentence_loss_weight=weight)), "_name": "masked_lm_sop"}
    if name == "LambdaBertForMaskedLM":
        objective = "none"
    elif objective == "none":
        objective = "sop"
    return {"task": {**task, "sentence_objective": objective}, "criterion": criterion}


def _fine_tuning(stored: dict, options: LambdaBertOptions, name: str, config: LambdaBertConfig) -> dict:
    tagging = name == "LambdaBertForTokenClassification"
    kind = "lambda_sequence_tagging" if tagging else "lambda_sentence_prediction"
    task, criterion = stored.get("task") or {}, stored.get("criterion") or {}
    flags = FineTuningConfig if tagging else LambdaSentencePredictionConfig
    if task.get("_name") != kind:
        task = {**_plain(flags(data=".")), "_name": kind}
        criterion = {**_plain(FineTuningCriterionConfig()), "_name": kind}
    state = stored.get("task_state") or {"max_length": min(options.length_limit, DEFAULT_LENGTH)}
    objectives = {problem: objective for objective, problem in PROBLEMS.items()}
    guess = "regression" if config.num_labels == 1 else "classification"
    objective = "tagging" if tagging else objectives.get(config.problem_type, guess)
    if objective == "regression" and config.num_labels != 1:
        raise ValueError(
            f"problem_type=regression with num_labels={config.num_labels}: fairseq predicts one number per text, so "
            "train a model for each"
        )
    names = [] if objective == "regression" else [config.id2label[index] for index in range(config.num_labels)]
    labels = Labels(objective, names, ANY, mean=config.label_mean, deviation=config.label_deviation).state()
    known, of_model = state.get("labels") or {}, ("objective", "names", "mean", "deviation")
    if all(known.get(key) == labels[key] for key in of_model):
        labels = known  # with the counts from training
    if not tagging:
        task = {**task, "pooling": config.classifier_pooling}
    return {"task": task, "criterion": criterion, "task_state": {**state, "labels": labels}}


def _plain(config) -> dict:
    """Return the options of one of fairseq's dataclasses as plain values, including those from its command line."""
    options = OmegaConf.structured(config)
    for key, value in OF_COMMAND.items():
        if key in options:
            options[key] = value
    return OmegaConf.to_container(options, resolve=True, enum_to_str=True)
