"""The commands of docs/data.md run as they stand: further pretraining, and the shards of a SLURM array."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from preparing import as_text, plain_documents
from processes import environment
from training import MODEL, load, train

from fairseq_lambda.corpora.prepared_folder import REPORT

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/data.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


def bash(script, folder, **variables):
    """Run lines of bash in ``folder``, with ``lambda-bert`` and ``scripts/`` of here; return what they print."""
    if not (folder / "scripts").exists():
        (folder / "scripts").symlink_to(ROOT / "scripts")
        (folder / "bin").mkdir()
        (folder / "bin/lambda-bert").write_text(f'#!/bin/sh\nexec "{ROOT}/scripts/lambda_bert.sh" "$@"\n')
        (folder / "bin/lambda-bert").chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = environment(PYTHON=sys.executable, OMP_NUM_THREADS="1", PATH=path, **variables)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=variables, text=True, capture_output=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def block(after):
    """Return the first block of bash after some words of the page."""
    return re.search(r"```bash\n(.*?)```", PAGE[PAGE.index(after) :], re.DOTALL)[1]


def test_the_two_lines_of_further_pretraining(prepared, tmp_path):
    train(prepared, tmp_path / "checkpoints/my-run", 4)
    (tmp_path / "my-text.txt").write_text(as_text(plain_documents(200, seed=3)).lower())
    flags = (
        "--tokens-per-sample 32 --batch-size 4 --absolute-positions learned --autocast none --cpu --updates 3 --lr 0"
    )
    script = block("Two lines").replace("lambda_bert.sh mini", "lambda_bert.sh tiny")
    assert script.count("\n") == 2
    out = bash(f"{script.rstrip()} {flags} {' '.join(MODEL)}\n", tmp_path)
    new = load(tmp_path / "checkpoints/lambda_bert_tiny-my-text")
    before = load(tmp_path / "checkpoints/my-run", "checkpoint_best.pt")
    assert new["optimizer_history"][-1]["num_updates"] == 3, out
    assert all(torch.equal(new["model"][key], value) for key, value in before["model"].items())


def test_the_array_job_gives_shards_that_train_together(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "dump").mkdir()
    documents = plain_documents(240)
    for part in range(3):
        lines = [json.dumps({"text": "\n".join(document)}) for document in documents[part::3]]
        packed = zstandard.ZstdCompressor().compress("\n".join(lines).encode())
        (tmp_path / f"dump/part-{part}.jsonl.zst").write_bytes(packed)
    script = block("As a SLURM array")
    first = re.search(r'--wrap \\\n#\s+"(.*)"\)', script)[1]
    for change in (("--vocab-size 16000", "--vocab-size 64"), ("--valid-fraction 0.001", "--valid-fraction 0.1")):
        assert change[0] in first
        first = first.replace(*change)
    bash(first, tmp_path)
    for task in ("1", "2"):
        bash(script, tmp_path, SLURM_ARRAY_TASK_ID=task)
    reports = [json.loads((tmp_path / f"data-bin/part-{part}" / REPORT).read_text()) for part in range(3)]
    assert sum(r["splits"][split]["documents"] for r in reports for split in r["splits"]) == 240
    command = re.search(r"When all have ended: `(.*?)`", PAGE, re.DOTALL)[1].replace("train mini", "train tiny")
    out = bash(f"{command} --dry-run", tmp_path)
    assert "data-bin/part-0:data-bin/part-1:data-bin/part-2" in out


def test_packages_and_flags_that_the_page_names_are_there():
    shown = subprocess.run(
        [sys.executable, "-m", "fairseq_lambda.commands", "preprocess", "--help"],
        env=environment(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    of_others = {"--updates", "--lr", "--lambda-layers", "--finetune-from-model", "--requeue", "--wrap", "--parsable"}
    of_others |= {"--dependency", "--array", "--mem", "--time", "--job-name", "--cpus-per-task"}
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) - of_others:
        assert flag in shown, flag
    assert "zstd" in (ROOT / "setup.py").read_text() and shutil.which("bash")
