"""Tables and a picture of a comparison of :mod:`quality`, from its results alone."""

import itertools
import math
import statistics
from pathlib import Path

from measuring import markdown, setting_line


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
    parts = [scores_table(best, baselines[0])]
    parts += [against_baseline(best, name) for name in baselines if name in best and len(best) > 1]
    if any(run["lengths"] for runs in best.values() for run in runs):
        parts.append(length_table(best))
    if len({run["lr"] for run in runs.values()}) > 1:
        parts.append(grid_table(runs))
    settings = {setting_line({k: v for k, v in run["setting"].items() if k != "seed"}) for run in runs.values()}
    return "\n\n".join([*parts, *(f"{line}." for line in sorted(settings))])


def scores_table(best: dict, baseline: str) -> str:
    rows = [["model", "updates", "learning rate", "seeds", "parameters", "valid perplexity", "valid accuracy, %"]]
    rows[0] += ["order accuracy, %", "test perplexity", "ms an update"]
    ordered = sorted(best, key=lambda name: (name != baseline, loss(best[name][0])))
    for name in ordered:
        runs = best[name]
        valid = [run["splits"]["valid"] for run in runs]
        rows.append([name, f"{runs[0]['updates']:,}", runs[0]["lr"], str(len(runs)), f"{runs[0]['parameters']:,}"])
        rows[-1] += [spread([v["mlm_ppl"] for v in valid], 2), spread([v["mlm_acc"] for v in valid], 2)]
        rows[-1] += [spread([v.get("sop_acc") for v in valid], 1)]
        rows[-1] += [spread([run["splits"]["test"]["mlm_ppl"] for run in runs], 2)]
        rows[-1] += [spread([1000 * run["seconds_an_update"] for run in runs], 0)]
    return markdown(rows)


def against_baseline(best: dict, baseline: str) -> str:
    """Return each model against the baseline, seed by seed: the worst case of the seeds that both have."""
    rows = [["model", f"perplexity / {baseline}'s", "at its time", "updates to its perplexity", "lower at"]]
    theirs = {run["seed"]: run for run in best[baseline]}
    for name, runs in best.items():
        pairs = [(run, theirs[run["seed"]]) for run in runs if run["seed"] in theirs]
        if name == baseline or not pairs:
            continue
        ratios = [math.exp(loss(ours) - loss(base)) for ours, base in pairs]
        timed = [
            at / base["curve"][-1]["ppl"]
            for ours, base in pairs
            if (at := perplexity_at(ours, seconds_of(base) / ours["seconds_an_update"]))
        ]
        shares = [updates_to_reach(ours, base["curve"][-1]["ppl"]) for ours, base in pairs]
        shares = [reached and reached / base["updates"] for reached, (_, base) in zip(shares, pairs, strict=True)]
        common = [
            (at, point["ppl"])
            for ours, base in pairs
            for point in base["curve"]
            if (at := perplexity_at(ours, point["updates"]))
        ]
        lower = f"{sum(at < base for at, base in common)} of {len(common)} validations"
        reached = f"{100 * max(shares):.0f} %" if all(shares) else "not reached"
        rows.append([name, f"{max(ratios):.2f}", f"{max(timed):.2f}" if timed else "-", reached, lower])
    return markdown(rows)


def length_table(best: dict) -> str:
    lengths = sorted({int(n) for runs in best.values() for run in runs for n in run["lengths"]})
    rows = [["valid perplexity at", *(f"{n:,} tokens" for n in lengths)]]
    for name, runs in best.items():
        row = [name]
        for n in lengths:
            scores = [run["lengths"].get(str(n)) for run in runs]
            row.append(f"none above {runs[0]['max_positions']} positions" if None in scores else length_cell(scores))
        rows.append(row)
    return markdown(rows)


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


def draw(title: str, runs: dict, path: Path) -> None:
    """Draw validation perplexity against updates, time and, if known, length; a line a seed at each best rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    best = by_model(runs)
    lengths = sorted({int(n) for run in runs.values() for n in run["lengths"]})
    panels = 3 if lengths else 2
    figure, axes = pyplot.subplots(1, panels, figsize=(5 * panels, 5), sharey=True, layout="constrained")
    for colour, name in enumerate(sorted(best, key=lambda name: loss(best[name][0]))):
        for i, run in enumerate(best[name]):
            updates = [point["updates"] for point in run["curve"]]
            perplexity = [point["ppl"] for point in run["curve"]]
            label = f"{name}: {perplexity[-1]:.1f}" if i == 0 else None
            style = {"color": f"C{colour % 10}", "linestyle": "-" if colour < 10 else "--", "alpha": 0.9}
            axes[0].plot(updates, perplexity, label=label, **style)
            axes[1].plot([u * run["seconds_an_update"] / 60 for u in updates], perplexity, **style)
            if lengths:
                read = {int(n): scores["mlm_ppl"] for n, scores in run["lengths"].items()}
                axes[2].plot(sorted(read), [read[n] for n in sorted(read)], marker="o", **style)
    axes[0].set(xlabel="updates", ylabel="validation perplexity of masked tokens", yscale="log")
    axes[1].set(xlabel="minutes of training")
    if lengths:
        axes[2].set(xlabel="tokens in an evaluated sample, after training", xscale="log")
        axes[2].set_xticks(lengths, [f"{n:,}" for n in lengths])
        axes[2].xaxis.set_minor_formatter(ticker.NullFormatter())
    axes[0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    axes[0].yaxis.set_minor_formatter(ticker.NullFormatter())
    figure.legend(title="model, last perplexity", fontsize="small", loc="outside lower center", ncols=3)
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


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
