"""The criterion on packed samples: the loss is that of each document alone, and an idle batch changes nothing."""

import pytest
import torch
from conftest import make_model, make_task, random_documents, write_split

from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterion, MaskedLMSOPCriterionConfig

HYBRID = {"lambda_layers": "0", "attention_rotary": True}


@pytest.fixture
def packed(tmp_path):
    """A task and its dataset of packed samples."""
    task = make_task("none", tokens=100, data=tmp_path, pack_documents=True)
    task.dictionary.save(str(tmp_path / "dict.txt"))
    write_split(tmp_path, "train", random_documents(20))
    task.load_dataset("train")
    return task, task.dataset("train")


def loss_and_gradients(criterion, model, batch):
    model.zero_grad()
    loss, size, log = criterion(model, batch)
    loss.backward()
    return loss.detach(), size, log, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{}, HYBRID, {"lambda_norm": "rms", "lambda_local_context": 0}])
def test_the_loss_is_that_of_each_document_alone(packed, options):
    task, data = packed
    criterion = MaskedLMSOPCriterion(MaskedLMSOPCriterionConfig(), task)
    model, few = make_model(task, **options), range(len(data) - 4, len(data))
    batch = data.collater([data[i] for i in few])
    loss, size, log, gradients = loss_and_gradients(criterion, model, batch)
    assert log["mlm_loss"] > 0 and sum(map(len, batch["net_input"]["document_lengths"])) > 6

    alone, sizes, expected = 0, 0, {}
    for i in few:
        sample, at = data[i], 0
        for length in sample["document_lengths"]:
            part = {**sample, **{key: sample[key][at : at + length] for key in ("source", "target")}}
            one = data.collater([{**part, "document_lengths": [length]}])
            del one["net_input"]["document_lengths"]
            more, masked, _, gradient = loss_and_gradients(criterion, model, one)
            alone, sizes, at = alone + more, sizes + masked, at + length
            expected = {name: expected.get(name, 0) + g for name, g in gradient.items()}
    assert sizes == size
    torch.testing.assert_close(loss, alone, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_an_idle_batch_has_no_loss_no_gradient_and_no_statistics(packed, norm):
    task, data = packed
    criterion = MaskedLMSOPCriterion(MaskedLMSOPCriterionConfig(), task)
    model = make_model(task, lambda_norm=norm, **HYBRID).train()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    loss, size, _, gradients = loss_and_gradients(criterion, model, data.collater([]))
    assert loss == 0 and size == 0
    assert all(not gradient.any() for gradient in gradients.values())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
