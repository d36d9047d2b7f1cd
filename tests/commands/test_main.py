"""``lambda-bert`` itself: its help, and what it says where a command cannot be run."""

import re
import subprocess
import sys

import pytest
from processes import ROOT, wait_policy_when_torch_is_loaded

from fairseq_lambda.commands.__main__ import COMMANDS, main


@pytest.fixture(autouse=True)
def _logging_stays_as_it_is(monkeypatch):
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)


def test_help_lists_the_commands_and_imports_none(capsys):
    main(["--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: lambda-bert COMMAND") and all(f"\n  {name} " in out for name in COMMANDS)
    # without the package's own imports, which the commands cannot change
    code = (
        "import sys, types; package = types.ModuleType('fairseq_lambda'); "
        f"package.__path__ = [{str(ROOT / 'fairseq_lambda')!r}]; sys.modules['fairseq_lambda'] = package; "
        "from fairseq_lambda.commands.__main__ import main; main([]); "
        "print(sorted({'torch', 'fairseq'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout == f"{out}[]\n" and done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert not end.value.code and out.startswith(f"usage: lambda-bert {command} ")
    assert re.search(f"\nexamples?:\n  lambda-bert {command} ", out)


@pytest.mark.parametrize("given,found", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_told(given, found):
    code = "import sys; sys.argv[1:] = ['--help']; from lambda_bert_command import main; main()"
    assert wait_policy_when_torch_is_loaded(code, ROOT, given) == found


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])
    assert capsys.readouterr().err.startswith("error: unknown command 'fly': preprocess, train, ")


def test_a_python_without_torch_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fairseq_lambda.commands.train", raising=False)
    with pytest.raises(SystemExit, match="^error: .*torch.*: install the requirements"):
        main(["train"])


@pytest.mark.parametrize("arguments", [["export", "absent", "--dest", "x"], ["evaluate", "absent", "--data", "x"]])
def test_what_a_user_can_put_right_is_one_line(arguments):
    with pytest.raises(SystemExit, match="^error: absent: no such folder; [^\\n]*$"):
        main(arguments)
