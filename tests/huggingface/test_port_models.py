"""The models: the core's numbers, inputs and outputs as transformers' users know them, weights that survive."""

import re

import pytest
import torch
import torch.nn.functional as F
from small_port import batch, config, labelled, small

from fairseq_lambda.huggingface import (
    LambdaBertForMaskedLM,
    LambdaBertForPreTraining,
    LambdaBertForQuestionAnswering,
    LambdaBertForSequenceClassification,
    LambdaBertForTokenClassification,
    LambdaBertModel,
)

CLASSES = (
    LambdaBertModel,
    LambdaBertForMaskedLM,
    LambdaBertForPreTraining,
    LambdaBertForSequenceClassification,
    LambdaBertForTokenClassification,
    LambdaBertForQuestionAnswering,
)
KINDS = {
    "lambda": {},
    "hybrid": {"lambda_layers": "1", "max_position_embeddings": 64},
    "rotary": {"lambda_layers": "none", "attention_rotary": True},
    "global": {"local_context": 0, "max_position_embeddings": 64},
    "batch": {"lambda_norm": "batch", "post_norm": True, "lambda_gate": "none"},
    "rms": {"lambda_norm": "rms", "absolute_positions": "sinusoidal", "dim_u": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_cores(kind):
    model = small(**KINDS[kind])
    ids, mask = batch()
    out = model(ids, mask, output_lambdas=True, output_hidden_states=True)
    features, states, lambdas = model.core(ids, mask.eq(0), return_states=True, return_lambdas=True)
    assert torch.equal(out.last_hidden_state, features)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(out.lambdas, lambdas, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(out.hidden_states[:-1], states[:-1], strict=True))
    assert torch.equal(out.hidden_states[-1], features)
    assert torch.equal(model(ids).last_hidden_state, features)  # the mask is found by pad_token_id
    pooled = model.pooler.dense(features[:, 0]).tanh()
    assert torch.equal(out.pooler_output, pooled)
    assert [x is not None for x in out.lambdas] == [layer.mixing.__class__.__name__ == "LambdaLayer" for layer in
                                                    model.core.encoder.layers]  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_every_weight_survives_a_folder(cls, tmp_path):
    for number, options in enumerate(KINDS.values()):
        model = small(cls, **options)
        model.save_pretrained(tmp_path / str(number))
        again, info = cls.from_pretrained(tmp_path / str(number), output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert not again.training
        ours, theirs = model.state_dict(), again.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        if hasattr(again, "lm_head"):
            assert again.lm_head.weight is again.get_input_embeddings().weight


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_starts_as_the_core_would_have_it(kind, tmp_path):
    small(**KINDS[kind]).save_pretrained(tmp_path)
    model = LambdaBertForPreTraining.from_pretrained(tmp_path)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.layer_norm.weight, torch.ones(32))
    for weight in (model.lm_head.dense.weight, model.sentence_classifier.weight):
        assert 0.01 < weight.std() < 0.03
    assert all(not p.any() for p in (model.lm_head.bias, model.lm_head.dense.bias, model.sentence_classifier.bias))
    fresh = LambdaBertModel(config(**KINDS[kind]))
    assert not fresh.get_input_embeddings().weight[1].any()  # padding


@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_either_side_changes_nothing(kind):
    model = small(**KINDS[kind])
    ids, mask = batch()
    right = model(ids, mask, ids.eq(2).cumsum(1).gt(1).long())
    for row in (1, 2):
        length = int(mask[row].sum())
        shifted = torch.cat([ids[row, length:], ids[row, :length]])[None]
        left = model(shifted, shifted.ne(1).long())
        torch.testing.assert_close(left.last_hidden_state[0, -length:], right.last_hidden_state[row, :length])
        torch.testing.assert_close(left.pooler_output[0], right.pooler_output[row])
        alone = model(ids[row : row + 1, :length])
        torch.testing.assert_close(alone.last_hidden_state[0], right.last_hidden_state[row, :length])


def test_given_mask_and_segments_win_over_those_derived():
    model, (ids, mask) = small(pad_token_id=0), batch()
    ids[:, 3] = 0  # with BERT's vocabularies padding is 0, here it stands in the middle
    mask[:, 3] = 1
    assert not torch.allclose(model(ids, mask).last_hidden_state, model(ids).last_hidden_state)
    given = model(ids, mask, token_type_ids=torch.zeros_like(ids)).last_hidden_state
    assert not torch.allclose(given, model(ids, mask).last_hidden_state)
    derived = F.pad(ids.eq(2)[:, 1:] & ids.eq(2)[:, :-1], (1, 0)).cumsum(1).clamp(max=1)
    assert torch.equal(model(ids, mask, derived).last_hidden_state, model(ids, mask).last_hidden_state)
    assert torch.equal(model(ids, mask.bool()).last_hidden_state, model(ids, mask).last_hidden_state)


def test_tokenizers_without_an_end_of_text_or_padding(tmp_path):
    """transformers 4.57's Trainer copies None from such a tokenizer into the configuration."""
    ids, mask = batch()
    model = small()
    model.config.eos_token_id = model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    again = LambdaBertModel.from_pretrained(tmp_path)
    expected = model(ids, mask, torch.zeros_like(ids)).last_hidden_state
    assert torch.equal(again(ids, mask).last_hidden_state, expected)


@pytest.mark.parametrize("kind", ["lambda", "hybrid"])
def test_embeddings_in_place_of_ids(kind):
    model, (ids, mask) = small(**KINDS[kind]), batch()
    segments = torch.zeros_like(ids)
    embeddings = model.get_input_embeddings()(ids)
    found = model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    assert torch.equal(found, model(ids, mask, segments).last_hidden_state)


def test_attention_weights_are_those_that_the_layer_uses():
    model, (ids, mask) = small(lambda_layers="0", attention_rotary=True), batch()
    out = model(ids, mask, output_attentions=True, output_hidden_states=True)
    assert out.attentions[0] is None and out.attentions[1].shape == (3, 4, 12, 12)
    assert not out.attentions[1][2, :, :, 9:].any()
    layer = model.core.encoder.layers[1]
    x = layer.mixing_layer_norm(out.hidden_states[1])
    values = layer.mixing.qkv_proj(x).unflatten(-1, (3, 4, -1))[:, :, 2].transpose(1, 2)
    mixed = layer.mixing.out_proj((out.attentions[1] @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed[mask.bool()], layer.mixing(x, mask.eq(0))[mask.bool()])
    with pytest.raises(ValueError, match="output_lambdas"):
        small()(ids, output_attentions=True)


def test_no_attention_weights_where_layers_are_left_out():
    model, (ids, mask) = small(lambda_layers="0", attention_rotary=True, layerdrop=0.5), batch()
    assert len(model(ids, mask, output_attentions=True).attentions) == 2
    with pytest.raises(ValueError, match=r"layerdrop=0\.5.*eval"):
        model.train()(ids, mask, output_attentions=True)


def test_tuples_are_in_the_seeds_order():
    model, (ids, mask) = small(output_lambdas=True), batch()
    features, pooled, lambdas = model(ids, mask, return_dict=False)
    assert features.shape == (3, 12, 32) and pooled.shape == (3, 32)
    assert [x.shape for x in lambdas] == [(3, 4, 8)] * 2


@pytest.mark.parametrize(
    "inputs", [{}, {"input_ids": torch.zeros(1, 2).long(), "inputs_embeds": torch.zeros(1, 2, 32)}]
)
def test_ids_or_embeddings(inputs):
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        small()(**inputs)


def test_a_mask_of_another_shape_is_refused():
    ids, mask = batch()
    for wrong in (mask[:, None], mask[:1], mask[:, :1], mask.T, torch.ones(3, 9)):
        with pytest.raises(ValueError, match=rf"attention_mask {re.escape(str(tuple(wrong.shape)))}: .*\(3, 12\)"):
            small()(ids, wrong)
        with pytest.raises(ValueError, match="attention_mask"):
            small()(inputs_embeds=torch.zeros(3, 12, 32), attention_mask=wrong)
        with pytest.raises(ValueError, match="attention_mask"):
            small(LambdaBertForPreTraining).train()(ids, wrong, labels=ids)


def test_longer_texts_than_in_training_where_positions_allow():
    ids = torch.randint(4, 50, (1, 700))
    assert small()(ids).last_hidden_state.shape == (1, 700, 32)
    with pytest.raises(ValueError, match="700 tokens exceed the model's 64 positions"):
        small(**KINDS["hybrid"])(ids)


def test_hidden_states_are_those_of_all_positions():
    ids, mask = batch()
    with pytest.raises(ValueError, match="leave out at"):
        small()(ids, mask, at=torch.tensor([1, 5]), output_hidden_states=True)
    out, some = small()(ids, mask), small()(ids, mask, at=torch.tensor([1, 5]))
    torch.testing.assert_close(some.last_hidden_state, out.last_hidden_state.flatten(0, 1)[[1, 5]])
    assert some.pooler_output is None


@pytest.mark.parametrize("kind", ["lambda", "batch"])
def test_gradient_checkpointing_gives_the_same_gradients(kind):
    ids, mask, labels = labelled()
    found = []
    for enable in (False, True):
        model = small(LambdaBertForMaskedLM, **KINDS[kind]).train()
        if enable:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model(ids, mask, labels=labels).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
