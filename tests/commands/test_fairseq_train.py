"""How a training process ends: interrupted, and with the process that started it."""

import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import environment

from fairseq_lambda.commands import __main__ as lambda_bert
from fairseq_lambda.commands import fairseq_train


def interrupted(*_):
    raise KeyboardInterrupt


def test_an_interrupted_training_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr("fairseq_cli.train.cli_main", interrupted)
    with pytest.raises(SystemExit) as end:
        fairseq_train.main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; the same command resumes\n"


def test_so_does_any_other_command(monkeypatch, capsys):
    monkeypatch.setattr("fairseq_lambda.commands.fill_mask.main", interrupted)
    with pytest.raises(SystemExit) as end:
        lambda_bert.main(["fill-mask", "a-model", "a text"])
    assert end.value.code == 130 and capsys.readouterr().err == "error: interrupted\n"


def test_only_lines_for_the_user_are_shown(monkeypatch, capsys):
    def log():
        for text in ("rebuild_batches = False", "detected shared parameter: a.bias <- b.bias", "{'_name': None}"):
            logging.getLogger("a.logger").info(text)
        logging.getLogger("a.logger").info("detected shared parameter: a.weight <- b.weight")
        logging.getLogger("a.logger").warning("rebuild_batches")

    monkeypatch.setattr("fairseq_cli.train.cli_main", log)
    fairseq_train.main()
    shown = [line.rpartition(" | ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["detected shared parameter: a.weight <- b.weight", "rebuild_batches"]


def test_it_ends_with_what_to_do_next(monkeypatch, capsys):
    monkeypatch.setattr("fairseq_cli.train.cli_main", lambda: None)
    flags = ["--task", "masked_lm_sop", "--save-dir", "my run"]
    for argv, expected in (
        (["one:two", *flags], "to score the model: lambda-bert evaluate 'my run' --data one\n"),
        (["one", "--task", "masked_lm_sop"], ""),
        (["one", *flags, "--task", "lambda_sentence_prediction"], ""),
        ([], ""),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["fairseq-train", *argv])
        fairseq_train.main()
        assert capsys.readouterr().out == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
def test_a_process_ends_with_the_one_that_started_it():
    """torchrun cannot stop its ranks when it is killed itself."""
    child = "import time; from fairseq_lambda.commands.fairseq_train import end_with_parent as end; "
    child += "end(); print('on', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    parent += "print(child.pid, flush=True); child.wait()"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as started:
        said = sorted(started.stdout.readline().strip() for _ in range(2))  # "on" is the later one in this order
        assert said[1] == "on"
        started.kill()
    for _ in range(100):
        if not alive(int(said[0])):
            return
        time.sleep(0.1)
    os.kill(int(said[0]), signal.SIGKILL)
    pytest.fail("it outlived the one that started it")


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
