"""docs/design.md: imports go where its table says, and its decisions have the numbers of the results."""

import ast
import json
import re

import pytest
from pages import Page
from processes import ROOT

PAGE = Page("docs/design.md")
PACKAGE = ROOT / "fairseq_lambda"
FOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imported_from(source):
    """Return the parts of the package that a file imports, at its top or within functions."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module != PACKAGE.name else [f"{node.module}.{name}" for name in names]
        for name in names:
            first, *rest = name.split(".")
            if first == PACKAGE.name and rest:
                yield rest[0]


def allowed():
    return {
        name: set(FOLDERS) if said.startswith("all") else set(said.split(", "))
        for name, said, _ in PAGE.table("package")
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_are_those_of_the_table(folder):
    free = set(re.findall(r"`(\w+)\.py`", PAGE.text[PAGE.text.index("Nothing else") : PAGE.text.index("| package")]))
    for path in (PACKAGE / folder).rglob("*.py"):
        found = set(imported_from(path.read_text(encoding="utf-8")))
        assert found <= allowed()[folder] | free | {folder}, path


def test_who_may_be_imported_by_anybody_imports_nothing():
    for name in re.findall(r"`(\w+\.py)`", PAGE.text[PAGE.text.index("Nothing else") : PAGE.text.index("| package")]):
        assert not list(imported_from((PACKAGE / name).read_text(encoding="utf-8"))), name


def test_decisions_have_the_numbers_of_their_rows():
    rows = PAGE.table("decision")
    assert len(rows) == 10
    ablations = Page("docs/ablations.md").table("option")
    for _, where, numbers in rows[:8]:
        for number in numbers.split(", "):
            assert any(number in row[3:5] for row in ablations), (where, number)
        flag = re.match(r"`(.*?)`", where)
        if flag:  # the run without the decision is that of the flag
            options = [row[3] for row in ablations if row[0].startswith(f"`{flag[1]}`")]
            assert numbers.split(", ")[1] in options, where


def test_speeds_are_those_of_the_results():
    def lines(name):
        return [json.loads(line) for line in (ROOT / "benchmarks/results/speed" / name).read_text().splitlines()]

    bands, transforms = (row[2].split(", ") for row in PAGE.table("decision")[8:])
    ms = {
        row["model"]: 1000 * row["forward_backward"]
        for row in lines("mixing-cpu-float32.jsonl")
        if row["length"] == 2048
    }
    assert bands == [f"{ms['banded']:.0f}", f"{ms['convolution']:.0f}"]
    (row,) = (
        r for r in lines("global_context.jsonl") if (r["model"], r["length"], r["context"]) == ("base", 4096, 8191)
    )
    assert transforms == [f"{row['fourier_ms']:.1f}", f"{row['band_ms']:,.1f}"]
