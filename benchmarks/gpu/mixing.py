"""The mixing of tokens alone, forward and with backward: Triton, banded, FlashAttention, the convolution form.

A batch has 32,768 tokens; a longer text is a batch by itself. ``eager`` is the time per call for calls queued one after
another, ``device`` that of the same work replayed from a CUDA graph, without the CPU's part. ``over floor`` is the
device's time over its lower bound: bytes or products over the limits from the stage ``card``, whichever is larger.
"""

from stage import Stage  # isort: skip  sets the path

import importlib.util
from types import SimpleNamespace

import measuring
import torch

from fairseq_lambda.ops import resolve_backend

# the most important ones first
LENGTHS = [512, 256, 2048, 8192, 128, 1024, 4096, 32768, 65536, 16384]
SHAPE = {"embed_dim": 768, "heads": 12, "dim_k": 16, "dim_u": 1, "local_context": 23}


def peers():
    """Return benchmarks/speed/mixing.py, which cannot be imported by name because this file has the same one."""
    path = measuring.ROOT / "benchmarks/speed/mixing.py"
    spec = importlib.util.spec_from_file_location("speed_mixing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def floor(tokens: int, batch: int, backward: bool) -> tuple[int, int]:
    """Return the fewest bytes to move, and the floating-point operations, of bfloat16 mixing."""
    h, k, r = SHAPE["heads"], SHAPE["dim_k"], SHAPE["local_context"]
    v = SHAPE["embed_dim"] // h
    ends = h * k + k + v  # queries, keys, values; the output and its gradient have h v numbers
    forward = 2 * (tokens * (ends + h * v) + batch * k * v), 2 * tokens * (k * v + h * k * v + h * r * (k + v))
    if not backward:
        return forward
    # read the output's gradient and the inputs, write the inputs' gradients; each product twice, the scores once more
    again = 2 * tokens * (2 * ends + h * v), 2 * (forward[1] - 2 * tokens * h * r * k) + 6 * tokens * h * r * k
    return forward[0] + again[0], forward[1] + again[1]


def profile(stage: Stage, function) -> None:
    """Write a row for each kernel of one call, with its time on the device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        function()
        torch.cuda.synchronize()
    for event in sorted(record.key_averages(), key=lambda e: -e.self_device_time_total):
        if event.self_device_time_total:
            stage.write(kernel=event.key[:60], calls=event.count, microseconds=round(event.self_device_time_total, 1))


def main() -> None:
    stage, speed = Stage("mixing"), peers()
    stage.use_tiles()
    tokens = 32768 if stage.cuda else 2048
    shape = SimpleNamespace(**SHAPE, dtype="bfloat16", device=stage.device)
    lengths = LENGTHS if stage.cuda else [512, 128]
    names = ["triton", "softmax", "banded", "convolution"] if stage.cuda else ["banded", "softmax"]
    bytes_, flop = stage.ceiling("bytes_per_second"), stage.ceiling("flop_per_second")
    if stage.cuda:
        _, inputs = speed.make("triton", 1, 512, shape)
        chosen = resolve_backend("auto", inputs[0], inputs[2], inputs[3])
        stage.check(chosen == "triton", f"auto fell back to {chosen}")
    for length in lengths:
        batch = max(1, tokens // length)
        for name in names:
            if stage.left < 2 or (stage.cuda and name in ("banded", "convolution") and length not in (512, 8192)):
                continue
            function, inputs = speed.make(name, batch, length, shape)
            with torch.no_grad():
                gradient = torch.randn_like(function(*inputs))
            ahead = torch.no_grad()(lambda f=function, i=inputs: f(*i))
            both = lambda f=function, i=inputs, g=gradient: torch.autograd.grad(f(*i), i, g)  # noqa: E731
            row = {"length": length, "batch": batch, "model": name}
            for key, passes in (("forward", ahead), ("both", both)):
                times = stage.times(passes, 0.2)
                row |= {f"{key} {kind}": time for kind, time in times.items()}
                if name == ("triton" if stage.cuda else "banded") and bytes_ and flop:
                    moved, made = floor(batch * length, batch, key == "both")
                    row[f"{key} over floor"] = list(times.values())[-1] / max(moved / bytes_, made / flop)
            ends = sum(t.nbytes for t in (*inputs, gradient))
            row["workspace bytes"] = measuring.peak_bytes(both, stage.device) - ends
            stage.write(**row)
            if name == "triton" and length == 512:
                profile(stage, both)
            del function, inputs, gradient, ahead, both
    stage.finish()


if __name__ == "__main__":
    main()
