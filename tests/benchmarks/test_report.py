"""What is read from logs and results: curves, rows of several seeds, times of one machine."""

import json

import pytest
import report
from comparison import Comparison, Results, Run
from curves import curve, ms_per_update


def test_a_log_with_interruptions_gives_one_curve():
    def inner(updates, ups, ppl):
        return (
            f'x | train_inner | {{"num_updates": "{updates}", "ups": "{ups}", "train_wall": "2", "mlm_ppl": "{ppl}"}}\n'
        )

    def valid(updates, ppl):
        values = {"valid_mlm_ppl": ppl, "valid_num_updates": updates}
        return f"x | valid | {json.dumps(values)}\n"

    log = valid(1, 99.5) + inner(2, 10, 80) + valid(2, 70) + inner(4, 5, 60) + 'x | valid | {"valid_mlm_ppl\n'
    log += 'x | valid | {"valid_m y | valid | {}\n' + inner(4, 8, 50) + valid(4, 40)
    assert curve(log) == [
        {"updates": 1, "seconds": 0, "valid_ppl": 99.5},
        {"updates": 2, "seconds": 2, "valid_ppl": 70, "train_ppl": 80},
        {"updates": 4, "seconds": 4, "valid_ppl": 40, "train_ppl": 50},
    ]
    assert ms_per_update(log) == pytest.approx(1000 / 9.5, abs=0.06) and ms_per_update("") is None


def line(model, seed, ppl, updates=400, lr="1e-3", cpu="old"):
    scores = {"mlm_ppl": ppl, "sop_acc": 50.0}
    made = {"model": model, "lr": lr, "seed": seed, "updates": updates, "parameters": 7, "ms_per_update": 300}
    made |= {
        "setting": {"date": "2026-11-24", "cpu": cpu, "threads": 1},
        "curve": [{"updates": 100, "valid_ppl": 2 * ppl}],
    }
    return made | {"scores": {"valid": scores, "test": scores}}


def test_table_of_several_seeds_and_of_an_unfinished_run():
    compared = Comparison("t", "tiny", 400, "1e-3", [1, 2], "softmax", {"softmax": {}, "lambda": {}, "new": {}})
    unfinished = line("new", 1, 30.0)
    del unfinished["scores"], unfinished["parameters"]
    lines = [unfinished, line("softmax", 1, 100.0), line("softmax", 1, 300.0, lr="9e-3"), line("softmax", 2, 110.0)]
    lines += [line("lambda", 1, 40.0), line("lambda", 2, 55.0)]
    rows = report.tables(compared, lines).splitlines()
    assert rows[2] == (
        "| lambda | 400 | 1e-3 | 2 | 7 | 47.50 (40.00 to 55.00) | 47.50 (40.00 to 55.00) | 0.45 (0.40 to 0.50) "
        "| 50.0 | 300 | 2.0 |"
    )
    assert rows[3].startswith("| softmax | 400 | 1e-3 | 2 | 7 | 105.00 (100.00 to 110.00) |")
    assert rows[4] == "| new | 100 of 400 | 1e-3 | 1 | - | 60.00 | - | - | - | 300 | 2.0 |"


def test_times_of_another_machine_are_not_compared(tmp_path, monkeypatch):
    compared = Comparison("t", "tiny", 400, "1e-3", [1, 2], "softmax", {"softmax": {}, "new": {}}, draw=["softmax"])
    lines = [line("softmax", 1, 100.0), line("softmax", 2, 110.0, cpu="new"), line("new", 1, 200.0, cpu="new")]
    lines[1]["ms_per_update"] = 900
    rows = report.tables(compared, lines).splitlines()
    assert rows[2].endswith("| 300 | 2.0 |") and rows[3].endswith("| - | - |")
    assert rows[-1] == "Times are those of the runs on one machine: old, threads 1."
    panels = []
    monkeypatch.setattr(report.pictures, "draw", lambda path, title, drawn: panels.extend(drawn))
    report.draw(compared, lines, tmp_path / "t.png")
    assert [len(panel.lines) for panel in panels] == [2, 1]


def test_a_line_is_replaced_in_its_place(tmp_path):
    results = Results(tmp_path / "x.jsonl")
    for model, value in (("a", 1), ("b", 1), ("a", 2)):
        results.put(Run(model, "1", 1, "tiny", 4, {}), {"data": "d", "value": value})
    assert [(x["model"], x["value"]) for x in map(json.loads, results.path.read_text().splitlines())] == [
        ("a", 2),
        ("b", 1),
    ]
