"""A picture of a comparison of :mod:`quality`, from its results alone."""

from pathlib import Path

from quality_report import by_model, loss


def draw(title: str, runs: dict, path: Path) -> None:
    """Draw validation perplexity against updates and time, a line a seed at each model's best rate.

    A third panel has it against length, if models were read at several, a fourth against the learning rate, if every
    model was trained at several.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best = by_model(runs)
    lengths = sorted({int(n) for run in runs.values() for n in run["lengths"]})
    rates = {name: by_rate(runs, name) for name in best}
    sweep = all(len(points) > 1 for points in rates.values())
    panels = 2 + bool(lengths) + sweep
    figure, axes = pyplot.subplots(1, panels, figsize=(5 * panels, 5), sharey=True, layout="constrained")
    for colour, name in enumerate(sorted(best, key=lambda name: loss(best[name][0]))):
        style = {"color": f"C{colour % 10}", "linestyle": "-" if colour < 10 else "--", "alpha": 0.9}
        for i, run in enumerate(best[name]):
            updates = [point["updates"] for point in run["curve"]]
            perplexity = [point["ppl"] for point in run["curve"]]
            label = f"{name}: {perplexity[-1]:.1f}" if i == 0 else None
            axes[0].plot(updates, perplexity, label=label, **style)
            if seconds := run["seconds_an_update"]:
                axes[1].plot([u * seconds / 60 for u in updates], perplexity, **style)
            if lengths:
                read = {int(n): scores["mlm_ppl"] for n, scores in run["lengths"].items()}
                axes[2].plot(sorted(read), [read[n] for n in sorted(read)], marker="o", **style)
        if sweep:
            axes[-1].plot(*zip(*rates[name], strict=True), marker="o", **style)
    axes[0].set(xlabel="updates", ylabel="validation perplexity of masked tokens", yscale="log")
    axes[1].set(xlabel="minutes of training")
    if lengths:
        axes[2].set(xlabel="tokens in an evaluated sample, after training")
        name_ticks(axes[2], lengths, [f"{n:,}" for n in lengths])
    if sweep:
        swept = sorted({rate for points in rates.values() for rate, _ in points})
        axes[-1].set(xlabel="peak learning rate, after training")
        name_ticks(axes[-1], swept, [f"{rate:g}" for rate in swept])
    name_perplexities(axes[0])
    figure.legend(title="model, last perplexity", fontsize="small", loc="outside lower center", ncols=3)
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def by_rate(runs: dict, name: str) -> list[tuple[float, float]]:
    """Return learning rate and validation perplexity of the model's runs of the first seed."""
    first = min(run["seed"] for run in runs.values())
    of_model = [run for run in runs.values() if run["model"] == name and run["seed"] == first]
    return sorted((float(run["lr"]), run["splits"]["valid"]["mlm_ppl"]) for run in of_model)


def name_ticks(axis, values: list, names: list[str]) -> None:
    from matplotlib import ticker

    axis.set_xscale("log")
    axis.set_xticks(values, names)
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def name_perplexities(axis) -> None:
    """Name 1, 2 and 5 times a power of ten, and where the curves span less than that, more."""
    from matplotlib import ticker

    low, high = axis.get_ylim()
    subs = (1, 2, 5) if high > 4 * low else (1, 1.2, 1.5, *range(2, 10))
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
