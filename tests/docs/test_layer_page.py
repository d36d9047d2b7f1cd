"""docs/layer.md: its Python runs, and its shapes, costs and figures are those of the code."""

import json
import re
import runpy
import xml.etree.ElementTree as ElementTree

import pytest
from pages import Page
from processes import ROOT

from fairseq_lambda.modules import LambdaLayer
from fairseq_lambda.modules.softmax_attention import SoftmaxAttention

PAGE = Page("docs/layer.md")
BASE = {"C": 768, "h": 12, "k": 16, "u": 1, "v": 64, "r": 23}


def test_the_python_and_the_shapes(tmp_path):
    scope = PAGE.python(tmp_path)
    rows = {row[0]: row[2] for row in PAGE.table("step")}
    for start, name in {
        "input": "x", "queries": "q", "keys": "K", "values": "V", "position embedding": "E", "content lambda": "lc",
    }.items():  # fmt: skip
        (shape,) = (cell for step, cell in rows.items() if step.startswith(start))
        assert shape == str(tuple(scope[name].shape)), start
    scope = {"b": 2, "n": 100, "m": 100, **BASE}
    for _, letters, numbers in PAGE.table("step"):
        assert eval(letters, scope) == eval(numbers), letters


def test_costs_and_weights():
    rows = PAGE.table("mixing")
    assert len(rows) == 4
    for _, formula, *cells in rows:
        for cell, length in zip(cells, (128, 2048, 8192), strict=True):
            assert cell == f"{eval(formula.strip('`'), {'n': length, **BASE}):,}"
    numbers = [sum(p.numel() for p in part.parameters()) / 1e6 for part in _layers()]
    said = re.search(r"small: (\S+)\s+million weights in base, (\S+) of them the gate's, .* has (\S+)\.", PAGE.text)
    assert said.groups() == tuple(f"{number:.2f}" for number in numbers)
    assert f"{BASE['h'] * BASE['r']} scores" in PAGE.text and "1,024 numbers" in PAGE.text


def _layers():
    layer = LambdaLayer(BASE["C"], BASE["h"])
    return layer, layer.gate_proj, SoftmaxAttention(BASE["C"], BASE["h"])


def test_the_speed_is_what_was_measured():
    results = (ROOT / "benchmarks/results/speed/mixing-cpu-float32.jsonl").read_text()
    lines = [json.loads(line) for line in results.splitlines()]
    seconds = {(line["model"], line["length"]): line["forward_backward"] for line in lines}
    ratios = [seconds["convolution", n] / seconds["banded", n] for n in (128, 512, 2048, 8192)]
    assert f"{min(ratios):.1f} to {max(ratios):.1f} times" in PAGE.text


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "docs/figures/layer.py"))


def test_the_figure_is_what_its_script_draws(script):
    drawn = script["draw"]()
    assert (ROOT / "docs/figures/layer.svg").read_text(encoding="utf-8") == drawn
    root = ElementTree.fromstring(drawn)
    for element in root.iter():  # nothing is drawn outside
        assert float(element.get("x", 0)) <= script["WIDTH"] and float(element.get("y", 0)) <= script["HEIGHT"]


@pytest.mark.parametrize("scheme", ["LIGHT", "DARK"])
def test_the_figure_can_be_read_in_both_schemes(script, scheme):
    def luminance(colour):  # WCAG 2, relative luminance and contrast
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = script[scheme]
    for name in ("text", "muted", "key", "value", "near", "query"):
        light, dark = sorted((luminance(colours[name]), luminance(colours["paper"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
