"""The real scripts, one after another, as a user runs them: text in, a mask filled in a folder that has moved."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
SMALL = "--encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --tokens-per-sample 128 --batch-size 8 --num-workers 0"


def run(*command, ok=True, cwd=None, **environment):
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    out = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([str(c) for c in command], env=env, cwd=cwd, timeout=300, **out)
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
    assert re.search(r"^\S+ -m fairseq_lambda.commands.fairseq_train .* --arch lambda_bert_tiny ", out, re.MULTILINE)
    assert out.count("detected shared parameter") == 1  # the embedding, not the biases that layers do without
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
    validate += ["--path", workspace / "run/checkpoint_best.pt"]
    validate += "--task masked_lm_sop --criterion masked_lm_sop".split()
    validate += "--batch-size 8 --required-batch-size-multiple 1 --cpu --log-format simple".split()
    out = run(*validate, PYTHONPATH=str(ROOT))
    shown = float(re.search(r"valid \| .*mlm_ppl ([\d.]+)", out).group(1))
    assert shown == pytest.approx(splits["valid"]["mlm_ppl"], rel=1e-2)

    run(ROOT / "scripts/export.sh", workspace / "run", "--dest", workspace / "exported", "--scores", scores)
    card = (workspace / "exported/README.md").read_text()
    assert "lambda_bert_tiny" in card and "masked-LM perplexity" in card
    shutil.move(workspace / "exported", workspace / "elsewhere")
    shutil.move(workspace / "data", workspace / "data-moved")
    try:
        out = run(ROOT / "scripts/lambda_bert.sh", "fill-mask", workspace / "elsewhere", "The <mask> was built .")
    finally:
        shutil.move(workspace / "data-moved", workspace / "data")
    assert "The <mask> was built ." in out


@pytest.mark.parametrize("flags", [
    ["--lambda-layers", "none", "--update-freq", "2"],
    ["--sentence-objective", "nsp", "--lambda-norm", "batch", "--lambda-local-context", "0", "--encoder-layerdrop=.5"],
    ["--sentence-objective", "none", "--absolute-positions", "none", "--checkpoint-activations"],
    ["--mask-whole-words", "--short-sample-prob", "0.3", "--autocast", "bfloat16", "--lambda-norm", "rms"],
])  # fmt: skip
def test_variants_train(workspace, tmp_path, flags):
    out = train(workspace, tmp_path.name, 2, *flags)
    assert "num_updates 2" in out and "nan" not in out.split("done training")[0].split("train_inner")[-1]


def test_the_first_line_of_pretrain_yaml_trains(workspace, tmp_path):
    command = (ROOT / "fairseq_lambda/config/pretrain.yaml").read_text().splitlines()[0].removeprefix("# ").split()
    assert command[0] == "fairseq-hydra-train" and command[-1].startswith("task.data=")
    command[:1], command[-1:] = [sys.executable, "-m", "fairseq_cli.hydra_train"], ["model=lambda_bert_tiny"]
    command += [f"task.data='{workspace / 'data'}'".replace("a user's folder", "a user\\'s folder")]
    command += ["common.cpu=true", "dataset.batch_size=8", "optimization.max_update=2", f"hydra.run.dir={tmp_path}"]
    run(*command, PYTHONPATH=str(ROOT), cwd=ROOT)
    state = torch.load(tmp_path / "checkpoints/checkpoint_last.pt", weights_only=True)
    assert state["model"]["encoder.bert.embed_tokens.weight"].shape[1] == 128
    assert sum(k.endswith("mixing.q_proj.weight") for k in state["model"]) == 2


@pytest.mark.parametrize("command,message", [
    (["train_lambda_bert.sh", "huge", "x"], "error: unknown size 'huge'"),
    (["lambda_bert.sh", "fly"], "error: unknown command 'fly'"),
    (["evaluate.sh", "no-such-folder", "--data", "x"], "error: no-such-folder: no such folder"),
    (["export.sh", "no-such-folder", "--dest", "out"], "error: no-such-folder: no such folder"),
    (["preprocess_wikitext.sh", "no-such-corpus"], "error: "),
])  # fmt: skip
def test_bad_input_is_one_readable_line(command, message):
    script, *arguments = command
    out = run(ROOT / "scripts" / script, *arguments, ok=False)
    lines = [line for line in out.splitlines() if not line.startswith(("INFO", "usage"))]
    assert lines[-1].startswith(message) and "Traceback" not in out


@pytest.mark.parametrize("script", sorted({p.name for p in (ROOT / "scripts").glob("*.sh")} - {"environment.sh"}))
def test_help(script):
    assert "usage:" in run(ROOT / "scripts" / script, "--help")
