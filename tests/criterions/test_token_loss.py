"""The loss a few rows at a time is that of the whole."""

import pytest
import torch

from fairseq_lambda.criterions import token_loss as module
from fairseq_lambda.criterions.token_loss import token_loss, token_loss_reference

IGNORED = 1


def sample(rows, vocabulary, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, vocabulary, generator=generator).mul(3).to(dtype)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    labels[: rows // 2 : 2] = logits[: rows // 2 : 2].argmax(-1)  # so that some are right
    labels[3::5] = IGNORED
    return logits, labels


def results(function, logits, labels, factor=1.0):
    logits = logits.clone().requires_grad_()
    loss, correct = function(logits, labels, IGNORED)
    (factor * loss).backward()
    return loss.detach(), correct, logits.grad


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 7), (13, 5), (37, 1001)])
@pytest.mark.parametrize("factor", [1.0, 0.375])
def test_loss_gradient_and_count_are_those_of_the_reference(rows, vocabulary, factor, monkeypatch):
    monkeypatch.setattr(module, "ENTRIES", 4 * vocabulary + 1)  # 4 rows at a time
    logits, labels = sample(rows, vocabulary)
    loss, correct, gradient = results(token_loss, logits, labels, factor)
    expected_loss, expected_correct, expected = results(token_loss_reference, logits.float(), labels, factor)
    torch.testing.assert_close(loss, expected_loss)
    assert correct == expected_correct and gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.float(), expected, rtol=2**-7, atol=1e-30)  # two roundings
    assert not gradient[labels == IGNORED].any()


@pytest.mark.parametrize("labels", [[], [IGNORED, IGNORED]])
def test_nothing_to_predict_is_a_loss_of_zero(labels):
    labels = torch.tensor(labels, dtype=torch.int64)
    loss, correct, gradient = results(token_loss, torch.randn(len(labels), 9).bfloat16(), labels)
    assert loss == correct == 0 and not gradient.any()


def test_logits_that_are_not_finite_show():
    logits, labels = sample(6, 11)
    logits[0, 2] = float("nan")
    assert token_loss(logits, labels, IGNORED)[0].isnan()


def test_without_a_gradient_there_is_none_to_keep():
    logits, labels = sample(6, 11)
    with torch.no_grad():
        loss, _ = token_loss(logits, labels, IGNORED)
    assert not loss.requires_grad


def test_other_precisions_take_the_reference():
    for dtype in (torch.float32, torch.float16):
        logits, labels = sample(6, 11, dtype)
        pairs = zip(results(token_loss, logits, labels), results(token_loss_reference, logits, labels), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
