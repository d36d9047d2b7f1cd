"""docs/pretraining.md and docs/long-runs.md: their commands run on a small corpus, and tables are those of the code."""

import json
import re

import pytest
import torch
from pages import SHORT, Page, bash
from preparing import write_corpus
from training import load

from fairseq_lambda.config import SIZES, read_recipe
from fairseq_lambda.criterions.masked_lm_sop import MaskedLMSOPCriterionConfig
from fairseq_lambda.models.lambda_bert_config import SIZES as SHAPES
from fairseq_lambda.models.lambda_bert_config import LambdaBertConfig
from fairseq_lambda.modules import LambdaBert, LambdaBertOptions
from fairseq_lambda.tasks.masked_lm_sop_config import MaskedLMSOPConfig

PAGE, LONG_RUNS = Page("docs/pretraining.md"), Page("docs/long-runs.md")
OF_FAIRSEQ = "--cpu --tokens-per-sample 32 --batch-size 4 --max-update 3 --num-workers 0 --encoder-layers 1"
OF_HYDRA = (
    "common.cpu=true task.tokens_per_sample=32 dataset.batch_size=4 dataset.num_workers=0 optimization.max_update=3 "
    "model.lambda_local_context=7 model.encoder_layers=1 hydra.run.dir=hydra"
)


@pytest.mark.slow
def test_every_command_of_both_pages_runs(tmp_path):
    corpus = write_corpus(tmp_path / "wikitext-2")
    first, dry, curve, by_fairseq, hydra = PAGE.commands()
    out = bash(first, tmp_path, SHORT, WIKITEXT_DIR=str(corpus))
    assert load(tmp_path / "checkpoints/my-run")["optimizer_history"][-1]["num_updates"] == 4
    assert json.loads((tmp_path / "scores.json").read_text())["splits"].keys() == {"valid", "test"}
    assert (tmp_path / "my-bert/model.safetensors").is_file()
    predictions = out.split("The film was <mask> in 1997.\n")[1].splitlines()[0]
    assert len(re.findall(r"0\.\d\d", predictions)) == 5

    bash(curve, tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert "--lr-scheduler inverse_sqrt" in bash(dry, tmp_path)
    bash(f"{by_fairseq.rstrip()} {OF_FAIRSEQ}\n", tmp_path)
    assert load(tmp_path / "checkpoints/by-fairseq")["optimizer_history"][-1]["num_updates"] == 3
    bash(f"{hydra.rstrip()} {OF_HYDRA}\n", tmp_path)
    assert load(tmp_path / "checkpoints/by-hydra")["cfg"]["model"]["_name"] == "lambda_bert_mini"

    again, processes = LONG_RUNS.commands()
    assert "has 4 updates: nothing left to do" in bash(again, tmp_path)
    assert "training on 2 devices" in bash(processes, tmp_path)
    assert load(tmp_path / "checkpoints/two")["optimizer_history"][-1]["num_updates"] == 4


def test_what_is_not_run_needs_several_machines():
    marked = [block for block in LONG_RUNS.blocks("bash") if block.needs]
    assert [block.needs for block in marked] == ["several GPUs", "several machines", "several machines"]
    # tests/distributed/test_two_ranks.py starts the second with two launchers on one machine
    (flags,) = re.findall('--torchrun "(.*)"', marked[1].text)
    assert flags == "--nnodes 2 --node-rank RANK --rdzv-backend c10d --rdzv-endpoint HOST:29500 --max-restarts 3"


def test_sizes_are_those_of_the_recipes():
    rows = PAGE.table("size")
    assert tuple(row[0] for row in rows) == SIZES
    for size, *cells in rows:
        recipe, (layers, width, heads) = read_recipe(size), SHAPES[size]
        with torch.device("meta"):
            options = LambdaBertOptions(layers=layers, embed_dim=width, ffn_embed_dim=4 * width, heads=heads)
            model = LambdaBert(options, sentence_head=True)
        parameters = sum(p.numel() for p in model.parameters())
        numbers = [layers, width, heads, round(parameters / 1e6, 1), recipe.task.tokens_per_sample]
        numbers += [recipe.dataset.batch_size, recipe.optimization.max_update, recipe.optimization.lr[0]]
        assert [float(cell.replace(",", "")) for cell in cells] == numbers, size


def test_defaults_of_flags_are_those_of_the_code():
    defaults = vars(LambdaBertConfig()) | vars(MaskedLMSOPConfig()) | vars(MaskedLMSOPCriterionConfig())
    checked = 0
    for flags, said, _ in PAGE.table("flag"):
        names = [flag.strip("` -").replace("-", "_") for flag in flags.split(",")]
        for name, value in zip(names, said.split(", "), strict=True):
            if value != "by size" and name in defaults:  # update_freq is fairseq's
                default = defaults[name]
                assert value == (
                    "off" if default is False else f"{default:g}" if isinstance(default, float) else str(default)
                )
                checked += 1
    assert checked == 18
