"""Learning rates by layer, which weights are trained, and checkpoints of other labels."""

from types import SimpleNamespace

import pytest
import torch
from conftest import make_dictionary, make_model
from omegaconf import OmegaConf

from fairseq_lambda.finetuning.labels import Labels
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig
from fairseq_lambda.modules.heads import ClassificationHead
from fairseq_lambda.tasks.fine_tuning import FineTuningConfig, layer_rates
from fairseq_lambda.tasks.lambda_sentence_prediction import (
    LambdaSentencePredictionConfig,
    LambdaSentencePredictionTask,
)
from fairseq_lambda.tasks.lambda_sequence_tagging import LambdaSequenceTaggingTask

SHAPE = {"encoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2}


def make(labels=("x", "y"), kind=LambdaSentencePredictionTask, objective="classification", **options):
    cfg = OmegaConf.structured(FineTuningConfig if objective == "tagging" else LambdaSentencePredictionConfig)
    cfg.data, cfg.seed, cfg.train_subset, cfg.required_seq_len_multiple, cfg.fp16 = "data", 1, "train", 1, False
    for name, value in options.items():
        cfg[name] = value
    return kind(
        OmegaConf.create(OmegaConf.to_container(cfg) | {"_name": "task"}), make_dictionary(), Labels(objective, labels)
    )


def build(task, **options):
    cfg = OmegaConf.structured(LambdaBertConfig(**(SHAPE | options)))
    return task.build_model(OmegaConf.create(OmegaConf.to_container(cfg, enum_to_str=True) | {"_name": "lambda_bert"}))


def test_rates_by_layer():
    model = make_model()
    rates = {id(p): rate for rate, p in layer_rates(model, 0.5)}
    names = {name: rates.get(id(p)) for name, p in model.named_parameters()}
    assert names["encoder.bert.encoder.layers.1.fc1.weight"] == 0.5
    assert names["encoder.bert.encoder.layers.0.mixing.q_proj.weight"] == 0.25
    assert names["encoder.bert.embed_tokens.weight"] == names["encoder.bert.layernorm_embedding.bias"] == 0.125
    assert names["encoder.bert.encoder.layer_norm.weight"] == 0.5


def test_a_step_is_shortened_by_layer():
    """With plain SGD a layer's step is its rate times the head's."""
    task = make(layer_decay=0.5)
    model = build(task)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1.0)
    for p in learning:
        p.grad = torch.ones_like(p)
    task.optimizer_step(SimpleNamespace(step=optimizer.step), model, 1)
    moved = {name: (before[name] - p).mean().item() for name, p in model.named_parameters() if p.requires_grad}
    assert moved["classification_heads.sentence_classification_head.out_proj.bias"] == pytest.approx(1)
    assert moved["encoder.bert.encoder.layers.1.fc2.bias"] == pytest.approx(0.5)
    assert moved["encoder.bert.encoder.layers.0.fc2.bias"] == pytest.approx(0.25)
    assert moved["encoder.bert.embed_segments.weight"] == pytest.approx(0.125)


def test_what_learns():
    def learning(**options):
        return {name for name, p in build(make(**options)).named_parameters() if p.requires_grad}

    assert not any("lm_head" in name for name in learning()) and any("layers.0" in name for name in learning())
    assert all(name.startswith("classification_heads.") for name in learning(freeze_encoder=True))


def test_the_number_of_outputs_follows_from_the_labels():
    head = build(make(("x", "y", "z"))).classification_heads["sentence_classification_head"]
    assert head.out_proj.out_features == 3
    tagger = build(make(("x", "y"), LambdaSequenceTaggingTask, "tagging"))
    tokens = torch.tensor([[0, 5, 6, 2]])
    assert tagger(tokens, classification_head_name="sequence_tagging_head")[0].shape == (1, 4, 2)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_head_reads_the_first_token_or_the_mean_of_all_but_padding(pooling):
    model = build(make(pooling=pooling)).eval()
    head = model.classification_heads["sentence_classification_head"]
    tokens = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
    logits, _ = model(tokens, classification_head_name="sentence_classification_head")
    for row, length, found in zip(tokens, (5, 3), logits, strict=True):
        features, _ = model(row[None, :length], features_only=True)
        read = features[0].mean(0) if pooling == "mean" else features[0, 0]
        torch.testing.assert_close(found, head.out_proj(torch.tanh(head.dense(read))))


def test_a_checkpoint_from_before_there_was_a_choice_reads_the_first_token():
    task = make()
    del task.cfg["pooling"]
    assert type(build(task).classification_heads["sentence_classification_head"]) is ClassificationHead


@pytest.mark.parametrize("options,shape,length", [
    ({}, {}, 512), ({"max_length": 2000}, {}, 2000), ({}, {"absolute_positions": "learned", "max_positions": 64}, 64),
])  # fmt: skip
def test_longest_sample(options, shape, length):
    task = make(**options)
    build(task, **shape)
    assert task.max_positions() == length == task.state_dict()["max_length"]


def test_longer_than_the_model_reads():
    with pytest.raises(ValueError, match="--max-length 65: the model reads at most 64 tokens"):
        build(make(max_length=65), absolute_positions="learned", max_positions=64)


@pytest.mark.parametrize("options,message", [
    ({"layer_decay": 1.1}, "--layer-decay 1.1: must be above 0"),
    ({"max_length": 7}, "--max-length 7: must be at least 8"),
    ({"layer_decay": 0.5, "fp16": True}, "--layer-decay 0.5 does not work with --fp16"),
    ({"objective": "tagging"}, "data is for tagging: --task task is for classification, multilabel, regression"),
])  # fmt: skip
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_checkpoint_of_other_labels_or_symbols():
    task = make()
    task.check_resumed(task.state_dict())
    with pytest.raises(ValueError, match="its labels are y, x"):
        task.check_resumed({"labels": {"names": ["y", "x"]}})
    with pytest.raises(ValueError, match="another dictionary"):
        task.load_state_dict({"symbols": ["<s>"]})
    again = LambdaSentencePredictionTask.from_state(task.cfg, task.state_dict())
    assert again.labels == task.labels and again.dictionary.symbols == task.dictionary.symbols
    with pytest.raises(ValueError, match="has no labels"):
        LambdaSentencePredictionTask.from_state(task.cfg, {"symbols": []})
