"""The commands of docs/data.md run as they stand: further pretraining, and the shards of a SLURM array."""

import json
import re

import pytest
import torch
from pages import Page, bash
from preparing import as_text, plain_documents
from training import MODEL, load, train

from fairseq_lambda.corpora.prepared_folder import REPORT

PAGE = Page("docs/data.md")
pytestmark = pytest.mark.slow


def test_the_two_lines_of_further_pretraining(prepared, tmp_path):
    train(prepared, tmp_path / "checkpoints/my-run", 4)
    (tmp_path / "my-text.txt").write_text(as_text(plain_documents(200, seed=3)).lower())
    flags = (
        "--tokens-per-sample 32 --batch-size 4 --absolute-positions learned --autocast none --cpu --updates 3 --lr 0"
    )
    script = PAGE.commands("Two lines")[0].replace("lambda_bert.sh mini", "lambda_bert.sh tiny")
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
    script = PAGE.commands("As a SLURM array")[0]
    first = re.search(r'--wrap \\\n#\s+"(.*)"\)', script)[1]
    for change in (("--vocab-size 16000", "--vocab-size 64"), ("--valid-fraction 0.001", "--valid-fraction 0.1")):
        assert change[0] in first
        first = first.replace(*change)
    bash(first, tmp_path)
    for task in ("1", "2"):
        bash(script, tmp_path, SLURM_ARRAY_TASK_ID=task)
    reports = [json.loads((tmp_path / f"data-bin/part-{part}" / REPORT).read_text()) for part in range(3)]
    assert sum(r["splits"][split]["documents"] for r in reports for split in r["splits"]) == 240
    command = re.search(r"When all have finished: `(.*?)`", PAGE.text, re.DOTALL)[1].replace("train mini", "train tiny")
    out = bash(f"{command} --dry-run", tmp_path)
    assert "data-bin/part-0:data-bin/part-1:data-bin/part-2" in out
