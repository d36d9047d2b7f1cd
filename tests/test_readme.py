"""README's Python blocks run as they stand on a trained folder, and its figures are those of the JSON lines."""

import json

import comparison
import pytest
import report
from pages import Page
from processes import ROOT
from test_hub_interface import trained  # noqa: F401  a fixture


def lines(name: str) -> list[dict]:
    text = (ROOT / f"benchmarks/results/{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_python_blocks_run(trained, tmp_path):  # noqa: F811
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/quickstart-model").symlink_to(trained)
    scope = Page("README.md").python(tmp_path)
    assert scope["features"].shape[:2] == (1, len(scope["ids"]))
    assert scope["content_lambda"].shape == (2, 16, 64) and scope["y"].shape == (2, 100, 768)


@pytest.mark.parametrize("file", ["README.md", "benchmarks/README.md"])
def test_quality_is_what_the_report_prints(file):
    compared, results = comparison.open_comparison("baseline")
    models = report.by_model(compared, results.lines)
    baseline = {run["seed"]: run for run in models[compared.baseline]}
    rows = Page(file).table(r"model \| updates")
    assert len(rows) >= 5
    for model, *cells in rows:
        printed = report.row(models[model], baseline)
        assert set(cells) <= set(printed), (cells, printed)


def test_speed_is_what_was_measured():
    def ratio(name, key, ours, length):
        row = {line["model"]: line[key] for line in lines(f"speed/{name}") if line["length"] == length}
        return row["softmax"] / row[ours]

    sources = [
        ("mixing-cpu-float32", "forward_backward", "banded"),
        ("mixing-cpu-bfloat16", "forward_backward", "banded"),
        ("training_step-cpu-none", "seconds", "lambda"),
        ("training_step-cpu-bfloat16", "seconds", "lambda"),
        ("training_step-cpu-bfloat16", "seconds", "lambda-wide"),
    ]
    rows = Page("README.md").table("tokens in a sequence")
    assert len(rows) == len(sources)
    for (_, *cells), source in zip(rows, sources, strict=True):
        for cell, length in zip(cells, (128, 512, 2048, 8192), strict=True):
            assert cell == f"{ratio(*source, length):.{len(cell.split('.')[1])}f}"


def test_ablations_are_what_was_trained():
    made = [line for name in ("settled", "ablations", "baseline") for line in lines(f"quality/{name}")]
    made = {
        (f"{line['updates']:,}", f"{report.perplexity(line):.2f}", line["setting"]["commit"][:7])
        for line in made
        if "scores" in line
    }
    rows = Page("docs/ablations.md").table("option")
    assert len(rows) > 20
    for row in rows:
        assert tuple(row[2:4] + row[5:6]) in made, row
        assert row[4] == "-" or any(perplexity == row[4] for _, perplexity, _ in made), row
