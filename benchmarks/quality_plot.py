"""A picture of a comparison of :mod:`quality`, from its results alone."""

import statistics
from functools import partial
from pathlib import Path

from quality_report import by_model, mean_loss, perplexity_at, same_seeds

WORST_RATIO = 1.5  # what is drawn of the ratio to the baseline ends here


def draw(title: str, runs: dict, baseline: str, path: Path) -> None:
    """Draw validation perplexity against updates and time, a line a seed at each model's best rate.

    Another panel has it against length, if models were read at several, another against the learning rate, if every
    model was trained at several; without these there is one of the ratio to the baseline's of the same seed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = by_model(runs)
    names = sorted(best, key=lambda name: mean_loss(best[name]))
    lines = [(run, style) for name, style in styles_of(names, baseline).items() for run in best[name]]
    panels = [against_updates, against_time]
    if any(run["lengths"] for run in runs.values()):
        panels.append(against_length)
    if all(len(by_rate(runs, name)) > 1 for name in best):
        panels.append(partial(against_rate, runs=runs))
    ratio = len(panels) == 2 and baseline in best and len(best) > 1
    count, legend_rows = len(panels) + ratio, -(-len(best) // 3)
    size = 5 * count, 4 + 0.25 * legend_rows
    figure, axes = pyplot.subplots(1, count, figsize=size, layout="constrained")
    axes[0].set(ylabel="validation perplexity of masked tokens")
    for axis, panel in zip(axes, panels, strict=not ratio):
        axis.set_yscale("log")
        panel(axis, lines)
    perplexities = axes[: len(panels)]
    low, high = (f(axis.get_ylim()[i] for axis in perplexities) for i, f in enumerate((min, max)))
    for axis in perplexities:
        axis.set_ylim(low, high)
        name_perplexities(axis)
    if ratio:
        against_baseline(axes[-1], lines, best[baseline])
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    place = {"loc": "outside lower center", "ncols": 3, "fontsize": "small"}
    figure.legend(handles, labels, title="model, last perplexity (mean of its seeds)", **place)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def styles_of(names: list[str], baseline: str) -> dict[str, dict]:
    """Return a style for each model, in the order given: the baseline black, ten colours solid, then dashed."""
    others = [name for name in names if name != baseline]
    styles = {name: {"color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"} for i, name in enumerate(others)}
    styles[baseline] = {"color": "black", "linewidth": 2}
    return {name: styles[name] | {"alpha": 0.9} for name in names}


def against_updates(axis, lines: list) -> None:
    last = {}
    for run, _ in lines:
        last.setdefault(run["model"], []).append(curve(run)[1][-1])
    for run, style in lines:
        updates, perplexity = curve(run)
        name = run["model"]
        label = f"{name}: {statistics.mean(last.pop(name)):.1f}" if name in last else None  # once for all its seeds
        axis.plot(updates, perplexity, label=label, **style)
    axis.set(xlabel="updates")


def against_time(axis, lines: list) -> None:
    for run, style in lines:
        if seconds := run["seconds_an_update"]:
            updates, perplexity = curve(run)
            axis.plot([u * seconds / 60 for u in updates], perplexity, **style)
    axis.set(xlabel="minutes of training")


def against_length(axis, lines: list) -> None:
    for run, style in lines:
        read = {int(n): scores["mlm_ppl"] for n, scores in run["lengths"].items()}
        axis.plot(sorted(read), [read[n] for n in sorted(read)], marker="o", **style)
    axis.set(xlabel="tokens in an evaluated sample, after training")
    lengths = sorted({int(n) for run, _ in lines for n in run["lengths"]})
    name_ticks(axis, lengths, [f"{n:,}" for n in lengths])


def against_rate(axis, lines: list, runs: dict) -> None:
    for name, style in {run["model"]: style for run, style in lines}.items():
        axis.plot(*zip(*by_rate(runs, name), strict=True), marker="o", **style)
    axis.set(xlabel="peak learning rate, after training")
    rates = sorted({float(run["lr"]) for run in runs.values()})
    name_ticks(axis, rates, [f"{rate:g}" for rate in rates])


def against_baseline(axis, lines: list, baseline_runs: list[dict]) -> None:
    """Draw the mean ratio of each model's seeds, and a band from the least to the most of them."""
    lowest = 1.0
    for name, style in {run["model"]: style for run, style in lines}.items():
        pairs = same_seeds([run for run, _ in lines if run["model"] == name], baseline_runs)
        ratios = ratios_of(pairs)
        if not ratios:
            continue
        axis.plot(ratios.keys(), [statistics.mean(r) for r in ratios.values()], **style)
        least, most = ([f(r) for r in ratios.values()] for f in (min, max))
        axis.fill_between(ratios.keys(), least, most, color=style["color"], alpha=0.15, linewidth=0)
        lowest = min(lowest, *least)
    axis.set(xlabel="updates", ylabel=f"perplexity / {baseline_runs[0]['model']}'s")
    axis.set_ylim(lowest - 0.02, min(axis.get_ylim()[1], WORST_RATIO))


def ratios_of(pairs: list[tuple[dict, dict]]) -> dict[int, list[float]]:
    """Return the ratios of all pairs, ours by the baseline's, at the validations of the first baseline run."""
    ratios = {}
    for updates in curve(pairs[0][1])[0] if pairs else []:
        both = [(perplexity_at(ours, updates), perplexity_at(base, updates)) for ours, base in pairs]
        if all(ours and base for ours, base in both):
            ratios[updates] = [ours / base for ours, base in both]
    return ratios


def curve(run: dict) -> tuple[list[int], list[float]]:
    return [point["updates"] for point in run["curve"]], [point["ppl"] for point in run["curve"]]


def by_rate(runs: dict, name: str) -> list[tuple[float, float]]:
    """Return learning rate and validation perplexity of the model's runs of the first seed."""
    first = min(run["seed"] for run in runs.values())
    of_model = [run for run in runs.values() if run["model"] == name and run["seed"] == first]
    return sorted((float(run["lr"]), run["splits"]["valid"]["mlm_ppl"]) for run in of_model)


def name_ticks(axis, values: list, names: list[str]) -> None:
    from matplotlib import ticker

    axis.set_xscale("log")
    axis.set_xticks(values, names)
    axis.xaxis.set_minor_locator(ticker.NullLocator())


def name_perplexities(axis) -> None:
    """Name 1, 2, 3 and 5 times a power of ten, and where the curves span less, more."""
    from matplotlib import ticker

    low, high = axis.get_ylim()
    few, more, all_ = (1, 2, 3, 5), (1, 1.5, 2, 3, 4, 6, 8), (1, 1.2, 1.5, *range(2, 10))
    subs = few if high > 10 * low else more if high > 3 * low else all_
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
