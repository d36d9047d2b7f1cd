"""Two gloo ranks under torchrun on the CPU: the weights of one rank, restarts, two machines, one validation."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import make_model
from processes import ROOT, environment
from training import arguments, differences, load, state_of_training, train

from fairseq_lambda.checkpointing.ranks import check_ranks
from fairseq_lambda.commands.fairseq_train import ranks_from_torchrun

STILL = ["--dropout", "0", "--num-workers", "0"]  # every rank draws the same dropout masks, over other samples


def start(command, **variables):
    command = [str(c) for c in command]
    variables = environment(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", PYTHON=sys.executable, **variables)
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def launch(data, save_dir, updates, *flags, of=None, restarts=0, entry="fairseq_lambda.commands.fairseq_train"):
    """Start two ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    torchrun += ["--max-restarts", restarts, "-m", entry]
    command = [*torchrun, *arguments(data, save_dir, updates, *flags, of=of)[1:]]
    return start(command, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")  # as the script does, and says why


def finish(process, code=0):
    out = process.communicate(timeout=200)[0]
    assert process.returncode == code, out[-4000:]
    return out


def furthest(one, two):
    """Return the largest difference of two runs' weights."""
    one, two = load(one)["model"], load(two)["model"]
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


SGD = ["--optimizer", "sgd"]
# Where a gradient is nothing but rounding, Adam's step lr * m / (sqrt(v) + eps) has full length and any direction if
# eps is as small as usual. With an eps of the size of lr, a weight moves by no more than the gradient does.
ADAM = ["--optimizer", "adam", "--adam-eps", "1e-2"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer,update_freq,batch,valid_batch", [(SGD, 1, 4, 1), (ADAM, 2, 4, 16)])
def test_two_ranks_end_with_the_weights_of_one(toy_data, tmp_path, optimizer, update_freq, batch, valid_batch):
    """Two epochs; in the last update of each, a rank has no batch, or one batch less than --update-freq.

    The gradient is summed in another order: about 1e-7 relative. SGD passes that on to the weights, times the learning
    rate of 1e-2, gradients of order 1 and 22 updates, so 1e-7 or so; the bound is fifty times that. Adam with a large
    eps adds two moments, and keeps to the same bound.
    Batch norm has the next test: it sees one rank's micro-batches one by one, and those of two ranks at once.
    """
    flags = [*STILL, *optimizer, "--batch-size", batch]
    out = finish(launch(toy_data, tmp_path / "two", 22, *flags, "--update-freq", update_freq))
    assert "training on 2 devices" in out
    train(toy_data, tmp_path / "one", 22, *flags, "--update-freq", 2 * update_freq, "--batch-size-valid", valid_batch)
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one["optimizer_history"][-1]["num_updates"] == two["optimizer_history"][-1]["num_updates"] == 22
    assert one["extra_state"]["train_iterator"]["epoch"] == two["extra_state"]["train_iterator"]["epoch"] >= 2
    assert furthest(tmp_path / "one", tmp_path / "two") < 5e-6
    # and the validation of two ranks is that of one, whatever its batches
    shown = float(re.findall(r'"valid_mlm_loss": "([\d.]+)"', out)[-1])
    assert one["extra_state"]["val_loss"] == pytest.approx(shown, abs=1.1e-3)  # it is rounded to 3 digits


@pytest.mark.slow
@pytest.mark.parametrize("batch", [50, 100])
def test_batch_norm_of_two_ranks_is_that_of_one_batch(toy_data, tmp_path, batch):
    """An epoch of 84 to 91 samples is one update: each rank has a half of it, or one has all and the other none.

    Its statistics are sums over the ranks, so the micro-batches of two ranks are one batch, padded apart. Weights and
    running statistics then differ by the order of sums, as above.
    """
    flags = [*STILL, *SGD, "--lambda-norm", "batch"]
    finish(launch(toy_data, tmp_path / "two", 6, *flags, "--batch-size", batch))
    train(toy_data, tmp_path / "one", 6, *flags, "--batch-size", 100)
    for name in ("one", "two"):
        assert load(tmp_path / name)["extra_state"]["train_iterator"]["epoch"] == 7  # so an update is an epoch
    assert any("running_var" in name for name in load(tmp_path / "two")["model"])
    assert furthest(tmp_path / "one", tmp_path / "two") < 5e-6


@pytest.mark.slow
def test_another_number_of_processes_resumes_where_the_others_were(toy_data, tmp_path):
    """From one to two and back, in mid-epoch: each batch once, so the weights are those of one rank, as above.

    fairseq would skip the 14 batches that one process has had in each of two, but an epoch has 21 for both.
    """
    flags = [*STILL, *SGD]
    train(toy_data, tmp_path / "one", 18, *flags, "--update-freq", 2)
    train(toy_data, tmp_path / "run", 7, *flags, "--update-freq", 2, of=18)
    finish(launch(toy_data, tmp_path / "run", 14, *flags, of=18))
    train(toy_data, tmp_path / "run", 18, *flags, "--update-freq", 2)
    one, run = (load(tmp_path / name)["extra_state"]["train_iterator"] for name in ("one", "run"))
    assert one == run and one["epoch"] == 2 and one["iterations_in_epoch"] > 0
    assert furthest(tmp_path / "one", tmp_path / "run") < 5e-6


@pytest.mark.slow
def test_a_killed_rank_resumes_the_run(toy_data, tmp_path):
    """fairseq's own broadcast of the checkpoint to the other ranks fails with weights_only, so this resume is ours."""
    flags = [*STILL, "--save-interval-updates", 5, "--keep-interval-updates", 2, "--no-epoch-checkpoints"]
    finish(launch(toy_data, tmp_path / "whole", 60, *flags))
    process = launch(toy_data, tmp_path / "run", 60, *flags, restarts=1)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoint_*_1?.pt")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    os.kill(child_of_rank(process.pid, 1), signal.SIGKILL)
    out = finish(process)
    assert re.search(r"resuming from .* at \d+ updates", out)
    assert not differences(state_of_training(tmp_path / "whole"), state_of_training(tmp_path / "run"))


def child_of_rank(parent, rank):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((path / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and f"\0RANK={rank}\0".encode() in b"\0" + (path / "environ").read_bytes():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
def test_two_machines_by_the_script(toy_data, tmp_path):
    """The command of docs/long-runs.md, with two launchers on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = [ROOT / "scripts/train_lambda_bert.sh", "tiny", toy_data, "--save-dir", tmp_path / "run", "--updates", "6"]
    script += ["--tokens-per-sample", "32", "--batch-size", "4", "--lambda-local-context", "7", "--autocast", "none"]

    def machines(*flags, second=()):
        nodes = []
        for rank, more in enumerate(((), second)):
            torchrun = f"--nnodes 2 --node-rank {rank} --rdzv-backend c10d --rdzv-endpoint localhost:{port}"
            nodes.append(start([*script, "--nproc", "1", "--torchrun", torchrun, *flags, *more]))
        return nodes

    outs = [finish(node) for node in machines()]
    assert "training on 2 devices" in outs[0]
    assert load(tmp_path / "run")["optimizer_history"][-1]["num_updates"] == 6

    outs = [finish(node, code=1) for node in machines("--updates", "8", second=["--save-dir", tmp_path / "own"])]
    assert "error: not all processes have found the same checkpoint" in outs[1]


@pytest.mark.slow
def test_processes_that_would_train_alone_are_refused(toy_data, tmp_path):
    """fairseq-train under torchrun on a CPU trains a copy in each process, each writing over the other's files."""
    if torch.cuda.is_available():
        pytest.skip("fairseq finds torchrun's processes where it finds several GPUs")
    out = finish(launch(toy_data, tmp_path / "run", 2, entry="fairseq_cli.train"), code=1)
    assert "error: torchrun has started 2 processes but fairseq knows of 1" in out


def test_flags_for_torchrun():
    environment = {"WORLD_SIZE": "16", "RANK": "9", "LOCAL_RANK": "1"}
    assert ranks_from_torchrun({}, cpu=False) == ranks_from_torchrun({"WORLD_SIZE": "1", "RANK": "0"}, cpu=True) == []
    gpu = " ".join(ranks_from_torchrun(environment, cpu=False))
    assert "--distributed-world-size 16 --distributed-rank 9" in gpu and gpu.endswith("--device-id 1")
    assert "gloo" in ranks_from_torchrun(environment, cpu=True)


@pytest.mark.parametrize("changed", [None, "dropout", "encoder_layerdrop", "lambda_norm"])
def test_ranks_that_would_wait_for_each_other_in_different_layers_are_refused(changed):
    """Only with all three together: gloo aborts over sums of two sizes, or waits for a rank that is elsewhere."""
    options = {"dropout": 0.1, "encoder_layerdrop": 0.5, "lambda_norm": "batch"}
    options |= {changed: "layer" if changed == "lambda_norm" else 0.0} if changed else {}
    model = make_model(**options)
    world = SimpleNamespace(distributed_training=SimpleNamespace(distributed_world_size=2))
    trainer = SimpleNamespace(cfg=world, device=torch.device("cpu"), get_model=lambda: model)
    refusal = contextlib.nullcontext() if changed else pytest.raises(SystemExit, match="^error: with --dropout, each")
    with refusal:
        check_ranks(trainer)
