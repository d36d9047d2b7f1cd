"""Tables of a comparison of :mod:`quality`, from its results alone."""

import itertools
import math
import statistics
from pathlib import Path

from measuring import markdown, setting_line

COLUMNS = ("updates", "learning rate", "precision", "seeds", "parameters", "train perplexity", "valid perplexity",
           "valid accuracy, %", "order accuracy, %", "test perplexity", "ms an update")  # fmt: skip


def by_model(runs: dict) -> dict[str, list[dict]]:
    """Return for each model its runs at the learning rate with the lowest validation loss of the first seed."""
    models = {}
    for run in runs.values():
        models.setdefault(run["model"], []).append(run)
    best = {}
    for name, all_runs in models.items():
        first = min(run["seed"] for run in all_runs)
        lr = min((r for r in all_runs if r["seed"] == first), key=loss)["lr"]
        best[name] = sorted((r for r in all_runs if r["lr"] == lr), key=lambda r: r["seed"])
    return best


def loss(run: dict) -> float:
    return run["splits"]["valid"]["mlm_loss"]


def mean_loss(runs: list[dict]) -> float:
    return statistics.mean(map(loss, runs))


def spread(values: list[float], digits: int) -> str:
    """Return the mean, and with several values the least and the most."""
    if any(value is None for value in values):
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def seconds_of(run: dict) -> float:
    return run["updates"] * run["seconds_an_update"]


def perplexity_at(run: dict, updates: float) -> float | None:
    """Return the validation perplexity after ``updates``, between two validations on the line of the losses."""
    points = [(p["updates"], math.log(p["ppl"])) for p in run["curve"]]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= updates <= x1:
            return math.exp(y0 + (y1 - y0) * (updates - x0) / (x1 - x0))
    return run["curve"][-1]["ppl"] if points and updates >= points[-1][0] else None


def updates_to_reach(run: dict, perplexity: float) -> float | None:
    """Return after how many updates the validation perplexity is this low, interpolated likewise; None: never."""
    before = None
    for point in run["curve"]:
        x, y = point["updates"], math.log(point["ppl"])
        if point["ppl"] <= perplexity:
            if before is None:
                return x
            x0, y0 = before
            return x0 + (x - x0) * (y0 - math.log(perplexity)) / (y0 - y)
        before = x, y
    return None


def tables(runs: dict, baselines: list[str]) -> str:
    """Return all tables as Markdown."""
    best = by_model(runs)
    ordered = sorted(best, key=lambda name: (name != baselines[0], mean_loss(best[name])))
    rows = [["model", *COLUMNS], *([name, *cells(best[name]).values()] for name in ordered)]
    parts = [markdown(rows)]
    parts += [against_baseline(best, name) for name in baselines if name in best and len(best) > 1]
    parts += length_table(best)
    if len({run["lr"] for run in runs.values()}) > 1:
        parts.append(grid_table(runs))
    return "\n\n".join(parts)


def brief(runs: dict, baselines: list[str]) -> str:
    """Return one table against the first baseline, and that of lengths if there are any, as Markdown."""
    best, baseline = by_model(runs), baselines[0]
    columns = ["updates", "learning rate", "seeds", "parameters", "valid perplexity", "test perplexity", "ms an update"]
    rows = [["model", *columns, f"perplexity / {baseline}'s", "at its time"]]
    for name in sorted(best, key=lambda name: mean_loss(best[name])):
        pairs = same_seeds(best[name], best.get(baseline, []))
        row = cells(best[name])
        rows.append([name, *(row[column] for column in columns), ratio(pairs), ratio_at_its_time(pairs)])
    return "\n\n".join([markdown(rows), *length_table(best)])


def unfinished(under_way: dict, runs: dict, baseline: str) -> list[str]:
    """Return a table of the runs under way, if there are any, beside the baseline's as far as both have gone."""
    rows = [["under way", "learning rate", "seed", "updates", "valid perplexity", f"/ {baseline}'s there", "lower at"]]
    baselines = [run for run in [*runs.values(), *under_way.values()] if run["model"] == baseline]
    for run in under_way.values():
        theirs = [r for r in baselines if r is not run and (r["seed"], r["lr"]) == (run["seed"], run["lr"])]
        last, ratio_there, lower = run["curve"][-1], "-", "-"
        if theirs:
            common = [point for point in theirs[0]["curve"] if point["updates"] <= last["updates"]]
            ratio_there = f"{perplexity_at(run, common[-1]['updates']) / common[-1]['ppl']:.2f}" if common else "-"
            lower = lower_at([(run, {"curve": common})])
        row = [run["model"], run["lr"], str(run["seed"]), f"{last['updates']:,} of {run['updates']:,}"]
        rows.append([*row, f"{last['ppl']:.2f}", ratio_there, lower])
    return [markdown(rows)] if under_way else []


def timed(runs: dict, timing: dict | None) -> dict:
    """Return the runs with the seconds of an update of ``timing``, in which all models took turns, if there is one.

    The time that a run logged is of its own day and machine; a model that took no turn has none.
    """
    if timing is None:
        return runs
    return {name: {**run, "seconds_an_update": timing["seconds"].get(run["model"])} for name, run in runs.items()}


def cells(runs: list[dict]) -> dict[str, str]:
    """Return a model's row by the columns' heads."""
    first, valid, test = runs[0], *([run["splits"][split] for run in runs] for split in ("valid", "test"))
    row = [f"{first['updates']:,}", first["lr"], " and ".join(dict.fromkeys(run["precision"] for run in runs))]
    row += [str(len(runs)), f"{first['parameters']:,}"]
    row += [spread([run["curve"][-1].get("train_ppl") for run in runs], 2)]
    row += [spread([v["mlm_ppl"] for v in valid], 2), spread([v["mlm_acc"] for v in valid], 2)]
    row += [spread([v.get("sop_acc") for v in valid], 1), spread([t["mlm_ppl"] for t in test], 2)]
    seconds = [run["seconds_an_update"] for run in runs]
    row.append(spread([s and 1000 * s for s in dict.fromkeys(seconds)], 0))  # of times in turns, one for all seeds
    return dict(zip(COLUMNS, row, strict=True))


def settings_of(runs: dict, timing: dict | None) -> list[str]:
    """Return a line of what the runs were made with, each value once, and one of what was different for the times."""
    settings = [on_one_machine(run["setting"]) for run in runs.values()]
    keys = dict.fromkeys(key for s in settings for key in s if key != "seed")  # which has its column
    together = {key: " and ".join(sorted({str(s[key]) for s in settings if key in s})) for key in keys}
    lines = [f"{setting_line(together)}."]
    if timing:
        other = {k: v for k, v in on_one_machine(timing["setting"]).items() if str(v) != together.get(k)}
        lines.append(f"Times: medians of {timing['updates']} updates a model, all in turns; {setting_line(other)}.")
    return lines


def on_one_machine(setting: dict) -> dict:
    """Return the setting with the instructions beside their processor, for lines about several."""
    instructions = setting.get("instructions")
    processor = f"{setting.get('cpu')} ({instructions})" if instructions else setting.get("cpu", "")
    return {key: value for key, value in setting.items() if key != "instructions"} | {"cpu": processor}


def against_baseline(best: dict, baseline: str) -> str:
    """Return each model against the baseline, seed by seed: the worst case of the seeds that both have."""
    rows = [["model", f"perplexity / {baseline}'s", "at its time", "updates to its perplexity", "lower at"]]
    for name, runs in best.items():
        if name != baseline and (pairs := same_seeds(runs, best[baseline])):
            reached, lower = updates_to_its_perplexity(pairs), lower_at(pairs)
            rows.append([name, ratio(pairs), ratio_at_its_time(pairs), reached, lower])
    return markdown(rows)


def same_seeds(runs: list[dict], theirs: list[dict]) -> list[tuple[dict, dict]]:
    by_seed = {run["seed"]: run for run in theirs}
    return [(run, by_seed[run["seed"]]) for run in runs if run["seed"] in by_seed]


def ratio(pairs: list) -> str:
    if not pairs:
        return "-"
    return f"{max(math.exp(loss(ours) - loss(base)) for ours, base in pairs):.2f}"


def ratio_at_its_time(pairs: list) -> str:
    """Return the worst ratio of perplexities when the baseline's last update is done."""
    ratios = [
        at / base["curve"][-1]["ppl"]
        for ours, base in pairs
        if ours["seconds_an_update"]
        and base["seconds_an_update"]
        and (at := perplexity_at(ours, seconds_of(base) / ours["seconds_an_update"]))
    ]
    return f"{max(ratios):.2f}" if ratios else "-"


def updates_to_its_perplexity(pairs: list) -> str:
    shares = [(updates_to_reach(ours, base["curve"][-1]["ppl"]), base["updates"]) for ours, base in pairs]
    if any(reached is None for reached, _ in shares):
        return "not reached"
    return f"{100 * max(reached / updates for reached, updates in shares):.0f} %"


def lower_at(pairs: list) -> str:
    common = [
        (at, point["ppl"])
        for ours, base in pairs
        for point in base["curve"]
        if (at := perplexity_at(ours, point["updates"]))
    ]
    return f"{sum(at < base for at, base in common)} of {len(common)} validations"


def length_table(best: dict) -> list[str]:
    """Return the table of the lengths, or none where there are none."""
    lengths = sorted({int(n) for runs in best.values() for run in runs for n in run["lengths"]})
    if not lengths:
        return []
    rows = [["valid perplexity at", *(f"{n:,} tokens" for n in lengths)]]
    for name, runs in best.items():
        row = [name]
        for n in lengths:
            scores = [run["lengths"].get(str(n)) for run in runs]
            row.append(f"none above {runs[0]['max_positions']} positions" if None in scores else length_cell(scores))
        rows.append(row)
    return [markdown(rows)]


def length_cell(scores: list[dict]) -> str:
    """Return the perplexity of the seeds, and of a single seed with several draws of masks its standard error."""
    text, draws = spread([s["mlm_ppl"] for s in scores], 2), scores[0].get("draws", [])
    if len(scores) > 1 or len(draws) < 2:
        return text
    return f"{text} ± {scores[0]['mlm_ppl'] * statistics.stdev(draws) / len(draws) ** 0.5:.2f}"


def grid_table(runs: dict) -> str:
    rates = sorted({run["lr"] for run in runs.values()}, key=float)
    first = min(run["seed"] for run in runs.values())
    rows = [[f"valid perplexity, seed {first}, at", *rates]]
    for name in dict.fromkeys(run["model"] for run in runs.values()):
        found = {r["lr"]: r for r in runs.values() if r["model"] == name and r["seed"] == first}
        rows.append([name, *(f"{found[r]['splits']['valid']['mlm_ppl']:.2f}" if r in found else "" for r in rates)])
    return markdown(rows)


def put_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- end name -->`` in a Markdown file.

    Raises:
        ValueError: the file has no such place.
    """
    content = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{path} has no place for the table: add the lines '{begin.strip()}' and '{end}'")
    path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")
