"""The heads: their losses against the formulas, what the top layer leaves out for them, other sizes and precisions."""

import pytest
import torch
import torch.nn.functional as F
from small_port import batch, labelled, small

from fairseq_lambda.huggingface import (
    LambdaBertForMaskedLM,
    LambdaBertForPreTraining,
    LambdaBertForQuestionAnswering,
    LambdaBertForSequenceClassification,
    LambdaBertForTokenClassification,
)


def test_masked_lm_loss_and_its_sparse_form():
    ids, mask, labels = labelled()
    model = small(LambdaBertForMaskedLM)
    out = model(ids, mask, labels=labels)
    expected = F.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(out.loss, expected)
    sparse = model.train()(ids, mask, labels=labels)
    torch.testing.assert_close(sparse.loss, expected)
    torch.testing.assert_close(sparse.logits, out.logits[labels.ne(-100)])
    model.config.sparse_prediction = False
    assert model(ids, mask, labels=labels).logits.shape == out.logits.shape
    model.config.sparse_prediction = True
    nothing = model(ids, mask, labels=torch.full_like(labels, -100)).loss
    nothing.backward()
    assert nothing == 0


def test_pretraining_loss_is_the_sum():
    ids, mask, labels = labelled()
    model = small(LambdaBertForPreTraining, sentence_loss_weight=0.5)
    order = torch.tensor([0, 1, -100])
    out = model(ids, mask, labels=labels, next_sentence_label=order)
    sentence = F.cross_entropy(out.sentence_logits, order)
    torch.testing.assert_close(out.loss, model(ids, mask, labels=labels).loss + 0.5 * sentence)
    assert model(ids, mask, next_sentence_label=torch.full((3,), -100)).loss == 0


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", [LambdaBertForMaskedLM, LambdaBertForPreTraining])
def test_in_training_the_top_layer_skips_what_no_loss_reads(kind, left):
    ids, mask, labels = labelled()
    if left:
        ids, mask, labels = (x.flip(1) for x in (ids, mask, labels))
    model = small(kind).double().train()
    given = {"labels": labels, "token_type_ids": torch.zeros_like(ids)}
    if kind is LambdaBertForPreTraining:
        given["next_sentence_label"] = torch.tensor([0, 1, 1])
    rows, found = [], []
    model.lambda_bert.core.encoder.layers[-1].fc1.register_forward_hook(lambda _, x, y: rows.append(y[..., 0].numel()))
    for everything in (True, False):
        model.zero_grad()
        out = model(ids, mask, output_hidden_states=everything, **given)
        out.loss.backward()
        found.append([out.loss, out[1], *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)
    assert rows[0] == ids.numel() and rows[1] == 32 + len(ids) * (kind is LambdaBertForPreTraining)


@pytest.mark.parametrize(
    "labels, options, problem",
    [
        (torch.tensor([0, 2, 1]), {"num_labels": 3}, "single_label_classification"),
        (torch.tensor([[0.0, 1], [1, 1], [0, 0]]), {"num_labels": 2}, "multi_label_classification"),
        (torch.tensor([0.5, 2, -1]), {"num_labels": 1}, "regression"),
    ],
)
def test_the_three_problem_types(labels, options, problem, tmp_path):
    ids, mask = batch()
    losses = {
        "single_label_classification": lambda x: F.cross_entropy(x, labels),
        "multi_label_classification": lambda x: F.binary_cross_entropy_with_logits(x, labels),
        "regression": lambda x: F.mse_loss(x[:, 0], labels),
    }
    for given in (None, problem):
        model = small(LambdaBertForSequenceClassification, problem_type=given, **options)
        out = model(ids, mask, labels=labels)
        torch.testing.assert_close(out.loss, losses[problem](out.logits))
        assert model.config.problem_type == problem


def test_the_mean_of_all_tokens_may_be_classified():
    ids, mask = batch()
    model = small(LambdaBertForSequenceClassification, num_labels=3, classifier_pooling="mean").eval()
    logits = model(ids, mask).logits
    for row, real, found in zip(ids, mask, logits, strict=True):
        features = model.lambda_bert(row[None, real.bool()]).last_hidden_state[0]
        torch.testing.assert_close(found, model.classifier(model.lambda_bert.pooler(features.mean(0))))
    with pytest.raises(ValueError, match="classifier_pooling=max: choose one of cls, mean"):
        small(LambdaBertForSequenceClassification, classifier_pooling="max")


def test_a_regressions_number_is_in_the_labels_units():
    ids, mask = batch()
    model = small(LambdaBertForSequenceClassification, num_labels=1, problem_type="regression")
    plain = model(ids, mask).logits
    model.config.label_mean, model.config.label_deviation = 3.0, 2.0
    torch.testing.assert_close(model(ids, mask).logits, 3 + 2 * plain)
    model.config.problem_type = None  # a single number says it too, before the first loss as after it
    for _ in range(2):
        torch.testing.assert_close(model(ids, mask, labels=torch.ones(3)).logits, 3 + 2 * plain)
        model.eval()


def test_a_regressions_number_is_not_rounded_to_bfloat16():
    ids, mask = batch()
    model = small(LambdaBertForSequenceClassification, num_labels=1, label_mean=1997.0, label_deviation=10.0)
    exact = model(ids, mask).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(ids, mask).logits - exact).abs().max() < 0.5
    assert (model.bfloat16()(ids, mask).logits - exact).abs().max() < 0.5


def test_token_labels_and_spans():
    ids, mask, labels = labelled()
    labels = torch.where(labels.ge(0), labels % 3, -100)
    out = small(LambdaBertForTokenClassification, num_labels=3)(ids, mask, labels=labels)
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits.flatten(0, 1), labels.flatten()))
    start, end = torch.tensor([1, 2, 99]), torch.tensor([3, 2, 99])  # the last answer is outside of the text
    out = small(LambdaBertForQuestionAnswering)(ids, mask, start_positions=start, end_positions=end)
    expected = (F.cross_entropy(out.start_logits[:2], start[:2]) + F.cross_entropy(out.end_logits[:2], end[:2])) / 2
    torch.testing.assert_close(out.loss, expected)


@pytest.mark.parametrize("cls", [LambdaBertForMaskedLM, LambdaBertForPreTraining])
def test_resizing_keeps_the_head(cls):
    ids, mask = batch()
    model = small(cls)
    before, bias = model(ids, mask)[0], model.lm_head.bias.clone()
    size = model.config.vocab_size
    for new in (size + 5, size):
        model.resize_token_embeddings(new)
        assert model.lm_head.weight is model.get_input_embeddings().weight and model.lm_head.out_features == new
        logits = model(ids, mask)[0]
        assert logits.shape[-1] == new and torch.equal(model.lm_head.bias[:size], bias)
        torch.testing.assert_close(logits[..., :size], before)


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal"])
def test_bfloat16(positions, tmp_path):
    ids, mask, labels = labelled()
    model = small(LambdaBertForMaskedLM, absolute_positions=positions)
    exact = model(ids, mask).logits
    model.save_pretrained(tmp_path)
    low = LambdaBertForMaskedLM.from_pretrained(tmp_path, dtype="bfloat16")
    out = low(ids, mask, labels=labels)
    assert out.logits.dtype == torch.bfloat16 and out.loss.dtype == torch.float32
    assert (out.logits.float() - exact)[mask.bool()].abs().max() < 0.05 * exact.abs().max()
