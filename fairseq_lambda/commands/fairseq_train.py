"""``python -m fairseq_lambda.commands.fairseq_train``: fairseq-train, also as one of torchrun's processes.

What a user can put right, the errors of this plugin and of files, ends it as one line without a traceback.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping

PACKAGE = __name__.split(".")[0]


def ranks_from_torchrun(environment: Mapping[str, str], cpu: bool) -> list[str]:
    """Return the flags that tell fairseq which of torchrun's processes it is; none for a single process.

    fairseq asks torchrun's environment only if it sees more than one GPU on this machine, so that neither processes on
    a CPU nor one GPU on each of several machines would find each other.

    Args:
        environment: with torchrun's WORLD_SIZE, RANK and LOCAL_RANK.
        cpu: fairseq's own DDP then, because it gives torch's a GPU number even on a CPU.
    """
    if int(environment.get("WORLD_SIZE", 1)) == 1 or "RANK" not in environment:
        return []
    flags = ["--distributed-world-size", environment["WORLD_SIZE"], "--distributed-rank", environment["RANK"]]
    flags += ["--distributed-init-method", "env://", "--distributed-no-spawn"]
    if cpu:
        return [*flags, "--device-id", "0", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    return [*flags, "--device-id", environment.get("LOCAL_RANK", "0")]


# What fairseq and torch say of flags that do not go together, without naming them.
EXPLAINED = {
    r"Sentences lengths should not exceed max_tokens=(\d+)": r"a sample is longer than --max-tokens \1 (or "
    "--max-tokens-valid, which follows it): raise it, or lower --tokens-per-sample",
    "not compiled with CUDA": "--fp16 needs a GPU: leave it out, or use --autocast bfloat16",
    "float division by zero": "--update-freq 0: must be at least 1",
    r"^'(\w+)'$": r"--best-checkpoint-metric \1 is not among the scores of a validation: mlm_loss, for example, is",
}


def message_for_the_user(error: Exception) -> str | None:
    """Return what a user can put right, in one line; None for a fault of the program, which needs its traceback.

    This package and fairseq raise ValueError and OSError on purpose; an OSError that names a file says what is wrong.
    """
    frames = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError) and frames[-1] in (PACKAGE, "fairseq", "fairseq_cli"):
        return str(error)
    for pattern, explanation in EXPLAINED.items():
        found = re.search(pattern, str(error))
        if found and frames[-1] in ("fairseq", "fairseq_cli", "torch"):
            return found.expand(explanation)
    return None


def main() -> None:
    # The import of fairseq has set logging up already; this is what fairseq-train would have chosen.
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
        force=True,
    )
    from fairseq_cli.train import cli_main

    if "--distributed-world-size" not in sys.argv:
        sys.argv += ranks_from_torchrun(os.environ, "--cpu" in sys.argv)
    try:
        cli_main()
    except Exception as error:
        message = message_for_the_user(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
