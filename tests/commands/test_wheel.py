"""A wheel, installed into another folder, trains there: the commands, the recipes and the plugin come with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training import load

from fairseq_lambda import __version__

ROOT = Path(__file__).parents[2]
SHORT = "--updates 2 --tokens-per-sample 32 --batch-size 4 --num-workers 0 --lambda-local-context 7".split()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "site"  # setuptools builds in its source folder
    shutil.copytree(ROOT / "fairseq_lambda", source / "fairseq_lambda", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob(f"fairseq_lambda-{__version__}-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


def run(installed, *command):
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    out = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*map(str, command)], env=environment, cwd=installed.parent, timeout=200, **out)
    assert done.returncode == 0 and str(ROOT / "fairseq_lambda") not in done.stdout, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_lambda_bert_trains_and_exports(installed, toy_data, tmp_path):
    lambda_bert = [sys.executable, installed / "bin/lambda-bert"]
    out = run(installed, *lambda_bert, "train", "tiny", toy_data, "--save-dir", tmp_path / "run", *SHORT)
    assert f"--user-dir {installed / 'fairseq_lambda'} " in out and "num_updates 2" in out
    run(installed, *lambda_bert, "export", tmp_path / "run", "--dest", tmp_path / "model")
    assert (tmp_path / "model/model.safetensors").is_file()


@pytest.mark.slow
def test_the_wheel_has_the_included_model(installed):
    text = "The president of the United <mask> lives in Washington."
    out = run(installed, sys.executable, installed / "bin/lambda-bert", "fill-mask", "lambda_bert_mini-enwiki", text)
    assert out.startswith(f"{text}\n  States ")
    assert not list(installed.glob("fairseq_lambda/pretrained/*.md"))  # what the card is made of stays in the checkout


@pytest.mark.slow
def test_hydra_trains_by_the_wheels_own_configuration(installed, toy_data, tmp_path):
    command = [sys.executable, "-m", "fairseq_cli.hydra_train", "--config-path", "pkg://fairseq_lambda.config"]
    command += ["--config-name", "pretrain", "model=lambda_bert_tiny", f"task.data={toy_data}", "common.cpu=true"]
    command += ["task.tokens_per_sample=32", "model.lambda_local_context=7", "optimization.max_update=2"]
    run(installed, *command, f"hydra.run.dir={tmp_path}", "dataset.num_workers=0")
    state = load(tmp_path / "checkpoints")
    assert state["cfg"]["common"]["user_dir"] == str(installed / "fairseq_lambda")
    assert state["cfg"]["lr_scheduler"]["total_num_update"] == 2 and state["cfg"]["model"]["dropout"] == 0
