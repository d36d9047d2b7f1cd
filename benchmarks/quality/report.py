"""Prints the table of a comparison and draws its picture, from benchmarks/results/quality/COMPARISON.jsonl alone.

``python benchmarks/quality/report.py baseline`` prints Markdown; the picture goes beside the JSON lines.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
import measuring
import pictures
from comparison import Comparison, open_comparison

COLUMNS = ["model", "updates", "learning rate", "seeds", "parameters", "valid perplexity", "test perplexity",
           "of the baseline's", "sentence order, %", "ms per update", "minutes"]  # fmt: skip


def by_model(comparison: Comparison, lines: list[dict]) -> dict[str, list[dict]]:
    """Return the runs of each model at its best learning rate, the best model first, unfinished ones last."""
    chosen = {}
    for model in comparison.models:
        if model in comparison.trunks:  # they only exist to start other runs
            continue
        runs = [line for line in lines if line["model"] == model]
        if runs:
            rate = min((run for run in runs if run["seed"] == runs[0]["seed"]), key=perplexity)["lr"]
            chosen[model] = [run for run in runs if run["lr"] == rate]
    mean = {model: statistics.mean(map(perplexity, runs)) for model, runs in chosen.items()}
    return {m: chosen[m] for m in sorted(chosen, key=lambda m: (not all("scores" in r for r in chosen[m]), mean[m]))}


def perplexity(run: dict, split: str = "valid") -> float:
    return run["scores"][split]["mlm_ppl"] if "scores" in run else run["curve"][-1]["valid_ppl"]


def spread(values: list[float], digits: int) -> str:
    """Return the mean and, for several seeds, the least and the most."""
    mean, least, most = (f"{f(values):.{digits}f}" for f in (statistics.mean, min, max))
    return mean if least == most else f"{mean} ({least} to {most})"


def machine(run: dict) -> tuple[str, int]:
    setting = run.get("in_turns", run)["setting"]
    return setting["cpu"], setting["threads"]


def ms(run: dict, on: tuple[str, int]) -> float | None:
    """Return the time of an update if it was taken on this machine: times of two machines do not compare."""
    return run.get("in_turns", run)["ms_per_update"] if machine(run) == on else None


def reference(comparison: Comparison, models: dict[str, list[dict]]) -> tuple[str, int]:
    """Return the machine whose times are shown: that of the baseline's first run."""
    return machine(models.get(comparison.baseline, next(iter(models.values())))[0])


def row(runs: list[dict], baseline: dict[int, dict], on: tuple[str, int]) -> list[str]:
    """Return a model's row; the ratio to the baseline's perplexity is over finished runs with the same seeds."""
    done = [run for run in runs if "scores" in run]
    first = runs[0]
    updates = f"{first['updates']:,}"
    if len(done) < len(runs):
        updates = f"{min(run['curve'][-1]['updates'] for run in runs):,} of {updates}"
        runs = done or runs
    ratios = [perplexity(r) / perplexity(baseline[r["seed"]]) for r in done if "scores" in baseline.get(r["seed"], {})]
    orders = [run["scores"]["valid"]["sop_acc"] for run in done if "sop_acc" in run["scores"]["valid"]]
    times = [ms(run, on) for run in runs if ms(run, on)]
    cells = [first["model"], updates, first["lr"], str(len(runs)), f"{done[0]['parameters']:,}" if done else "-"]
    cells += [spread([perplexity(run) for run in runs], 2)]
    cells += [spread([perplexity(run, "test") for run in done], 2) if done else "-"]
    cells += [spread(ratios, 2) if ratios else "-", spread(orders, 1) if orders else "-"]
    if not times:
        return [*cells, "-", "-"]
    middle = statistics.median(times)
    return [*cells, f"{middle:.0f}", f"{middle * first['updates'] / 60_000:.1f}"]


def length_table(models: dict[str, list[dict]], lengths: list[int]) -> str:
    """Return a table of the same tokens' perplexity by how many are read at once, with the ratio to the least."""
    rows = [["valid perplexity, read at once", *(f"{n:,} tokens" for n in lengths)]]
    for model, runs in models.items():
        found = [runs[0].get("lengths", {}).get(str(n)) for n in lengths]
        rows.append([model, *(length_cell(entry) if entry else "-" for entry in found)])
    return measuring.markdown(rows)


def length_cell(entry: dict) -> str:
    return f"{entry['mlm_ppl']:.2f} ({entry['ratio']:.3f} ± {entry['standard_error']:.3f})"


def tables(comparison: Comparison, lines: list[dict]) -> str:
    """Return the report as Markdown."""
    models = by_model(comparison, lines)
    baseline = {run["seed"]: run for run in models.get(comparison.baseline, [])}
    on = reference(comparison, models)
    rows = [COLUMNS, *(row(runs, baseline, on) for runs in models.values())]
    shown = [run for runs in models.values() for run in runs]
    dates = sorted(run["setting"]["date"] for run in shown)
    notes = [f"Baseline: {comparison.baseline}. Made {dates[0]} to {dates[-1]}."]
    timed = {measuring.setting_line(run["in_turns"]["setting"]) for run in shown if "in_turns" in run}
    notes += [f"Times in turns: {line}." for line in sorted(timed)] or ["Times: as each run logged them."]
    if any(machine(run) != on for run in shown):
        notes += [f"Times are those of the runs on one machine: {on[0]}, threads {on[1]}."]
    longer = [length_table(models, comparison.lengths)] if comparison.lengths else []
    return "\n\n".join([measuring.markdown(rows), *longer, *notes])


def draw(comparison: Comparison, lines: list[dict], path: Path) -> None:
    """Draw validation perplexity against updates and minutes; with ``order_title``, sentence order too."""
    chosen = by_model(comparison, lines)
    on = reference(comparison, chosen)
    runs = [(model, run) for model in chosen if model in comparison.draw for run in chosen[model]]

    def panel(label: str, points: Callable[[dict], list]) -> pictures.Panel:
        curves = [(model, found) for model, run in runs if (found := points(run))]
        top = 5 * min(points[-1][1] for _, points in curves)
        return pictures.Panel(label, "validation perplexity of masked tokens", curves, top=top)

    def minutes(run: dict) -> list:
        each = ms(run, on)
        return [(p["updates"] * each / 60_000, p["valid_ppl"]) for p in run["curve"]] if each else []

    by_updates = panel("updates", lambda run: [(p["updates"], p["valid_ppl"]) for p in run["curve"]])
    by_minutes = panel("minutes of training", minutes)
    pictures.draw(path, comparison.title, [by_updates, by_minutes])
    if comparison.order_title:
        panels = [
            pictures.Panel("updates", f"accuracy of sentence order, {text}, %", [
                (model, [(p["updates"], p[key]) for p in run["curve"] if key in p]) for model, run in runs
            ], linear=(40, 100))
            for key, text in (("order_acc", "validation"), ("train_order_acc", "training"))
        ]  # fmt: skip
        pictures.draw(path.with_stem(f"{path.stem}-order"), comparison.order_title, panels)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="a name in benchmarks/quality/comparisons, or a YAML file")
    args = parser.parse_args(argv)
    try:
        comparison, results = open_comparison(args.comparison)
        if not results.lines:
            raise ValueError(f"{results.path} holds no run: benchmarks/quality/run.py makes them")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(tables(comparison, results.lines))
    if comparison.draw:
        draw(comparison, results.lines, results.path.with_suffix(".png"))


if __name__ == "__main__":
    main()
