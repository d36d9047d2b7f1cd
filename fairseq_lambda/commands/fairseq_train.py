"""``python -m fairseq_lambda.commands.fairseq_train``: fairseq-train, also as one of torchrun's processes.

What a user can put right, the errors of this plugin and of files, ends it as one line without a traceback.
"""

import logging
import os
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


def is_message_for_the_user(error: Exception) -> bool:
    """Return whether code of this package raised it on purpose, or it names a file and what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None:
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").split(".")[0] == PACKAGE


def main() -> None:
    # The import of fairseq has set logging up already; this is what fairseq-train would have chosen.
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
        force=True,
    )
    # fairseq says at its import that tensorboardX is missing, which nobody needs
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    from fairseq_cli.train import cli_main

    if "--distributed-world-size" not in sys.argv:
        sys.argv += ranks_from_torchrun(os.environ, "--cpu" in sys.argv)
    try:
        cli_main()
    except (ValueError, OSError) as error:
        if not is_message_for_the_user(error):
            raise
        what = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else str(error)
        sys.exit(f"error: {what}")


if __name__ == "__main__":
    main()
