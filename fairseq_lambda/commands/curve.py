"""``lambda-bert curve``: draws the learning curves of training runs, from the files that --log-file wrote."""

import math
import re
from pathlib import Path

from fairseq_lambda.commands.parser import Parser
from fairseq_lambda.files import output

TRAINING = re.compile(r"^epoch \d+:.* mlm_ppl=(\S+?),.* num_updates=(\d+)", re.MULTILINE)
VALIDATION = re.compile(r"^epoch \d+ \| valid on .* \| mlm_ppl (\S+) .*\| num_updates (\d+)", re.MULTILINE)
Curve = dict[int, float]  # updates to perplexity


def read_curve(log: str) -> tuple[Curve, Curve]:
    """Return the masked-LM perplexities of training and of validation, by updates.

    If a resumed run has logged an update twice, the later line counts.
    """
    training, validation = (
        {int(updates): float(perplexity) for perplexity, updates in pattern.findall(log)}
        for pattern in (TRAINING, VALIDATION)
    )
    return dict(sorted(training.items())), dict(sorted(validation.items()))


def draw(curves: dict[str, tuple[Curve, Curve]], path: Path) -> None:
    """Draw the curves of one or more runs, given by name; ``path`` ends in .png, .svg or .pdf."""
    from matplotlib.figure import Figure

    curves = {name: (_finite(training), _finite(validation)) for name, (training, validation) in curves.items()}
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for i, (name, (training, validation)) in enumerate(curves.items()):
        label = f"{name}: " if len(curves) > 1 else ""
        axis.plot(training.keys(), training.values(), color=f"C{i}", alpha=0.4, label=f"{label}training")
        if validation:
            axis.plot(validation.keys(), validation.values(), color=f"C{i}", marker="o", label=f"{label}validation")
            last, perplexity = list(validation.items())[-1]
            axis.annotate(f"{perplexity:.1f}", (last, perplexity), (0, 7), textcoords="offset points", ha="center")
    axis.set(xlabel="updates", ylabel="perplexity of masked tokens", yscale="log")
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    axis.set_title(title(curves))
    with output(path) as unfinished:
        figure.savefig(unfinished, dpi=120, format=path.suffix[1:])


def title(curves: dict[str, tuple[Curve, Curve]]) -> str:
    """Return the title of the picture: where the best run ended, by its last perplexity that is a finite number."""
    curves = {name: (training, _finite(validation)) for name, (training, validation) in curves.items()}
    ends = {name: list(validation.items())[-1] for name, (_, validation) in curves.items() if validation}
    if not ends:
        return "No validation yet"
    best = min(ends, key=lambda name: ends[name][1])
    updates, perplexity = ends[best]
    which = f"{best}: " if len(curves) > 1 else ""
    return f"{which}validation perplexity {perplexity:.1f} after {updates:,} updates"


def not_finite(curve: Curve) -> int | None:
    """Return the updates from which on no perplexity is a finite number, or None if the last one is."""
    after = max(_finite(curve), default=-1)
    return next((updates for updates in curve if updates > after), None)


def _finite(curve: Curve) -> Curve:
    return {updates: perplexity for updates, perplexity in curve.items() if math.isfinite(perplexity)}


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert curve checkpoints/my-run/train.log --out curve.png"
    parser = Parser("curve", __doc__.split(": ", 1)[1], example)
    parser.add_argument("logs", nargs="+", type=Path, help="files that lambda-bert train --log-file FILE wrote")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("curve.png"),
        help="picture to write: .png, .svg or .pdf (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.out.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--out {args.out}: the name must end in .png, .svg or .pdf")
    curves = {}
    for path in args.logs:
        name = path.stem if path.stem != "train" else path.resolve().parent.name
        training, validation = read_curve(path.read_text(encoding="utf-8"))
        if not training:
            raise ValueError(f"{path} has no training log: lambda-bert train ... --log-file {path} writes one")
        curves[str(path) if name in curves else name] = training, validation
    try:
        draw(curves, args.out)
    except ImportError as error:
        raise ValueError(f"{error}: pip install matplotlib") from error
    print(f"written to {args.out}")
    for name, parts in curves.items():
        for part, curve in zip(("training", "validation"), parts, strict=True):
            if (updates := not_finite(curve)) is not None:
                print(f"{name}: the perplexity of {part} is not a finite number from {updates:,} updates on")
