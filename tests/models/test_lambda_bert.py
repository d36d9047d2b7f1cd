"""The model: flags and sizes, segments, options, and padding end to end."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_model, make_task, random_batch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import MODEL_DATACLASS_REGISTRY, build_model

import fairseq_lambda
from fairseq_lambda.models.lambda_bert_config import SIZES
from fairseq_lambda.modules import parse_layers
from fairseq_lambda.modules.lambda_bert import segment_ids

PACKAGE = Path(fairseq_lambda.__file__).parent


def test_command_line_flags_reach_the_model():
    argv = [
        "data", "--user-dir", str(PACKAGE), *"--task masked_lm_sop --criterion masked_lm_sop --optimizer adam".split(),
        *"--arch lambda_bert_tiny --tokens-per-sample 32 --lambda-gate none".split(),
        *"--lambda-key-depth 8 --lambda-intra-depth 2 --lambda-local-context 7".split(),
        *"--lambda-norm rms --lambda-backend reference --lambda-layers 1 --encoder-attention-heads 4".split(),
        *"--max-positions 64 --dropout 0.3 --checkpoint-activations".split(),
        *"--encoder-layerdrop 0.5 --post-norm --absolute-positions sinusoidal --attention-rotary".split(),
    ]  # fmt: skip
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), argv))
    model = build_model(cfg.model, make_task())
    bert = model.encoder.bert
    softmax, layer = bert.encoder.layers
    assert type(softmax.mixing).__name__ == "SoftmaxAttention" and softmax.mixing.heads == 4 and softmax.mixing.rotary
    mixing = layer.mixing
    assert (mixing.dim_k, mixing.dim_u, mixing.local_context, mixing.norm) == (8, 2, 7, "rms")
    assert (mixing.backend, mixing.heads, layer.dropout) == ("reference", 4, 0.3)
    assert mixing.gate_proj is None and layer.post_norm and bert.encoder.checkpoint_activations
    assert bert.encoder.layerdrop == 0.5 and type(bert.embed_positions).__name__ == "SinusoidalPositions"


def test_every_size_has_its_dataclass_and_base_is_the_default():
    assert {f"lambda_bert_{s}" for s in SIZES} <= set(MODEL_DATACLASS_REGISTRY)
    base, default = (MODEL_DATACLASS_REGISTRY[n]() for n in ("lambda_bert_base", "lambda_bert"))
    assert all(getattr(base, k) == getattr(default, k) for k in ("encoder_layers", "encoder_embed_dim"))


def test_segments_are_derived_from_the_tokens():
    s, p, e = 0, 1, 2
    tokens = torch.tensor([[s, 5, 6, e, e, 7, e, p], [s, 5, 6, 7, 8, 9, 9, e], [s, e, e, 5, 6, e, p, p]])
    expected = [[0, 0, 0, 0, 1, 1, 1, 1], [0] * 8, [0, 0, 1, 1, 1, 1, 1, 1]]
    assert segment_ids(tokens, eos=e).tolist() == expected


@pytest.mark.parametrize("layers", ["all", "none", "1"])
@pytest.mark.parametrize("local", [5, 0])
def test_padding_and_what_stands_beside_changes_no_real_token(layers, local):
    task = make_task()
    model = make_model(task, lambda_layers=layers, lambda_local_context=local).double().eval()
    tokens = random_batch(task)["net_input"]["src_tokens"]
    together, _ = model(tokens)
    padding = tokens.eq(task.source_dictionary.pad())
    for row, padded, out in zip(tokens, padding, together, strict=True):
        alone, _ = model(row[~padded][None])
        torch.testing.assert_close(out[~padded], alone[0], atol=1e-10, rtol=1e-10)


def test_masked_positions_only_equal_the_full_logits_there():
    task = make_task()
    model, batch = make_model(task).eval(), random_batch(task)
    tokens, masked = batch["net_input"]["src_tokens"], batch["target"].ne(1)
    full, _ = model(tokens)
    for form in (masked, masked.flatten().nonzero().squeeze(1)):
        some, _ = model(tokens, masked_tokens=form)
        torch.testing.assert_close(some, full[masked])


def test_has_padding_spares_the_look_and_is_believed():
    task = make_task()
    model, tokens = make_model(task).eval(), random_batch(task)["net_input"]["src_tokens"]
    asked, told, wrong = (model(tokens, has_padding=answer)[0] for answer in (None, True, False))
    assert asked.equal(told) and not asked.allclose(wrong)
    one_by_one = torch.func.vmap(lambda row: model(row[None])[0][0])(tokens)  # vmap cannot check for padding
    torch.testing.assert_close(one_by_one, asked)


@pytest.mark.parametrize("options", [{}, {"lambda_layers": "0"}, {"post_norm": True}, {"checkpoint_activations": True}])
def test_features_of_some_positions_are_those_of_all(options):
    task = make_task()
    model, tokens = make_model(task, **options).train(), random_batch(task)["net_input"]["src_tokens"]
    whole, _ = model(tokens, features_only=True)
    wanted = torch.rand(tokens.shape) < 0.2
    chosen = wanted.flatten().nonzero().squeeze(1).flip(0)
    for masked, expected in ((wanted, whole[wanted]), (chosen, whole.flatten(0, 1)[chosen])):
        features, extra = model(tokens, features_only=True, masked_tokens=masked)
        torch.testing.assert_close(features, expected)
        assert extra["sentence_logits"] is None
    features.sum().backward()
    assert model.encoder.bert.encoder.layers[-1].fc1.weight.grad.any()


@pytest.mark.parametrize(
    "options",
    [{}, {"lambda_layers": "0"}, {"post_norm": True}, {"checkpoint_activations": True}, {"lambda_norm": "batch"}],
)
@pytest.mark.parametrize("objective", ["sop", "none"])
def test_the_top_layer_skips_what_no_loss_reads_and_no_gradient_changes(options, objective):
    task = make_task(objective)
    model, batch = make_model(task, **options).double().train(), random_batch(task)
    tokens, masked = batch["net_input"]["src_tokens"], batch["target"].ne(1).flatten().nonzero().squeeze(1)
    rows, found = [], []
    model.encoder.bert.encoder.layers[-1].fc1.register_forward_hook(lambda _, x, y: rows.append(y[..., 0].numel()))
    for everything in (True, False):
        model.zero_grad()
        logits, extra = model(tokens, masked_tokens=masked, return_all_hiddens=everything)
        order = extra["sentence_logits"]
        (logits.square().mean() + (0 if order is None else order.sin().sum())).backward()
        found.append([logits, *(p.grad for p in model.parameters()), *([] if order is None else [order])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)
    assert rows[0] == tokens.numel() and rows[-1] == len(masked) + len(tokens) * (objective == "sop")


def test_features_of_some_positions_where_layer_drop_left_no_layer():
    task = make_task()
    model = make_model(task, encoder_layers=1, encoder_layerdrop=0.99).train()
    tokens = random_batch(task)["net_input"]["src_tokens"]
    features, _ = model(tokens, features_only=True, masked_tokens=torch.tensor([3, 7]))
    assert features.shape == (2, 16)


def test_one_lambda_per_layer_and_none_for_softmax():
    task = make_task()
    model = make_model(task, encoder_layers=3, lambda_layers="0,2").eval()
    tokens = random_batch(task)["net_input"]["src_tokens"]
    _, extra = model(tokens, features_only=True, return_lambdas=True, return_all_hiddens=True)
    assert [None if x is None else tuple(x.shape) for x in extra["lambdas"]] == [(6, 4, 8), None, (6, 4, 8)]
    assert len(extra["inner_states"]) == 4 and extra["inner_states"][0].shape == (6, 20, 16)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_checkpointing_changes_no_gradient_and_counts_running_statistics_once(norm):
    task = make_task()
    tokens = random_batch(task)["net_input"]["src_tokens"]
    results = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        model = make_model(task, checkpoint_activations=checkpoint, dropout=0.1, lambda_norm=norm).train()
        torch.manual_seed(1)
        model(tokens)[0].square().sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append(grads | dict(model.named_buffers()))
    assert results[0].keys() == results[1].keys()
    assert any("running_var" in name for name in results[0]) == (norm == "batch")
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name])


def test_layer_drop_leaves_layers_out_in_training_only():
    task = make_task()
    model = make_model(task, encoder_layers=8, encoder_layerdrop=0.5)
    tokens = random_batch(task)["net_input"]["src_tokens"]
    run = lambda: len(model(tokens, features_only=True, return_all_hiddens=True)[1]["inner_states"]) - 1  # noqa: E731
    assert min(run() for _ in range(5)) < 8
    model.eval()
    assert run() == 8


def test_lambda_projections_have_their_own_initial_scale_and_all_else_has_bert_s():
    bert = make_model(encoder_embed_dim=64, encoder_attention_heads=4).encoder.bert
    layer = bert.encoder.layers[0]
    assert bert.embed_tokens.weight[4:].std().item() == pytest.approx(0.02, rel=0.2)
    assert not bert.embed_tokens.weight[1].any() and not layer.fc1.bias.any()
    assert layer.mixing.gate_proj.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert layer.mixing.q_proj.weight.std().item() == pytest.approx(64**-0.5, rel=0.2)
    assert layer.fc1.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_embeddings_are_tied():
    encoder = make_model().encoder.bert
    assert encoder.lm_head.weight is encoder.embed_tokens.weight


def test_positions_limit_the_input_only_where_there_is_a_table():
    task = make_task()
    tokens = torch.full((1, 40), 5)
    for options_ in ({"absolute_positions": "learned"}, {"lambda_local_context": 0}):
        with pytest.raises(ValueError, match="40 tokens exceed the model's 32 positions"):
            make_model(task, **options_)(tokens)
    for options_ in ({}, {"absolute_positions": "sinusoidal"}):
        logits, _ = make_model(task, **options_).eval()(tokens)
        assert logits.shape[1] == 40


@pytest.mark.parametrize("options_,learned", [
    ({}, False), ({"lambda_terms": "content"}, True), ({"absolute_positions": "learned"}, True),
    ({"lambda_layers": "none"}, True), ({"lambda_layers": "none", "attention_rotary": True}, False),
    ({"lambda_layers": "1"}, True), ({"lambda_layers": "1", "attention_rotary": True}, False),
    ({"lambda_layers": "1", "attention_rotary": True, "lambda_terms": "content"}, True),
    ({"absolute_positions": "none", "lambda_layers": "none"}, False),
])  # fmt: skip
def test_absolute_positions_are_learned_where_a_layer_sees_no_offsets(options_, learned):
    positions = make_model(**options_).encoder.bert.embed_positions
    assert (type(positions).__name__ == "LearnedPositions") == learned
    assert (positions is None) != learned


def test_position_lambda_alone_tells_the_order():
    task = make_task()
    model = make_model(task).eval()
    assert model.encoder.bert.embed_positions is None
    tokens = torch.tensor([[0, 5, 6, 7, 2], [0, 6, 5, 7, 2]])
    out, _ = model(tokens, features_only=True)
    assert (out[0, 3] - out[1, 3]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "change,message",
    [
        ({"lambda_local_context": 4}, "--lambda-local-context 4"),
        ({"encoder_attention_heads": 3}, "--encoder-embed-dim 16 is not divisible by --encoder-attention-heads 3"),
        ({"encoder_attention_heads": 3, "lambda_layers": "none"}, "--encoder-attention-heads 3"),
        ({"lambda_layers": "0,5"}, "--lambda-layers 0,5: layer 5 does not exist"),
        ({"lambda_layers": "some"}, "--lambda-layers some"),
        ({"lambda_layers": "3-1"}, "runs backwards"),
        ({"encoder_layers": 0}, "--encoder-layers 0"),
        ({"dropout": 1.5}, "--dropout 1.5"),
        ({"encoder_layerdrop": -0.1}, "--encoder-layerdrop -0.1"),
        ({"max_positions": 0}, "--max-positions 0"),
        ({"lambda_backend": "triton"}, "--lambda-backend triton: .*use --lambda-backend auto"),
        ({"lambda_local_context": 0, "max_positions": -1}, "--max-positions -1"),
        ({"attention_rotary": True, "lambda_layers": "1", "encoder_attention_heads": 16}, "--attention-rotary True"),
    ],
)
def test_bad_options_raise_at_construction(change, message):
    with pytest.raises(ValueError, match=message):
        make_model(make_task(), **change)


def test_half_precision_weights_as_of_fp16():
    task = make_task()
    for norm in ("layer", "batch"):
        model = make_model(task, lambda_norm=norm).half()
        logits, _ = model(random_batch(task)["net_input"]["src_tokens"])
        logits.float().square().mean().backward()
        assert logits.dtype == torch.float16 and logits.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_layer_lists():
    assert parse_layers("all", 3) == {0, 1, 2} and parse_layers("none", 3) == frozenset()
    assert parse_layers("0,2-3", 5) == {0, 2, 3}


def test_sentence_head_may_be_new_or_unwanted():
    with_head, without = make_model(make_task("sop")), make_model(make_task("none"))
    without.load_state_dict(with_head.state_dict())
    with_head.load_state_dict(without.state_dict())


def test_classification_head_of_fairseq_fine_tuning():
    task = make_task("none")
    model = make_model(task)
    model.register_classification_head("topic", num_classes=3)
    logits, _ = model(torch.tensor([[0, 5, 2]]), classification_head_name="topic")
    assert logits.shape == (1, 3)
    model.load_state_dict(model.state_dict())


@pytest.mark.parametrize("first", ["", "import fairseq_lambda"])
def test_registers_in_a_fresh_process_either_way_and_imports_no_triton(first):
    code = f"""{first}
import argparse, sys, torch
from fairseq import criterions, models, tasks, utils
utils.import_user_module(argparse.Namespace(user_dir={str(PACKAGE)!r}))
assert "lambda_bert_mini" in models.ARCH_MODEL_REGISTRY
assert "masked_lm_sop" in tasks.TASK_REGISTRY and "masked_lm_sop" in criterions.CRITERION_REGISTRY
from fairseq_lambda.modules import LambdaLayer
LambdaLayer(16, 2)(torch.randn(1, 9, 16)).sum().backward()
assert "triton" not in sys.modules and "fairseq_lambda.ops.triton.mix" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_start_as_large_as_tokens(kind):
    encoder = make_model(make_task(), absolute_positions=kind, encoder_embed_dim=64).encoder.bert
    tokens = torch.full((1, 20), 5)
    sums = []
    encoder.layernorm_embedding.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0]))
    encoder.embed(tokens)
    positions = sums[0] - encoder.embed_tokens(tokens) - encoder.embed_segments(torch.zeros_like(tokens))
    assert 0.7 < (positions.std() / encoder.embed_tokens.weight[4:].std()).item() < 1.4
