"""What the benchmarks share: flags, inputs, times in turns, peak memory, hardware and versions, tables, JSON lines.

Import it before torch: OpenMP reads only once, when it is loaded, how its threads should wait.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, used here to measure memory, logs a lot

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lambda_bert_command import waiting  # isort: skip

os.environ.update(waiting())

import torch

from fairseq_lambda.files import whole
from fairseq_lambda.hardware import bfloat16_is_faster

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results/speed"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parser(description: str, repeats: int | None = 5) -> argparse.ArgumentParser:
    """Return a parser with the flags of all speed benchmarks; with ``repeats`` None it has no ``--repeats``."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    result.add_argument("--device", choices=["cpu", "cuda"], default=default, help="(%(default)s)")
    if repeats is not None:
        result.add_argument("--repeats", type=int, default=repeats, help="fewest timed runs (%(default)s)")
    result.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    result.add_argument("--out", type=Path, default=RESULTS, help="folder for the results (%(default)s)")
    return result


def parse(parser_: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options after checking ``--device``, and whether ``--dtype`` and ``--autocast`` pay off there."""
    options = parser_.parse_args(argv)
    if not sys.warnoptions:  # about calls inside fairseq and hydra
        for category in (FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser_.error("--device cuda: torch finds no GPU; use --device cpu")
    for flag in ("dtype", "autocast"):
        if "bfloat16" in (getattr(options, flag, None) or ()) and not bfloat16_is_faster(options.device):
            say(f"--{flag} bfloat16: on this hardware products take longer in bfloat16 than in float32")
    return options


def faster_precision(device: str) -> str:
    """Return the default of ``--autocast``."""
    return "bfloat16" if bfloat16_is_faster(device) else "none"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def layer_inputs(
    batch: int, length: int, heads: int, dim_k: int, dim_v: int, dim_u: int, context: int, dtype=None, device="cpu"
) -> list[torch.Tensor]:
    """Return random queries, keys, values and position embedding of a lambda layer, with gradients."""
    shapes = (batch, length, heads, dim_k), (batch, length, dim_k, dim_u), (batch, length, dim_v, dim_u)
    scales = 1, 1 / length, 1, (dim_k * dim_u * context) ** -0.5
    return [
        torch.randn(shape, dtype=dtype, device=device).mul_(scale).requires_grad_()
        for shape, scale in zip((*shapes, (dim_k, dim_u, context)), scales, strict=True)
    ]


def seconds(function: Callable, device: str) -> float:
    synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def interleaved(
    functions: dict[str, Callable], device: str, repeats: int, warm_up: int = 1, budget: float = 2.0
) -> dict[str, float]:
    """Return the median seconds of each function. They run in turns, so that disturbances affect all of them.

    Args:
        functions: what to time, by name.
        device: "cpu" or "cuda".
        repeats: fewest timed runs of each.
        warm_up: untimed runs before.
        budget: seconds per function; fast ones run more often, up to ten times ``repeats``, until this is used up.
    """
    for function in list(functions.values()) * warm_up:
        function()
    times = {name: [] for name in functions}
    start = time.perf_counter()
    for turn in range(10 * repeats):
        if turn >= repeats and time.perf_counter() - start > budget * len(functions):
            break
        for name, function in functions.items():
            times[name].append(seconds(function, device))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(function: Callable, device: str) -> int:
    """Return the peak memory of ``function`` beyond what was allocated before.

    On a GPU it comes from torch's allocator, on a CPU from the profiler's record of all tensor allocations.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Return the FLOP/s of a large matrix product, from which lower bounds are computed."""
    rows, inner, columns = (16384, 4096, 4096) if device == "cuda" else (4096, 768, 3072)
    a = torch.randn(rows, inner, dtype=dtype, device=device)
    b = torch.randn(inner, columns, dtype=dtype, device=device)
    with torch.no_grad():
        time_ = interleaved({"product": lambda: a @ b}, device, repeats=5)["product"]
    return 2 * rows * inner * columns / time_


def tests_fail(*arguments: str) -> str:
    """Return "" if pytest passes with these arguments, else the last lines that it printed.

    Speed means nothing if results are wrong: benchmarks print no ratio for a backend with failing tests.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return "" if run.returncode == 0 else "\n".join((run.stdout + run.stderr).strip().splitlines()[-5:])


def end_unless_tests_pass(*arguments: str) -> None:
    say("tests")
    if reason := tests_fail(*arguments):
        sys.exit(f"error: the tests fail, so there is nothing to compare:\n{reason}")


def commit() -> str:
    """Return the checkout's commit, with ``+`` if the package or the scripts differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "fairseq_lambda", "scripts"], check=False)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + "+" * (changed.returncode != 0)


def setting(device: str, seed: int) -> dict:
    """Return hardware, versions, seed, date and commit."""
    cpu = Path("/proc/cpuinfo")
    cpu = cpu.read_text(encoding="utf-8") if cpu.exists() else ""
    name = re.search(r"model name\s*: (.*)", cpu)
    instructions = re.findall(r"\b(avx2|avx512f|avx512_bf16|amx_bf16)\b", cpu)
    versions = {}
    for package in ("torch", "triton", "ve-fairseq", "fairseq"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": name.group(1) if name else platform.machine(),
        "instructions": " ".join(sorted(set(instructions))),
        "threads": torch.get_num_threads(),
        "preload": Path(os.environ.get("LD_PRELOAD", "")).name,  # an allocator
        "python": platform.python_version(),
        **versions,
        "seed": seed,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def markdown(rows: list[list[str]]) -> str:
    """Return a table; the first row is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def table(rows: list[dict], columns: dict[str, tuple]) -> str:
    """Return a Markdown table; ``columns`` maps each header to a key of the rows, a unit and the number of decimals.

    Text is kept as it is; missing values are left empty.
    """

    def cell(value, unit: float = 1, digits: int = 0) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return f"{value / unit:,.{digits}f}"

    return markdown([list(columns), *([cell(row.get(key), *form) for key, *form in columns.values()] for row in rows)])


def related(rows: list[dict], model: str, key: str, name: str) -> list[dict]:
    """Return the rows with one more value, ``name``: the ratio of their ``key`` to that of ``model`` at this length."""
    of = {row["length"]: row[key] for row in rows if row["model"] == model}
    return [{**row, name: row[key] / of[row["length"]]} if row["length"] in of else row for row in rows]


def setting_line(setting_: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting_.items() if value != "")


def write_lines(path: Path, rows: list[dict]) -> None:
    """Write one JSON object per line; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save(options: argparse.Namespace, name: str, rows: list[dict], **known) -> None:
    """Write the rows, each with the ``known`` values and the setting, to ``--out``/NAME.jsonl; print the latter two."""
    known["setting"] = setting(options.device, options.seed)
    path = options.out / f"{name}.jsonl"
    write_lines(path, [row | known for row in rows])
    print("", *map(setting_line, known.values()), f"written to {path}", sep="\n")
