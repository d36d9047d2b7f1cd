"""The real scripts, one after another, as a user runs them: text in, a mask filled in a folder that has moved."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
SMALL = "--encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --tokens-per-sample 128 --batch-size 8 --num-workers 0"


def run(*command, ok=True, **environment):
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [str(c) for c in command], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    assert (done.returncode == 0) == ok, done.stdout[-4000:]
    return done.stdout


def write_corpus(folder, articles=30):
    """A corpus in WikiText's file layout, sentences of a tiny grammar."""
    folder.mkdir()
    rng = random.Random(0)
    things = "river town bridge castle army ship road king song film book team".split()
    places = "north south spring summer winter London Paris Rome".split()
    for split, count in (("train", articles), ("valid", 4), ("test", 4)):
        lines = []
        for i in range(count):
            lines += [" ", f" = {split} {rng.choice(things)} {i} = ", " ", " = = History = = ", " "]
            for _ in range(3):
                sentences = [
                    f"The {rng.choice(things)} of the {rng.choice(things)} was built in {rng.choice(places)} , "
                    f"near the {rng.choice(things)} ."
                    for _ in range(4)
                ]
                lines.append(f" {' '.join(sentences)} ")
        (folder / f"wiki.{split}.tokens").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a user's folder")
    write_corpus(folder / "text")
    out = run(ROOT / "scripts/preprocess_wikitext.sh", folder / "text", "--vocab-size", 60, "--dest", folder / "data")
    assert (folder / "data/report.json").is_file(), out
    return folder


def train(workspace, name, updates, *flags, ok=True):
    return run(
        ROOT / "scripts/train_lambda_bert.sh", "tiny", workspace / "data", "--save-dir", workspace / name,
        *("--updates", 12, "--max-update", updates, *SMALL.split(), "--autocast", "none", *flags), ok=ok,
    )  # fmt: skip


def test_train_resume_evaluate_export_move_fill(workspace):
    out = train(workspace, "run", 6)
    assert "lambda_bert_tiny" in out.splitlines()[0]  # the command it runs
    assert (workspace / "run/checkpoint_last.pt").is_file()
    out = train(workspace, "run", 12)
    assert "resuming from" in out and re.search(r"Loaded checkpoint .*\(epoch \d+ @ 6 updates\)", out)
    assert "num_updates 12" in out and "mlm_ppl" in out

    before = (workspace / "run/checkpoint_last.pt").read_bytes()
    assert "nothing left to do" in train(workspace, "run", 12)
    assert (workspace / "run/checkpoint_last.pt").read_bytes() == before

    scores = workspace / "scores.json"
    out = run(ROOT / "scripts/evaluate.sh", workspace / "run", "--data", workspace / "data", "--json", scores)
    splits = json.loads(scores.read_text())["splits"]
    assert set(splits) == {"valid", "test"} and "| valid |" in out
    assert 1 < splits["test"]["mlm_ppl"] < 1000 and splits["test"]["pairs"] > 0
    other = run(
        ROOT / "scripts/evaluate.sh", workspace / "run", "--data", workspace / "data", "--batch-size", 1,
        *("--json", workspace / "other.json"),
    )  # fmt: skip
    again = json.loads((workspace / "other.json").read_text())["splits"]
    for split, r in splits.items():
        assert again[split]["mlm_ppl"] == pytest.approx(r["mlm_ppl"], rel=1e-4), other
        assert again[split]["masked_tokens"] == r["masked_tokens"] and again[split]["sop_acc"] == r["sop_acc"]

    validate = [sys.executable, "-m", "fairseq_cli.validate", workspace / "data", "--user-dir", ROOT / "fairseq_lambda"]
    validate += [
        "--task",
        "masked_lm_sop",
        "--criterion",
        "masked_lm_sop",
        "--path",
        workspace / "run/checkpoint_best.pt",
    ]
    validate += ["--batch-size", "8", "--required-batch-size-multiple", "1", "--cpu", "--log-format", "simple"]
    out = run(*validate, PYTHONPATH=str(ROOT))
    shown = float(re.search(r"valid \| .*mlm_ppl ([\d.]+)", out).group(1))
    assert shown == pytest.approx(splits["valid"]["mlm_ppl"], rel=1e-2)

    run(ROOT / "scripts/export.sh", workspace / "run", "--dest", workspace / "exported", "--scores", scores)
    card = (workspace / "exported/README.md").read_text()
    assert "lambda_bert_tiny" in card and "masked-LM perplexity" in card
    shutil.move(workspace / "exported", workspace / "elsewhere")
    shutil.move(workspace / "data", workspace / "data-moved")
    try:
        fill = [sys.executable, "-m", "fairseq_lambda.commands.fill_mask"]
        out = run(*fill, workspace / "elsewhere", "The <mask> was built .", PYTHONPATH=str(ROOT))
    finally:
        shutil.move(workspace / "data-moved", workspace / "data")
    assert "The <mask> was built ." in out


@pytest.mark.parametrize("flags", [
    ["--lambda-layers", "none", "--update-freq", "2"],
    ["--sentence-objective", "nsp", "--lambda-norm", "batch", "--lambda-local-context", "0", "--encoder-layerdrop=.5"],
    ["--sentence-objective", "none", "--no-token-positional-embeddings", "--checkpoint-activations"],
    ["--mask-whole-words", "--short-sample-prob", "0.3", "--autocast", "bfloat16", "--lambda-norm", "rms"],
])  # fmt: skip
def test_variants_train(workspace, tmp_path, flags):
    out = train(workspace, tmp_path.name, 2, *flags)
    assert "num_updates 2" in out and "nan" not in out.split("done training")[0].split("train_inner")[-1]


def test_hydra_trains_from_the_yaml_of_the_package(workspace, tmp_path):
    command = [sys.executable, "-m", "fairseq_cli.hydra_train", "--config-dir", ROOT / "fairseq_lambda/config"]
    command += ["--config-name", "pretrain", "model=lambda_bert_tiny", "common.cpu=true", "dataset.batch_size=8"]
    command += [f"task.data='{workspace / 'data'}'".replace("a user's folder", "a user\\'s folder")]
    command += [f"checkpoint.save_dir={tmp_path / 'run'}", "optimization.max_update=2", f"hydra.run.dir={tmp_path}"]
    run(*command, PYTHONPATH=str(ROOT), FAIRSEQ_LAMBDA=str(ROOT / "fairseq_lambda"))
    state = torch.load(tmp_path / "run/checkpoint_last.pt", weights_only=True)
    assert state["model"]["encoder.bert.embed_tokens.weight"].shape[1] == 128
    assert sum(k.endswith("mixing.q_proj.weight") for k in state["model"]) == 2


@pytest.mark.parametrize("command,message", [
    (["train_lambda_bert.sh", "huge", "x"], "error: unknown size 'huge'"),
    (["train_lambda_bert.sh", "mini"], "error: a size and a data folder are needed"),
    (["train_lambda_bert.sh", "mini", "no-such-folder"], "error: no-such-folder holds no dict.txt"),
    (["train_lambda_bert.sh", "mini", "DATA", "--updates", "x"], "error: --updates x"),
    (["evaluate.sh", "no-such-folder", "--data", "x"], "error: no-such-folder: no such folder"),
    (["export.sh", "no-such-folder", "--dest", "out"], "error: no-such-folder: no such folder"),
    (["preprocess_wikitext.sh", "no-such-corpus"], "error: "),
])  # fmt: skip
def test_bad_input_is_one_readable_line(workspace, command, message):
    script, *arguments = [str(workspace / "data") if c == "DATA" else c for c in command]
    out = run(ROOT / "scripts" / script, *arguments, ok=False)
    lines = [line for line in out.splitlines() if not line.startswith(("INFO", "usage"))]
    assert lines[-1].startswith(message) and "Traceback" not in out


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (ROOT / "scripts").glob("*.sh") if p.name != "environment.sh")
)
def test_help(script):
    assert "usage:" in run(ROOT / "scripts" / script, "--help")


@pytest.mark.parametrize("preload", [None, "libdl.so.2", ""])
def test_a_run_on_the_cpu_gets_tcmalloc_where_there_is_one(workspace, tmp_path, preload):
    """Unless LD_PRELOAD is set. The stand-in for Python answers the script, and then shows what it was given."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = - ] && echo 0 none libm.so.6 || echo "preload=$LD_PRELOAD"\n')
    python.chmod(0o755)
    environment = {"PYTHON": str(python)} | ({} if preload is None else {"LD_PRELOAD": preload})
    out = run(ROOT / "scripts/train_lambda_bert.sh", "mini", workspace / "data", **environment)
    assert out.splitlines()[-1] == f"preload={'libm.so.6' if preload is None else preload}"


@pytest.mark.parametrize("name,size", [("pretrain", "mini"), ("wikitext103", "base")])
def test_the_yaml_says_what_the_script_says(workspace, name, size):
    from hydra import compose, initialize_config_dir

    out = run(ROOT / "scripts/train_lambda_bert.sh", size, workspace / "data", "--dry-run", "--autocast", "bfloat16")
    words = shlex.split(out)
    # 1.1 is what fairseq's own calls of hydra set; a newer one would stay set for all tests of this process
    with initialize_config_dir(str(ROOT / "fairseq_lambda/config"), version_base="1.1"):
        cfg = compose(name, overrides=["task.data=x"])
    assert cfg.model._name == words[words.index("--arch") + 1] == f"lambda_bert_{size}"
    for group in ("task", "dataset", "optimizer", "lr_scheduler", "optimization", "checkpoint"):
        for key, value in cfg[group].items():
            if key in ("_name", "data"):
                continue
            flag = f"--{key.replace('_', '-')}"
            if value is True:
                assert flag in words
            else:
                said = words[words.index(flag) + 1]
                value = value[0] if key == "lr" else value
                assert said.replace(" ", "") == value if isinstance(value, str) else float(said) == value, flag
