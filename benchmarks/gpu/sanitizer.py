"""compute-sanitizer on one small case of the kernels, forward and backward, if it is installed."""

from stage import HERE, Stage  # isort: skip  sets the path

import os
import shutil
import subprocess
import sys

CASE = (45, 2, 23, 1, 3, 16, 20)  # as in kernels.py


def main() -> None:
    stage = Stage("sanitizer")
    if os.environ.get("LAMBDA_BERT_SANITIZED"):  # what the sanitizer runs
        from kernels import agrees

        stage.check(agrees((CASE, "bfloat16", stage.device, stage.seed))["right"], "the numbers are wrong")
        stage.finish()
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not stage.cuda or program is None:
        stage.write(outcome="not run: " + ("needs a GPU" if not stage.cuda else "compute-sanitizer is not installed"))
        stage.finish()
    command = [program, "--error-exitcode", "3", "--kernel-regex", "kernel_regex:kernel$", sys.executable]
    command += [str(HERE / "sanitizer.py"), "--out", str(stage.out), "--seed", str(stage.seed)]
    # separate allocations, else a read beyond a tensor would hit another one
    environment = {**os.environ, "LAMBDA_BERT_SANITIZED": "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=max(5, stage.left), check=False
        )
    except subprocess.TimeoutExpired:
        stage.check(False, f"not finished in {stage.seconds:.0f} s")
        stage.finish()
    print(done.stdout[-3000:], done.stderr[-1000:])
    stage.write(outcome="no error found" if done.returncode == 0 else f"exit code {done.returncode}")
    stage.check(done.returncode == 0, "compute-sanitizer found errors")
    stage.finish()


if __name__ == "__main__":
    main()
