"""The quality benchmark: real runs of a toy comparison, and its figures from curves that are easy to reckon."""

import json
import math
import sys
from pathlib import Path

import pytest
from training import write_data

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import quality
import quality_plot
import quality_report
import recipe_hours
from quality_runs import Comparison, Results, Run, precision_of

SHAPE = "{encoder-embed-dim: 16, encoder-ffn-embed-dim: 32, lambda-key-depth: 4, tokens-per-sample: 32, batch-size: 8"
TOY = f"""
title: a toy
size: tiny
updates: 4
every: 2
lr: ["1e-3", "2e-2"]
seeds: [1, 2]
baselines: [twin]
lengths: [32, 64]
draws: 2
flags: {SHAPE}, log-interval: 1, num-workers: 0, autocast: none}}
models:
  lambda: {{lambda-local-context: 7, lr: "2e-2"}}
  twin: {{lambda-layers: none}}
"""


@pytest.mark.slow
def test_a_comparison_runs_goes_on_and_refuses_other_flags(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    for suffix in (".bin", ".idx"):
        (data / f"test{suffix}").write_bytes((data / f"valid{suffix}").read_bytes())
    file = tmp_path / "toy.yaml"
    file.write_text(TOY)
    arguments = [str(file), str(data), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    quality.main([*arguments, "--seeds", "1", "--lr", "1e-3"])
    assert set(json.loads((tmp_path / "out/toy.json").read_text())["runs"]) == {"twin-lr1e-3-seed1"}
    quality.main([*arguments, "--seeds", "1", "--jobs", "2"])
    results = json.loads((tmp_path / "out/toy.json").read_text())
    assert set(results["runs"]) == {"lambda-lr2e-2-seed1", "twin-lr1e-3-seed1", "twin-lr2e-2-seed1"}
    assert "unfinished" not in results
    run = results["runs"]["lambda-lr2e-2-seed1"]
    assert [point["updates"] for point in run["curve"]] == [2, 4] and "order_acc" in run["curve"][0]
    assert all(50 < point["train_ppl"] < 50_000 for point in run["curve"])
    assert run["precision"] == "float32"
    # the training's last validation is what the evaluation finds
    assert run["splits"]["valid"]["mlm_ppl"] == pytest.approx(run["curve"][-1]["ppl"], rel=1e-3)
    assert set(run["lengths"]) == {"32", "64"}  # any length without a table of positions
    first, second = run["lengths"]["32"]["draws"]  # the first: the pairs and masks of validation in training
    assert first == pytest.approx(run["splits"]["valid"]["mlm_loss"]) and second != pytest.approx(first)
    assert run["lengths"]["32"]["mlm_ppl"] == pytest.approx(math.exp((first + second) / 2))
    assert set(results["runs"]["twin-lr1e-3-seed1"]["lengths"]) == {"32"}
    assert (tmp_path / "out/toy.png").stat().st_size > 10_000
    table = capsys.readouterr().out
    assert "2147483647" not in table  # a fresh run has its lengths in the table
    assert "| twin | 4 |" in table and "none above 32 positions" in table and "valid perplexity, seed 1, at" in table

    # the second seed: what is done is not done again, and the runs' folders are not needed for it
    before = results["runs"]
    (tmp_path / "runs").rename(tmp_path / "gone")
    quality.main([*arguments, "--models", "lambda"])
    after = json.loads((tmp_path / "out/toy.json").read_text())["runs"]
    assert set(after) - set(before) == {"lambda-lr2e-2-seed2"} and all(after[name] == before[name] for name in before)
    assert [path.name for path in (tmp_path / "runs/toy").iterdir()] == ["lambda-lr2e-2-seed2"]

    # for readers in a hurry: the models named for it, in a picture of their own
    file.write_text(TOY + "brief: [twin]\n")
    capsys.readouterr()
    quality.main([*arguments, "--report", "--brief"])
    table = capsys.readouterr().out
    assert "| twin | 4 |" in table and "| lambda |" not in table
    assert (tmp_path / "out/toy-brief.png").stat().st_size > 10_000
    file.write_text(TOY)

    # another comparison of the same model by another name takes the run over
    other = tmp_path / "other.yaml"
    other.write_text(TOY.replace("lambda: {lambda-local", "renamed: {lambda-local"))
    quality.main([str(other), *arguments[1:], "--models", "renamed"])
    renamed = json.loads((tmp_path / "out/other.json").read_text())["runs"]
    assert renamed == {
        name.replace("lambda", "renamed"): {**run, "model": "renamed"}
        for name, run in after.items()
        if run["model"] == "lambda"
    }
    other.write_text(other.read_text().replace("draws: 2", "draws: 1"))
    comparison, results = Comparison.read(other), Results(tmp_path / "out/none.json")
    assert results.elsewhere(comparison.run("renamed", "2e-2", 1), comparison, "data") is None  # other draws
    other.write_text(other.read_text().replace("draws: 1", "draws: 2"))
    comparison = Comparison.read(other)
    assert results.elsewhere(comparison.run("renamed", "2e-2", 1), comparison, "data")
    assert results.elsewhere(comparison.run("renamed", "3e-2", 1), comparison, "data") is None
    assert results.elsewhere(comparison.run("renamed", "2e-2", 1), comparison, "other data") is None

    quality.main([*arguments, "--time"])
    results = json.loads((tmp_path / "out/toy.json").read_text())
    assert results["runs"] == after and set(results["timing"]["seconds"]) == {"lambda", "twin"}
    assert results["timing"]["setting"]["precision"] == "float32"
    assert "all in turns" in capsys.readouterr().out

    file.write_text(TOY.replace("lambda-local-context: 7", "lambda-local-context: 5"))
    with pytest.raises(SystemExit) as end:
        quality.main(arguments)
    assert "holds lambda-lr2e-2-seed1 made with" in str(end.value.code)


def test_errors_name_the_remedy(tmp_path):
    file = tmp_path / "toy.yaml"
    for text, message in (
        (TOY.replace("baselines: [twin]", "baselines: [x]"), "x of baselines or brief is none of lambda, twin"),
        (TOY + "brief: [y]", "y of baselines or brief is none of lambda, twin"),
        (TOY + "a: 1", "'a'"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            Comparison.read(file)
    file.write_text(TOY)
    for arguments, message in (
        ([], "preprocess_wikitext.sh"),
        (["--report"], "holds no run"),
        ([str(write_data(tmp_path / "data")), "--models", "rnn"], "--models rnn: the file has lambda, twin"),
        ([str(tmp_path / "data"), "--seeds", "2"], "no run of lambda with seed 1"),
    ):
        with pytest.raises(SystemExit) as end:
            quality.main([str(file), *arguments, "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")])
        assert message in str(end.value.code)


@pytest.mark.parametrize("path", sorted(quality.COMPARISONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_comparisons_name_flags_that_exist(path, monkeypatch):
    """Each run's flags pass fairseq-train's own parser."""
    from fairseq import options
    from training import PACKAGE

    comparison = Comparison.read(path)
    runs = comparison.runs(comparison.seeds[0])
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        parser = options.get_training_parser()  # parsing adds the options of task and model to it
        words = ["data", "--user-dir", str(PACKAGE), "--task", "masked_lm_sop", "--criterion", "masked_lm_sop"]
        options.parse_args_and_arch(parser, [*words, "--arch", f"lambda_bert_{comparison.size}", *run.flags])


def curve(perplexities):
    return [{"updates": 100 * (i + 1), "ppl": ppl} for i, ppl in enumerate(perplexities)]


def test_the_precision_of_a_run_that_went_on_on_another_machine():
    log = "python -m train --autocast none --lr 1\n| train_inner |\npython -m train --autocast bfloat16\n"
    assert precision_of(log) == "float32 and bfloat16"
    assert precision_of(log + log) == "float32 and bfloat16"


def test_figures_against_the_baseline():
    slow = {"updates": 400, "curve": curve([800.0, 400.0, 200.0, 100.0]), "seconds_an_update": 2.0}
    fast = {"updates": 400, "curve": curve([400.0, 100.0, 50.0, 40.0]), "seconds_an_update": 0.5}
    assert quality_report.perplexity_at(slow, 250) == pytest.approx((400 * 200) ** 0.5)
    assert quality_report.perplexity_at(slow, 50) is None and quality_report.perplexity_at(slow, 9e9) == 100
    assert quality_report.updates_to_reach(fast, 100.0) == pytest.approx(200)
    assert quality_report.updates_to_reach(fast, 200.0) == pytest.approx(150)
    assert quality_report.updates_to_reach(slow, 50.0) is None and quality_report.updates_to_reach(slow, 900) == 100


def finished(model, seed, ppl, curve_, seconds=1.0, lr="1e-3"):
    scores = {"mlm_ppl": ppl, "mlm_loss": math.log(ppl), "mlm_acc": 25.0, "sop_acc": 50.0}
    run = {"model": model, "lr": lr, "seed": seed, "updates": 400, "parameters": 7, "max_positions": 128, "lengths": {}}
    run |= {"splits": {"valid": scores, "test": scores}, "seconds_an_update": seconds, "curve": curve(curve_)}
    run["precision"] = "float32"
    return run | {"setting": {"cpu": "a processor", "seed": seed, "date": "2026-11-24"}}


def test_tables_of_several_seeds_say_the_worst_case():
    runs = [
        finished("twin", 1, 100.0, [800.0, 400.0, 200.0, 100.0], seconds=2.0),
        finished("twin", 1, 300.0, [900.0, 800.0, 700.0, 300.0], seconds=2.0, lr="9e-3"),
        finished("twin", 2, 110.0, [800.0, 400.0, 200.0, 110.0], seconds=2.0),
        finished("lambda", 1, 40.0, [400.0, 100.0, 50.0, 40.0]),
        finished("lambda", 2, 55.0, [900.0, 110.0, 60.0, 55.0]),
    ]
    text = quality_report.tables({str(i): run for i, run in enumerate(runs)}, ["twin", "lambda"])
    assert "| twin | 400 | 1e-3 | float32 | 2 | 7 | - | 105.00 (100.00 to 110.00) |" in text
    assert "| lambda | 400 | 1e-3 | float32 | 2 | 7 | - | 47.50 (40.00 to 55.00) |" in text
    # 55 / 110, not 40 / 100; at the twin's 800 s both lambdas had long ended; 200 of 400 updates; 800 < 900 once
    assert "| lambda | 0.50 | 0.50 | 50 % | 7 of 8 validations |" in text
    # and the other way round: 100 / 40; the twin had done 200 updates when lambda ended, 400 / 40; it came to 55 never
    assert "| twin | 2.50 | 10.00 | not reached | 1 of 8 validations |" in text
    assert "| twin | 100.00 | 300.00 |" in text
    assert quality_report.settings_of(dict(enumerate(runs)), None) == ["cpu a processor, date 2026-11-24."]

    # a table for a reader in a hurry says the same, the best first
    brief = quality_report.brief(dict(enumerate(runs)), ["twin"]).splitlines()
    assert brief[2].startswith("| lambda | 400 | 1e-3 | 2 | 7 | 47.50 (40.00 to 55.00) |")
    assert brief[2].endswith("| 0.50 | 0.50 |")
    assert brief[3].startswith("| twin |") and brief[3].endswith("| 1.00 | 1.00 |")


def test_a_picture_has_the_ratio_to_the_baseline_where_nothing_else_is_to_be_seen(tmp_path, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    runs = [
        finished("twin", 1, 100.0, [800.0, 400.0, 200.0, 100.0]),
        finished("lambda", 1, 150.0, [400.0, 100.0, 100.0, 150.0]),
        finished("lambda", 2, 55.0, [900.0, 110.0, 60.0, 55.0]),  # no run of the twin to set beside it
        finished("slow", 1, 900.0, [800.0, 800.0, 900.0, 900.0]),
    ]
    quality_plot.draw("a toy", dict(enumerate(runs)), "twin", tmp_path / "toy.png")
    perplexities, minutes, ratios = pyplot.gcf().axes
    assert [len(axis.lines) for axis in (perplexities, minutes, ratios)] == [4, 4, 3]
    by_colour = {line.get_color(): line.get_ydata() for line in ratios.lines}
    assert list(by_colour["black"]) == pytest.approx([1, 1, 1, 1])
    lambda_colour = next(line.get_color() for line in perplexities.lines if line.get_label() == "lambda: 102.5")
    assert list(by_colour[lambda_colour]) == pytest.approx([0.5, 0.25, 0.5, 1.5])
    assert perplexities.get_ylim() == minutes.get_ylim() and ratios.get_ylim() == pytest.approx((0.23, 1.5))

    # with a twin of its own seed the second run counts: the mean, and a band between the two
    runs.append(finished("twin", 2, 110.0, [900.0, 440.0, 240.0, 110.0]))
    quality_plot.draw("a toy", dict(enumerate(runs)), "twin", tmp_path / "toy.png")
    ratios = pyplot.gcf().axes[2]
    assert any(list(line.get_ydata()) == pytest.approx([0.75, 0.25, 0.375, 1.0]) for line in ratios.lines)
    bands = [set(band.get_paths()[0].vertices[:, 1].round(6)) for band in ratios.collections]
    assert {0.25, 0.5, 1.0, 1.5} in bands

    for run in runs:
        run["lengths"] = {"128": {"mlm_ppl": 100.0}}
    quality_plot.draw("a toy", dict(enumerate(runs)), "twin", tmp_path / "toy.png")
    assert "tokens" in pyplot.gcf().axes[2].get_xlabel() and len(pyplot.gcf().axes) == 3


def test_a_run_under_way_keeps_its_curve_and_is_set_beside_the_baseline_as_far_as_it_got(tmp_path, capsys):
    file = tmp_path / "toy.yaml"
    file.write_text(TOY)
    comparison, results = Comparison.read(file), Results(tmp_path / "toy.json")
    ours, twins = comparison.run("lambda", "1e-3", 1), comparison.run("twin", "1e-3", 1)
    results.add_unfinished(ours, curve([900.0]), comparison)
    results.add_unfinished(ours, curve([900.0, 100.0]), comparison)
    results.add_unfinished(twins, curve([800.0, 400.0, 200.0]), comparison)

    # nothing is finished, and yet there is something to report
    arguments = [str(file), "--report", "--out", str(tmp_path)]
    quality.main(arguments)
    table = capsys.readouterr().out
    assert "| lambda | 1e-3 | 1 | 200 of 4 | 100.00 | 0.25 | 1 of 2 validations |" in table
    assert "| twin | 1e-3 | 1 | 300 of 4 | 200.00 | - | - |" in table  # the other is not there yet

    # ahead of the baseline, it is set beside the last that this has
    results.add_unfinished(ours, curve([900.0, 100.0, 50.0, 25.0]), comparison)
    quality.main(arguments)
    assert "| lambda | 1e-3 | 1 | 400 of 4 | 25.00 | 0.25 | 2 of 3 validations |" in capsys.readouterr().out
    results.add_unfinished(ours, curve([900.0, 100.0]), comparison)

    # the baseline ends: it leaves the runs under way, and the other is set beside it still
    results.add(twins, finished("twin", 1, 100.0, [800.0, 400.0, 200.0, 100.0]), comparison)
    assert set(Results(results.path).unfinished) == {ours.name} and not results.has(ours)
    quality.main(arguments)
    table = capsys.readouterr().out
    assert "| lambda | 1e-3 | 1 | 200 of 4 | 100.00 | 0.25 | 1 of 2 validations |" in table
    assert "| twin | 400 |" in table


def test_times_of_models_in_turns_take_the_place_of_the_logs():
    runs = {"a": finished("twin", 1, 100.0, [800.0, 400.0, 200.0, 100.0]), "b": finished("lambda", 1, 40.0, [40.0])}
    runs["b"]["setting"] |= {"date": "2026-11-25", "cpu": "b", "instructions": "avx2"}
    timing = {"seconds": {"twin": 0.5}, "updates": 9, "setting": {"cpu": "another", "date": "2026-11-25"}}
    timed = quality_report.timed(runs, timing)
    assert [run["seconds_an_update"] for run in timed.values()] == [0.5, None]
    assert quality_report.timed(runs, None) == runs
    table = quality_report.tables(timed, ["twin"])
    assert "| 100.00 | 500 |" in table and "| 40.00 | - |" in table  # a model that took no turn has no time
    assert "| lambda | 0.40 | - |" in table
    assert quality_report.settings_of(timed, timing) == [
        "cpu a processor and b (avx2), date 2026-11-24 and 2026-11-25.",
        "Times: medians of 9 updates a model, all in turns; cpu another, date 2026-11-25.",
    ]


def test_lengths_read_with_several_draws_of_masks_say_their_standard_error():
    run = finished("lambda", 1, 40.0, [40.0])
    run["lengths"] = {"32": {"mlm_ppl": 40.0, "draws": [1.0, 2.0, 3.0, 4.0]}, "64": {"mlm_ppl": 41.0}}
    (table,) = quality_report.length_table({"lambda": [run]})
    assert "| lambda | 40.00 ± 25.82 | 41.00 |" in table  # 40 * 1.29 / 2
    assert "| lambda | 40.00 (40.00 to 40.00) |" in quality_report.length_table({"lambda": [run, run]})[0]
    assert quality_report.length_table({"lambda": [finished("lambda", 1, 40.0, [40.0])]}) == []


def test_a_training_hands_over_its_log_after_every_validation(tmp_path, monkeypatch):
    lines = [f'INFO | valid | {{"valid_mlm_ppl": "{9 - n}", "valid_num_updates": "{n}"}}' for n in (2, 4)]
    script = tmp_path / "scripts/train_lambda_bert.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'; echo between\n" for line in lines))
    script.chmod(0o755)
    monkeypatch.setattr(quality, "ROOT", tmp_path)
    run, so_far = Run("lambda", "1e-3", 1, 4, ()), []
    log = quality.train(run, "tiny", tmp_path, tmp_path / "run", 1, so_far.append)
    assert [text.count("| valid |") for text in so_far] == [1, 2] and log.startswith(so_far[-1])
    # the first validation may come before the first line of training
    assert quality.read_curve(so_far[0]) == [{"updates": 2, "ppl": 7.0, "train_ppl": None}]


def test_a_table_goes_between_its_comments(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("a\n<!-- quality toy -->\nold\n<!-- end quality toy -->\nb\n")
    for table in ("| new |", "| newer |"):
        quality_report.put_between(file, "quality toy", table)
        assert file.read_text() == f"a\n<!-- quality toy -->\n\n{table}\n\n<!-- end quality toy -->\nb\n"
    with pytest.raises(ValueError, match="add the lines"):
        quality_report.put_between(file, "quality other", "x")


@pytest.mark.slow
def test_hours_of_a_recipe(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    flags = "--encoder-embed-dim 16 --tokens-per-sample 32 --batch-size 8 --num-workers 0 --autocast none --updates 720"
    recipe_hours.main(["tiny", str(data), "--measure", "3", "--json", str(tmp_path / "hours.json"), *flags.split()])
    report = json.loads((tmp_path / "hours.json").read_text())
    assert report["updates"] == 720 and report["hours"] == pytest.approx(report["seconds_an_update"] / 5, abs=0.06)
    assert "run here: 3 of 720 updates (0.42 %)" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="unknown size 'huge'"):
        recipe_hours.main(["huge", str(data)])
