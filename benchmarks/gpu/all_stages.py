"""Checks and benchmarks the lambda layer on one CUDA GPU, within --minutes; --device cpu tries it without a GPU.

  card      the versions, the GPU, and its two limits: copy bandwidth and a large bfloat16 product
  kernels   the Triton kernels against a float64 reference: output, every gradient, equal bits, unwritten memory
  tiles     times of the tile candidates; later stages use the fastest
  mixing    the mixing of tokens alone, against FlashAttention, the convolution form and the banded backend
  step      a whole training step of base, against a Transformer with rotary positions, RoBERTa, BERT, ModernBERT
  updates   fifty updates of mini on the GPU and on the CPU, --fp16, --amp, resuming
  sanitizer compute-sanitizer on one small case

Each stage runs in its own process and has a share of the minutes, so that a stage that breaks or hangs does not affect
the others. Rows are written to FOLDER/STAGE.jsonl as they are measured, output to FOLDER/STAGE.log. FOLDER/gpu.json has
all rows, those of stages that ran earlier too, and the output ends with a table. The exit code is 1 if a stage failed
or ran out of time.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from summary import summary

HERE = Path(__file__).resolve().parent

GRACE = 10  # seconds that a stage may exceed its time, because it checks the time only between measurements
LEAST = 5  # fewest seconds for a stage
# stage -> its share of the time; unused time goes to the later stages
SHARES = {"card": 0.05, "kernels": 0.24, "tiles": 0.12, "mixing": 0.16, "step": 0.27, "updates": 0.1, "sanitizer": 0.06}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(%(default)s)")
    parser.add_argument("--minutes", type=float, default=7, help="for all stages together (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the results")
    parser.add_argument("--stages", nargs="+", choices=SHARES, default=list(SHARES), help="default: all, in this order")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    options = parser.parse_args(argv)
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes:g}: must be more than 0")
    return options


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_stage(stage: str, seconds: float, options: argparse.Namespace) -> dict:
    """Run one stage and return its outcome."""
    # Triton decides at import whether it interprets kernels; only the stage that checks them needs that
    interpret = {"TRITON_INTERPRET": "1"} if options.device == "cpu" and stage == "kernels" else {}
    command = [sys.executable, str(HERE / f"{stage}.py"), "--device", options.device, "--out", str(options.out)]
    command += ["--seconds", f"{seconds:.0f}", "--seed", str(options.seed)]
    # the compiler's cache is kept with the results: the command writes nowhere else
    environment = {"TRITON_CACHE_DIR": str(options.out / "triton"), "PYTHONWARNINGS": "ignore"} | os.environ | interpret
    for ending in ("jsonl", "json"):  # of an earlier run; the stage may be stopped before it gets to either
        (options.out / f"{stage}.{ending}").unlink(missing_ok=True)
    start = time.monotonic()
    with open(options.out / f"{stage}.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code = process.wait(seconds + GRACE)
            outcome = "passed" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = f"stopped after {seconds:.0f} s"
        finally:  # also after Ctrl-C, which does not reach the stage: it has a session of its own
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    rows = read_rows(options.out / f"{stage}.jsonl")
    if outcome == "passed" and not rows:
        outcome = "failed: it wrote no numbers"
    return {"stage": stage, "outcome": outcome, "seconds": round(time.monotonic() - start, 1), "rows": rows}


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    end, file = time.monotonic() + 60 * options.minutes, options.out / "gpu.json"
    earlier = json.loads(file.read_text()) if file.exists() else []
    kept, results = {result["stage"]: result for result in earlier}, []
    for i, stage in enumerate(options.stages):
        share = SHARES[stage] / sum(SHARES[s] for s in options.stages[i:])
        results.append(run_stage(stage, max(LEAST, (end - time.monotonic()) * share), options))
        result = results[-1]
        print(f"{stage:10} {result['outcome']}, {result['seconds']:.0f} s, {len(result['rows'])} rows", flush=True)
        text = (options.out / f"{stage}.log").read_text(errors="replace").strip()
        print("\n".join(f"    {line}" for line in text.splitlines()[-40:]), flush=True)
        kept[stage] = result
        everything = [kept[name] for name in SHARES if name in kept]
        file.write_text(json.dumps(everything, indent=1) + "\n")
    print(f"\n{summary(everything)}\n\nwritten to {file}")
    if any(r["outcome"] != "passed" for r in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
