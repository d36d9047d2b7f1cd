"""Updates equal to those of fairseq's Adam, for any factor of the gradients, and a state that either resumes from."""

import copy
import math

import pytest
import torch
from fairseq.optim import AMPOptimizer, FP16Optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from omegaconf import OmegaConf
from training import load, train, write_data

from fairseq_lambda.config import read_recipe
from fairseq_lambda.optim.fused_adam import FusedAdam, FusedAdamConfig

OPTIONS = {"adam_betas": "(0.9, 0.98)", "adam_eps": 1e-6, "weight_decay": 0.01, "lr": [1e-3], "tpu": False}


def pair(dtype=torch.float64, **options):
    """Return fairseq's optimizer and ours over equal weights, of odd sizes."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).to(dtype) * 0.02 for shape in ((37, 19), (5,), (), (1, 257))]
    ours = [torch.nn.Parameter(w.clone()) for w in weights]
    theirs = [torch.nn.Parameter(w.clone()) for w in weights]
    options = OPTIONS | options
    return FairseqAdam(FairseqAdamConfig(**options), theirs), FusedAdam(FusedAdamConfig(**options), ours)


def update(optimizer, number, max_norm=1.0, left_out=()):
    """What fairseq's trainer does in update ``number``, at a learning rate of its own; return the gradients' norm."""
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    optimizer.set_lr(3e-4 * (1 + math.sin(number)))
    for index, parameter in enumerate(optimizer.params):
        gradient = 64 * torch.randn(parameter.shape, generator=generator) * 10 ** (number % 3 - 1)
        parameter.grad = None if index in left_out else gradient.to(parameter.dtype)
    optimizer.multiply_grads(1 / 64)
    norm = None if parameter.dtype == torch.float64 else optimizer.clip_grad_norm(max_norm)  # fairseq's is for float32
    optimizer.step()
    return norm


def assert_equal(theirs, ours, tolerance=2e-8):
    for a, b in zip(theirs.params, ours.params, strict=True):
        torch.testing.assert_close(b, a, atol=tolerance, rtol=0)


def test_a_hundred_updates_are_those_of_fairseqs_adam():
    theirs, ours = pair()
    for number in range(100):
        for optimizer in (theirs, ours):
            update(optimizer, number)
    assert_equal(theirs, ours)


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_the_same_in_float32_with_clipping(max_norm):
    """Here both are 6e-8 off the exact result, after a hundred roundings of weights up to 0.08."""
    theirs, ours = pair(torch.float32)
    for number in range(100):
        norms = [update(optimizer, number, max_norm) for optimizer in (theirs, ours)]
        torch.testing.assert_close(*norms)
    assert_equal(theirs, ours, 1e-7)


def test_a_weight_without_a_gradient_falls_behind():
    """As in layer drop: its moments stay, and their bias correction uses its own number of updates."""
    theirs, ours = pair()
    for number in range(30):
        left_out = {1: (0,), 2: (1, 3)}.get(number % 4, ())
        for optimizer in (theirs, ours):
            update(optimizer, number, left_out=left_out)
    steps = [ours.optimizer.state[p]["step"] for p in ours.params]
    assert len(set(steps)) > 1 and steps == [theirs.optimizer.state[p]["step"] for p in theirs.params]
    assert_equal(theirs, ours)


@pytest.mark.parametrize("ours_first", [False, True])
def test_one_resumes_from_the_state_of_the_other(ours_first):
    whole, *halves = pair()[0], *(pair()[::-1] if ours_first else pair())
    for number in range(20):
        update(whole, number)
    for number in range(10):
        update(halves[0], number)
    halves[1].load_state_dict(copy.deepcopy(halves[0].state_dict()))
    with torch.no_grad():
        for a, b in zip(halves[0].params, halves[1].params, strict=True):
            b.copy_(a)
    for number in range(10, 20):
        update(halves[1], number)
    assert_equal(whole, halves[1])


def test_an_update_that_is_left_out_leaves_no_factor_behind():
    """fairseq skips one when the gradients overflow."""
    theirs, ours = pair(torch.float32)
    ours.multiply_grads(1e-3)
    ours.clip_grad_norm(1e-3)
    for optimizer in (theirs, ours):
        update(optimizer, 0)
    assert_equal(theirs, ours)


def test_a_run_changes_its_optimizer_and_resumes(tmp_path):
    data = write_data(tmp_path / "data")
    flags = ["--clip-norm", 1, "--weight-decay", 0.01, "--encoder-layerdrop", 0.2]
    train(data, tmp_path / "adam", 6, *flags)
    train(data, tmp_path / "both", 2, *flags, of=6)
    train(data, tmp_path / "both", 4, *flags, "--optimizer", "fused_adam", of=6)
    train(data, tmp_path / "both", 6, *flags)
    expected, found = load(tmp_path / "adam"), load(tmp_path / "both")
    assert found["optimizer_history"][-1]["num_updates"] == 6
    for name, weight in expected["model"].items():
        torch.testing.assert_close(found["model"][name], weight, atol=1e-6, rtol=1e-5, msg=name)


def test_gradients_and_moments_in_another_layout_of_memory_count_the_same():
    plain, turned = pair()[1], pair()[1]
    for number in range(3):
        update(plain, number)
        update(turned, number)
    matrix = next(iter(turned.params))
    state = turned.optimizer.state[matrix]
    state |= {name: state[name].t().contiguous().t() for name in ("exp_avg", "exp_avg_sq")}  # as a checkpoint may
    matrix.grad = matrix.grad.t().contiguous().t()  # as torch makes them under create_graph=True
    plain.step()
    turned.step()
    assert_equal(plain, turned, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_refused(dtype):
    with pytest.raises(ValueError, match=f"--optimizer fused_adam does not update weights in {dtype}: use --fp16"):
        FusedAdam(FusedAdamConfig(**OPTIONS), [torch.nn.Parameter(torch.ones(1, dtype=dtype))])


def test_options_of_fairseqs_other_kernels_are_refused():
    with pytest.raises(ValueError, match="--fp16-adam-stats does not work with --optimizer fused_adam: use "):
        FusedAdam(FusedAdamConfig(**OPTIONS, fp16_adam_stats=True), [torch.nn.Parameter(torch.ones(1))])


def test_it_is_the_recipes():
    assert read_recipe("mini").optimizer._name == "fused_adam"


def test_under_fp16_the_same_updates():
    """fairseq's --fp16 keeps the factor of the gradients, which includes the loss scale, and passes it on."""
    common = {"fp16_init_scale": 4, "fp16_scale_window": 8, "fp16_scale_tolerance": 0.0, "threshold_loss_scale": None}
    common |= {"min_loss_scale": 1e-4, "fp16_no_flatten_grads": True, "bf16": False, "fp16": True}
    found = []
    for name, config in (("adam", FairseqAdamConfig), ("fused_adam", FusedAdamConfig)):
        options = vars(config(**OPTIONS)) | {"_name": name}
        cfg = OmegaConf.create({"common": common, "optimizer": options})
        generator = torch.Generator().manual_seed(1)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=generator).half())
        optimizer = FP16Optimizer.build_optimizer(cfg, [weight])
        for _ in range(20):
            optimizer.zero_grad()
            optimizer.backward((weight.float() * torch.randn(7, 5, generator=generator)).sum())
            optimizer.multiply_grads(0.25)
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
        (master,) = optimizer.fp32_optimizer.params
        found.append(master.detach())
    torch.testing.assert_close(*found, atol=3e-6, rtol=0)  # 20 roundings of weights up to 2


@pytest.mark.parametrize("overflow", [math.inf, math.nan])
def test_under_amp_an_overflow_is_repeated_as_with_fairseqs_adam(overflow):
    """--amp skips the step of gradients that overflow and does the batch again; nothing may remain of the first try."""
    common, found = {"fp16_init_scale": 128.0, "min_loss_scale": 1e-4}, []
    for name, config in (("adam", FairseqAdamConfig), ("fused_adam", FusedAdamConfig)):
        cfg = OmegaConf.create({"common": common, "optimizer": vars(config(**OPTIONS)) | {"_name": name}})
        generator = torch.Generator().manual_seed(1)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=generator))
        optimizer = AMPOptimizer.build_optimizer(cfg, [weight])
        optimizer._grad_scaler = torch.amp.GradScaler("cpu", init_scale=128.0)  # fairseq's needs a GPU
        for update in range(6):
            data = torch.randn(7, 5, generator=generator)
            for factor in (overflow, 1.0) if update == 2 else (1.0,):
                optimizer.zero_grad()
                optimizer.backward((weight * data).sum() * factor)
                optimizer.multiply_grads(0.25)
                optimizer.clip_grad_norm(1.0)
                optimizer.step()
        found.append(weight.detach())
    assert torch.isfinite(found[1]).all()
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
