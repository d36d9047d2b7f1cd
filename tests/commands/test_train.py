"""``lambda-bert train``: what it launches, with which flags, in which environment."""

import shlex
import sys

import pytest
from fairseq import options

from fairseq_lambda.commands import train


@pytest.fixture
def launched(toy_data, monkeypatch, capsys):
    """Return a function that runs the command and returns what it would execute, and in which environment."""
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(train, "bfloat16_is_faster", lambda device: True)

    def launch(*arguments, size="tiny"):
        result = []
        monkeypatch.setattr(train.os, "execvpe", lambda *call: result.append(call))
        train.main([size, str(toy_data), *arguments])
        (program, command, environment), = result  # fmt: skip
        assert shlex.split(capsys.readouterr().out) == command and program == command[0] == sys.executable
        return command, environment

    return launch


def value(words, flag):
    assert words.count(flag) == 1
    return words[words.index(flag) + 1]


def parse(command):
    """Return the options as fairseq-train reads them."""
    arguments = command[command.index("fairseq_lambda.commands.fairseq_train") + 1 :]
    return options.parse_args_and_arch(options.get_training_parser(), arguments)


OWN = {  # an option that goes with the recipe's choice
    "lr-scheduler": "--total-num-update", "optimizer": "--adam-betas", "criterion": "--autocast",
    "task": "--tokens-per-sample",
}  # fmt: skip
SCHEDULERS = ["inverse_sqrt", "cosine", "fixed", "reduce_lr_on_plateau", "tri_stage --phase-ratio [0.1,0.4,0.5]"]
OPTIMIZERS = ["adafactor", "sgd", "nag", "adamax", "adadelta", "adagrad"]


@pytest.mark.parametrize("what,choice", [
    *(("lr-scheduler", choice) for choice in SCHEDULERS), *(("optimizer", choice) for choice in OPTIMIZERS),
    ("criterion", "masked_lm"), ("task", "masked_lm"),
])  # fmt: skip
@pytest.mark.parametrize("join", [" ", "="])
def test_another_choice_drops_the_recipes_options_of_the_old_one(launched, what, choice, join):
    command, _ = launched(*f"--{what}{join}{choice}".split())
    args = parse(command)  # fairseq ends with "unrecognized arguments" where one is left
    assert getattr(args, what.replace("-", "_")) == choice.split()[0] and args.lr == [0.002] and args.max_update == 1000
    assert {kind for kind, option in OWN.items() if option not in command} == {what}


@pytest.mark.parametrize("choice", ["adam", "fused_adam"])
def test_adam_keeps_the_recipes_options_of_fused_adam(toy_data, capsys, choice):
    train.main(["mini", str(toy_data), "--dry-run", "--optimizer", choice, "--adam-eps=1e-8"])
    words = shlex.split(capsys.readouterr().out)
    said = [value(words, flag) for flag in ("--optimizer", "--adam-betas", "--weight-decay")]
    assert said == [choice, "(0.9, 0.98)", "0.01"] and "--adam-eps" not in words and "--adam-eps=1e-8" in words


@pytest.mark.parametrize("flags,autocast", [
    ([], "bfloat16"), (["--autocast", "none"], "none"), (["--autocast=bfloat16"], "bfloat16"), (["--fp16"], "none"),
    (["--amp"], "none"), (["--memory-efficient-fp16"], "none"), (["--fp16", "--autocast", "bfloat16"], "bfloat16"),
])  # fmt: skip
def test_autocast_is_the_machines_but_for_float16(launched, flags, autocast):
    command, _ = launched(*flags)
    assert value(command, "--autocast") == autocast
    assert value(command, "--required-seq-len-multiple") == ("1" if autocast == "none" else "8")


def test_updates_and_folders(launched, toy_data):
    command, _ = launched("--updates", "6000", size="base")
    said = ("--max-update", "--total-num-update", "--warmup-updates", "--save-interval-updates", "--lr", "--arch")
    assert [value(command, flag) for flag in said] == ["6000", "6000", "600", "2000", "0.0005", "lambda_bert_base"]
    as_fairseq_train, _ = launched("--max-update", "6000", size="base")
    assert [value(as_fairseq_train, flag) for flag in said] == [value(command, flag) for flag in said]
    assert value(command, "--save-dir") == f"checkpoints/lambda_bert_base-{toy_data.name}"
    assert value(launched("--save-dir", "here")[0], "--save-dir") == "here"


def test_processes(launched, monkeypatch):
    one = [sys.executable, "-m", "fairseq_lambda.commands.fairseq_train"]
    assert launched()[0][:3] == launched("--nproc", "1")[0][:3] == one
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    assert launched("--nproc=2")[0][:6] == [*torchrun, "--standalone", "--nproc-per-node", "2"]
    for arguments in (["--torchrun", "--nnodes 2 --rdzv-id a"], ["--torchrun=--nnodes 2 --rdzv-id a"]):
        command, environment = launched(*arguments)
        assert command[:10] == [*torchrun, "--nnodes", "2", "--rdzv-id", "a", "--nproc-per-node", "1", "-m"]
        assert environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert "--standalone" in launched("--torchrun", "--standalone")[0]
    assert launched()[0].count("--cpu") == launched("--cpu")[0].count("--cpu") == 1
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 4)
    assert value(launched()[0], "--nproc-per-node") == "4" and "--cpu" not in launched()[0]
    assert launched("--cpu")[0][:3] == one


@pytest.mark.parametrize("preload", [None, "other.so", ""])
@pytest.mark.parametrize("gpus", [0, 1])
def test_environment(launched, monkeypatch, preload, gpus):
    """tcmalloc on a CPU if it is installed; whatever the user has set stays."""
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(train.sys, "platform", "linux")
    monkeypatch.setattr(train, "find_library", lambda name: {"tcmalloc": "libtcmalloc.so.4"}.get(name))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    if preload is None:
        monkeypatch.delenv("LD_PRELOAD", raising=False)
    else:
        monkeypatch.setenv("LD_PRELOAD", preload)
    _, environment = launched()
    assert environment.get("LD_PRELOAD") == (preload if gpus or preload is not None else "libtcmalloc.so.4")
    assert environment["PYTHONWARNINGS"] == "error"


@pytest.mark.parametrize(
    ("malloc", "libc", "given", "kept"),
    [
        (None, ("glibc", "2.36"), {}, True),
        (None, ("glibc", "2.31"), {}, False),  # would take 128 KiB for the threshold
        (None, ("", ""), {}, False),
        ("libtcmalloc.so.4", ("glibc", "2.36"), {}, False),
        (None, ("glibc", "2.36"), {"MALLOC_TRIM_THRESHOLD_": "1"}, False),
    ],
)
def test_glibc_keeps_freed_memory_unless_another_decides(launched, monkeypatch, malloc, libc, given, kept):
    monkeypatch.setattr(train.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(train.sys, "platform", "linux")
    monkeypatch.setattr(train, "find_library", lambda name: malloc)
    monkeypatch.setattr(train.platform, "libc_ver", lambda: libc)
    for name in train.KEEPS_MEMORY:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _, environment = launched()
    assert {name: environment.get(name) for name in train.KEEPS_MEMORY} == (
        train.KEEPS_MEMORY if kept else {name: given.get(name) for name in train.KEEPS_MEMORY}
    )


def test_dry_run_launches_nothing(toy_data, monkeypatch, capsys):
    monkeypatch.setattr(train.os, "execvpe", None)
    train.main(["mini", str(toy_data), "--dry-run", "--lambda-layers", "none"])
    assert capsys.readouterr().out.endswith("--lambda-layers none\n")


@pytest.mark.parametrize("arguments,message", [
    (["huge", "DATA"], "error: unknown size 'huge': tiny, mini"), (["mini"], "error: the following arguments are req"),
    (["mini", "no-such-folder"], "error: no-such-folder is not a folder: make it with lambda-bert preprocess"),
    (["mini", "DATA", "--updates", "0"], "error: --updates 0: must be a whole number of at least 1"),
    (["mini", "DATA", "--nproc=x"], "error: --nproc x: must be a whole number of at least 1"),
    (["mini", "DATA", "--autocast", "int4"], "error: argument --autocast: invalid choice: 'int4'"),
    (["mini", "DATA", "--save-dir"], "error: argument --save-dir: expected one argument"),
])  # fmt: skip
def test_wrong_usage_is_one_line(toy_data, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        train.main([str(toy_data) if word == "DATA" else word for word in arguments])
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.startswith(message) and err.count("\n") == 1
