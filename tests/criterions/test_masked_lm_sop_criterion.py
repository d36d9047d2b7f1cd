"""The loss adds up over any division of a batch, and the log has the expected sums."""

import math

import pytest
import torch
from conftest import make_model, make_task, random_batch
from fairseq.logging import metrics

from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterion, MaskedLMSOPCriterionConfig
from fairseq_lambda.modules.lambda_layer import NORMS


def make(task, weight=1.0, autocast="none"):
    cfg = MaskedLMSOPCriterionConfig(sentence_loss_weight=weight, autocast=autocast)
    return MaskedLMSOPCriterion(cfg, task)


def rows(batch, keep):
    out = {k: batch[k][keep] for k in ("id", "target", "sentence_target")}
    inputs = batch["net_input"]
    tokens, lengths = inputs["src_tokens"][keep], inputs["src_lengths"][keep]
    out["net_input"] = {"src_tokens": tokens, "src_lengths": lengths, "has_padding": bool(tokens.eq(1).any())}
    out["masked_positions"] = out["target"].flatten().ne(1).nonzero().squeeze(1)
    return out | {"nsentences": len(keep), "ntokens": int(lengths.sum())}


def gradients(model, criterion, batches):
    """The gradients that fairseq's trainer gets from several micro-batches: their sum over summed sample sizes."""
    model.zero_grad()
    total = 0
    for batch in batches:
        loss, size, _ = criterion(model, batch)
        loss.backward()
        total += size
    return {n: p.grad / total for n, p in model.named_parameters()}


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    """Uneven halves: the second has no labelled pair at all, and fewer masks."""
    task = make_task()
    model, criterion = make_model(task).double(), make(task)
    batch = random_batch(task)
    whole = gradients(model, criterion, [batch])
    parts = gradients(model, criterion, [rows(batch, [0, 1, 3, 4, 5]), rows(batch, [2])])
    assert whole.keys() == parts.keys() and all(g is not None for g in whole.values())
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("options", [*({"lambda_norm": norm} for norm in NORMS), {"lambda_layers": "none"}])
def test_a_batch_of_no_samples_changes_nothing(toy_data, options):
    """Not even batch norm's statistics; the gradient is zero and not NaN; nothing is logged."""
    task = make_task(data=toy_data)
    task.load_dataset("train")
    model = make_model(task, **options).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss, size, log = make(task)(model, task.datasets["train"].collater([]))
    loss.backward()
    assert loss == size == log["ntokens"] == log["nsentences"] == log["npairs"] == 0 and reduced([log]) == {}
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_loss_is_the_two_sums_and_sample_size_the_masked_tokens():
    task = make_task(tokens=40, mask_prob=0.25)
    model, batch = make_model(task).eval(), random_batch(task)
    masked = batch["target"].ne(1)
    logits, extra = model(batch["net_input"]["src_tokens"])
    cross_entropy = torch.nn.functional.cross_entropy
    mlm = cross_entropy(logits[masked], batch["target"][masked], reduction="sum")
    labels = batch["sentence_target"]
    sop = cross_entropy(extra["sentence_logits"], labels, ignore_index=-1, reduction="sum")
    loss, size, log = make(task, weight=0.5)(model, batch)
    assert size == masked.sum() and log["npairs"] == 5
    torch.testing.assert_close(loss, mlm + 0.5 * (40 * 0.25) * sop)
    torch.testing.assert_close(log["mlm_loss"], mlm.detach())
    torch.testing.assert_close(log["sop_loss"], sop.detach())


def reduced(logs):
    with metrics.aggregate(new_root=True) as agg:
        MaskedLMSOPCriterion.reduce_metrics(logs)
    return agg.get_smoothed_values()


def test_metrics_do_not_depend_on_how_a_split_is_batched():
    task = make_task()
    model, criterion, batch = make_model(task).eval(), make(task), random_batch(task)
    whole = reduced([criterion(model, batch)[2]])
    apart = reduced([criterion(model, rows(batch, [i]))[2] for i in range(6)])
    assert whole.keys() == apart.keys() >= {"loss", "mlm_loss", "mlm_ppl", "mlm_acc", "sop_loss", "sop_acc"}
    for key, value in whole.items():
        assert value == pytest.approx(apart[key], rel=1e-2), key  # fairseq rounds what it shows


def test_perplexity_is_of_the_masked_lm_alone():
    log = {"sample_size": 10, "mlm_loss": 20.0, "mlm_correct": 5, "npairs": 2, "sop_loss": 4.0, "sop_correct": 1}
    values = reduced([{**log, "loss": 99.0}])
    assert values["mlm_ppl"] == pytest.approx(math.exp(2.0), abs=0.01)
    assert (values["mlm_acc"], values["sop_acc"]) == (50.0, 50.0)


@pytest.mark.parametrize("masked", [0, 1, 31, 32, 33])
def test_idle_rows_of_the_head_are_not_counted(masked):
    """Neither in loss, accuracy nor gradient, although this model's bias makes it predict padding there."""
    task = make_task()
    model, batch = make_model(task).double(), random_batch(task, batch=12)
    batch["masked_positions"] = batch["masked_positions"][:masked]
    with torch.no_grad():
        model.encoder.bert.lm_head.bias[task.source_dictionary.pad()] = 9.0
    results = []
    for multiple in (1, 8):
        task.cfg.required_seq_len_multiple = multiple
        loss, size, log = make(task)(model, batch)
        model.zero_grad()
        loss.backward()
        results.append((loss.detach(), size, log, [p.grad.clone() for p in model.parameters()]))
    assert results[0][1] == results[1][1] == masked
    assert results[0][2]["mlm_correct"] == results[1][2]["mlm_correct"]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("multiple,rows", [(1, {33}), (8, {64})])
def test_rows_of_the_head_come_in_few_numbers(monkeypatch, multiple, rows):
    task = make_task()
    task.cfg.required_seq_len_multiple = multiple
    model, batch, seen = make_model(task), random_batch(task, batch=12), set()
    batch["masked_positions"] = batch["masked_positions"][:33]
    model.encoder.bert.lm_head.register_forward_hook(lambda _, inputs, out: seen.add(len(out)))
    make(task)(model, batch)
    assert seen == rows


def test_without_sentence_objective_no_head_and_no_sentence_log():
    task = make_task("none")
    model, batch = make_model(task), random_batch(task)
    del batch["sentence_target"]
    loss, _, log = make(task)(model, batch)
    loss.backward()
    assert "sop_loss" not in log and not any("sentence_head" in n for n, _ in model.named_parameters())
    assert all(p.grad is not None for p in model.parameters())  # DDP refuses unused ones


def test_autocast_computes_in_bfloat16_and_trains():
    task = make_task()
    model, batch = make_model(task), random_batch(task)
    seen = []
    model.encoder.bert.lm_head.dense.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    exact, _, _ = make(task)(model, batch)
    loss, _, _ = make(task, autocast="bfloat16")(model, batch)
    loss.backward()
    assert seen == [torch.float32, torch.bfloat16]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


def test_weight_zero_leaves_the_masked_lm_alone():
    task = make_task()
    loss, _, log = make(task, weight=0.0)(make_model(task), random_batch(task))
    assert loss.item() == log["mlm_loss"].item()
