"""The tables for a gpu.json: ``python benchmarks/gpu/summary.py FILE``; gpu.sh ends with them."""

import json
import sys
from pathlib import Path


def summary(results: list[dict]) -> str:
    """Return Markdown tables: the outcome of each stage; mixing and training steps against softmax attention."""
    rows = {result["stage"]: result["rows"] for result in results}
    parts = [_table(["stage", "outcome"], [[r["stage"], r["outcome"]] for r in results])]
    mixing = {(row["length"], row["model"]): row for row in rows.get("mixing", ()) if "model" in row}
    ours = "triton" if any(model == "triton" for _, model in mixing) else "banded"
    lines = []
    for length in sorted({length for length, model in mixing if model == ours}):
        found = {model: row for (n, model), row in mixing.items() if n == length}
        if "softmax" not in found:
            continue
        kinds = [kind for kind in ("device", "eager") if f"both {kind}" in found[ours]]
        cells = [f"{length:,}"]
        for kind in kinds:
            a, b = (found[model][f"both {kind}"] * 1e3 for model in (ours, "softmax"))
            cells += [f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}"]
        lines.append([*cells, f"{found[ours].get('both over floor', 0):.1f}"])
    if lines:
        header = [f"{what}, {kind}" for kind in kinds for what in (f"{ours}, ms", "softmax, ms", "ratio")]
        parts.append("Mixing, forward and backward\n\n" + _table(["tokens", *header, "over floor"], lines))
    steps = [row for row in rows.get("step", ()) if row["precision"] == "bfloat16"]
    lengths = sorted({row["length"] for row in steps})
    seconds = {(row["model"], row["length"]): row["seconds"] for row in steps}
    lines = []
    for model in dict.fromkeys(row["model"] for row in steps):
        own, ours_ = ([seconds.get((name, length)) for length in lengths] for name in (model, "lambda"))
        lines.append(
            [model, *(f"{a * 1e3:.0f} ({a / b:.2f})" if a and b else "" for a, b in zip(own, ours_, strict=True))]
        )
    if lines:
        header = ["model", *(f"{length:,} tokens" for length in lengths)]
        parts.append("A training step in bfloat16, ms (over lambda's)\n\n" + _table(header, lines))
    return "\n\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(summary(json.loads(Path(sys.argv[1]).read_text())))
