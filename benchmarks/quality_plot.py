"""A picture of a comparison of :mod:`quality`, from its results alone."""

from pathlib import Path

from quality_report import by_model, loss


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
            if seconds := run["seconds_an_update"]:
                axes[1].plot([u * seconds / 60 for u in updates], perplexity, **style)
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
