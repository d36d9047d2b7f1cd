"""Class weights, losses against torch's, and scores of a whole split however it is batched."""

import pytest
import torch
import torch.nn.functional as F
from fairseq.logging import metrics

from fairseq_lambda.criterions.fine_tuning import FineTuningCriterion, class_weights, decide
from fairseq_lambda.finetuning.labels import Labels

CLASSES = Labels("classification", ["a", "b"], counts=[3, 1], examples=4)
SEVERAL = Labels("multilabel", ["a", "b"], counts=[3, 1], examples=4)


def test_class_weights():
    assert class_weights(None, CLASSES) is None
    assert class_weights("balanced", CLASSES) == pytest.approx([4 / 6, 2])
    assert class_weights("balanced", SEVERAL) == pytest.approx([1 / 3, 3])
    assert class_weights("b=2.5", CLASSES) == [1, 2.5]
    assert class_weights("x=y=3", Labels("classification", ["x=y", "z"])) == [3, 1]
    for option in ("b", "b=x", "c=1", "b=0", "b=-1", "b=inf"):
        with pytest.raises(ValueError, match=f"--class-weights {option}: .* is not NAME=WEIGHT"):
            class_weights(option, CLASSES)
    with pytest.raises(ValueError, match="regression has no classes"):
        class_weights("balanced", Labels("regression", []))


def criterion(labels, weights=None):
    made = FineTuningCriterion.__new__(FineTuningCriterion)
    torch.nn.Module.__init__(made)
    made.labels, made.weights = labels, None if weights is None else torch.tensor(weights)
    return made


def test_losses():
    logits, target = torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1])
    weighted = criterion(CLASSES, [1.0, 3.0]).loss(logits, target)
    each = F.cross_entropy(logits, target, reduction="none")
    assert weighted == pytest.approx((each * torch.tensor([1.0, 3, 3, 1, 3])).sum().item())
    both = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)
    expected = F.binary_cross_entropy_with_logits(logits[:2], both.float()) * 2
    assert criterion(SEVERAL).loss(logits[:2], both) == pytest.approx(expected.item())
    numbers = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = criterion(Labels("regression", [])).loss(torch.tensor([[0.0], [4.0]]), numbers)
    assert found == pytest.approx(1 + 4)


def test_decisions():
    logits = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    assert decide(CLASSES, logits).tolist() == [0, 1]
    assert decide(SEVERAL, logits).tolist() == [[1, 0], [1, 1]]
    assert decide(Labels("regression", []), torch.tensor([[0.5]])).tolist() == [0.5]


def log(labels, predicted, target, words=()):
    return {
        "loss": torch.tensor(float(len(target))), "sample_size": len(target), "labels": labels,
        "predicted": torch.tensor(predicted), "target": torch.tensor(target), "words": torch.tensor(words).long(),
    }  # fmt: skip


def test_scores_are_of_the_split_and_not_means_over_batches():
    """F1 of the split is 2/3; the mean over the two batches would be 1/2."""
    with metrics.aggregate(new_root=True) as found:
        FineTuningCriterion.reduce_metrics([log(CLASSES, [1], [1])])
        FineTuningCriterion.reduce_metrics([log(CLASSES, [0, 1], [1, 1]), log(CLASSES, [0, 1], [0, 0])])
    values = found.get_smoothed_values()
    assert values["f1"] == pytest.approx(66.67) and values["accuracy"] == 60 and values["loss"] == pytest.approx(1.443)
    assert not any(key.startswith("_") for key in values)


def test_correlations_and_errors_are_not_percentages():
    numbers = Labels("regression", [], examples=4)
    with metrics.aggregate(new_root=True) as found:
        FineTuningCriterion.reduce_metrics([log(numbers, [0.0, 1.0, 2.0], [0.5, 1.5, 2.5])])
    values = found.get_smoothed_values()
    assert (values["mse"], values["pearson"], values["spearman"]) == (0.25, 1, 1)


def test_spans_end_with_their_text_in_validation():
    labels = Labels("tagging", ["O", "B-A", "I-A"])
    with metrics.aggregate(new_root=True) as found:
        FineTuningCriterion.reduce_metrics([log(labels, [1, 2, 2], [1, 2, 2], [2, 1])])
        FineTuningCriterion.reduce_metrics([log(labels, [0, 0], [0, 1], [2])])
    assert found.get_smoothed_values()["span_recall"] == pytest.approx(66.67)
