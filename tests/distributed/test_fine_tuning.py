"""``lambda-bert finetune --nproc 2`` on a CPU: two gloo ranks."""

import json
import re
import subprocess
import sys

import pytest
from fine_tunings import FAST, topics, write_tsv
from processes import environment
from test_hub_interface import trained  # noqa: F401  a fixture


@pytest.mark.slow
def test_two_ranks_fine_tune_and_score_the_whole_split(trained, tmp_path):  # noqa: F811
    """The validation by which they select has the predictions of both: its score is that of the model alone."""
    train = write_tsv(tmp_path / "train.tsv", topics(60))
    command = [sys.executable, "-m", "fairseq_lambda.commands", "finetune", trained, "--train", train, *FAST]
    command += ["--save-dir", tmp_path / "run", "--nproc", 2, "--valid", 0.35, "--max-epoch", 2, "--lr", "1e-3"]
    variables = environment(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    done = subprocess.run(list(map(str, command)), env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training on 2 devices" in (tmp_path / "run" / "train.log").read_text()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["splits"]["valid"]
    best = max(float(shown) for shown in re.findall(r"accuracy ([\d.]+)", done.stdout))
    assert scores["texts"] == 21 and best == round(100 * scores["accuracy"], 2)
