"""The commands and the Python of docs/fine-tuning.md run as they stand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fine_tunings import sentences, topics, write_tsv
from processes import environment
from test_hub_interface import trained  # noqa: F401  a fixture

PAGE = (Path(__file__).parents[1] / "docs/fine-tuning.md").read_text(encoding="utf-8")
TINY = "--max-epoch 1 --batch-size 16 --cpu".split()  # the last flag of a name wins


@pytest.mark.slow
def test_everything_on_the_page_runs(trained, tmp_path):  # noqa: F811
    (tmp_path / "my-bert").symlink_to(trained)
    for folder in ("topics", "cola"):
        (tmp_path / folder).mkdir()
    for name, seed in (("train", 0), ("test", 1)):
        write_tsv(tmp_path / f"topics/{name}.tsv", topics(60, seed))
    for name, seed in (("train", 0), ("dev", 1)):
        rows = [("gj04", label != "a", "", text) for label, text in topics(60, seed)]
        write_tsv(tmp_path / f"cola/{name}.tsv", rows[1:], rows[0])
    (tmp_path / "new.txt").write_text("the river\n\nthe town\n")
    tagged = "\n\n".join("\n".join(f"{w} {t}" for w, t in zip(*s, strict=True)) for s in sentences(40))
    (tmp_path / "tags.conll").write_text(tagged + "\n")

    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in lines_of(block)]
    assert len(commands) == 7
    for command in commands:
        words = shlex.split(command)
        if "finetune" in words:
            command += " " + shlex.join(TINY)
        command = command.replace("lambda-bert", f"{shlex.quote(sys.executable)} -m fairseq_lambda.commands")
        variables = environment(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
        done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, command + done.stdout[-2000:] + done.stderr[-2000:]
    assert len((tmp_path / "labels.tsv").read_text().splitlines()) == 1 + 3
    assert "mean (deviation)" not in (tmp_path / "my-topics/README.md").read_text()

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        scope = {}
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block, scope)
    finally:
        os.chdir(here)
    assert len(scope["tagger"].tag("They won.")) == 3


def lines_of(block):
    return block.replace("\\\n", " ").strip().splitlines()
