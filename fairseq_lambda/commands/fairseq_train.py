"""``python -m fairseq_lambda.commands.fairseq_train``: fairseq-train, also as one of torchrun's processes.

Errors that a user can fix, such as those of this plugin and of files, are shown in one line without a traceback.
"""

import ast
import ctypes
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Mapping

from fairseq_lambda.commands.flags import last_value

PACKAGE = __package__.split(".")[0]  # __name__ is __main__
PR_SET_PDEATHSIG = 1


def ranks_from_torchrun(environment: Mapping[str, str], cpu: bool) -> list[str]:
    """Return the flags that tell fairseq which of torchrun's processes it is; none for a single process.

    fairseq reads torchrun's environment only if it sees more than one GPU on this machine. Without these flags,
    processes on a CPU, or on several machines with one GPU each, would not find each other.

    Args:
        environment: with torchrun's WORLD_SIZE, RANK and LOCAL_RANK.
        cpu: choose fairseq's own DDP, since fairseq gives torch's DDP a GPU number even on a CPU.
    """
    if int(environment.get("WORLD_SIZE", 1)) == 1 or "RANK" not in environment:
        return []
    flags = ["--distributed-world-size", environment["WORLD_SIZE"], "--distributed-rank", environment["RANK"]]
    flags += ["--distributed-init-method", "env://", "--distributed-no-spawn"]
    if cpu:
        return [*flags, "--device-id", "0", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]
    return [*flags, "--device-id", environment.get("LOCAL_RANK", "0")]


def _are_betas(text: str) -> bool:
    try:
        first, second = ast.literal_eval(text)
        return 0 <= first < 1 and 0 <= second < 1
    except (ValueError, TypeError, SyntaxError):
        return False


TOO_SHORT = "is below the longest sample: raise it, or lower --tokens-per-sample"
# Flags that are not named in the errors they cause: whether a value is at fault, given the error, and an explanation.
AT_FAULT: dict[str, tuple[Callable[[str, str], bool], str]] = {
    "--max-tokens": (lambda value, error: error.endswith(f"exceed max_tokens={value}"), TOO_SHORT),
    "--max-tokens-valid": (lambda value, error: error.endswith(f"exceed max_tokens={value}"), TOO_SHORT),
    "--best-checkpoint-metric": (
        lambda value, error: error == repr(value),
        "is not among the scores of a validation, such as mlm_loss",
    ),
    "--update-freq": (lambda value, _: value == "0", "must be at least 1"),
    "--log-interval": (lambda value, _: value == "0", "must be at least 1"),
    "--total-num-update": (lambda value, _: float(value) <= 0, "must be above 0"),
    "--num-workers": (lambda value, _: int(value) < 0, "must be at least 0"),
    "--seed": (lambda value, _: not 0 <= int(value) < 2**32, f"must be between 0 and {2**32 - 1}"),
    "--adam-betas": (
        lambda value, _: not _are_betas(value),
        "must be two numbers of at least 0 and below 1, such as '(0.9, 0.98)'",
    ),
    "--optimizer": (
        lambda value, _: value == "composite",
        "needs groups of parameters, which this model does not have: choose another one, such as adam",
    ),
}


def message_for_the_user(error: Exception, argv: list[str]) -> str | None:
    """Return one line about an error that the user can fix; None for a bug, which needs its traceback.

    ``AT_FAULT`` is tried first. Any other ValueError or OSError of this package or of fairseq was raised on purpose; an
    OSError that names a file says what is wrong.
    """
    for flag, (is_at_fault, explanation) in AT_FAULT.items():
        value = last_value(argv, flag)
        if value is not None and is_at_fault(value, str(error)):
            return f"{flag} {value}: {explanation}"
    frames = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError) and frames[-1] in (PACKAGE, "fairseq", "fairseq_cli"):
        return str(error)
    if frames[-1] == "torch" and re.search("not compiled with CUDA|no NVIDIA driver", str(error)) and "--fp16" in argv:
        return "--fp16 needs a GPU: leave it out, or use --autocast bfloat16"
    if frames[-1] == "fairseq" and "xla_device" in str(error):
        return "--bf16 and --tpu need a TPU and torch_xla: leave them out, or use --autocast bfloat16"
    if isinstance(error, ImportError) and frames[-1] == "fairseq" and "install" in str(error):
        return str(error)  # of an optimizer, for example
    return None


# What fairseq logs about its own steps, a dozen lines around every validation. It also takes all biases that are absent
# for one that is shared.
HOUSEKEEPING = re.compile(
    "can_reuse_epoch_itr|reuse_dataloader|rebuild_batches|creating new batches|grouped total_num_itrs"
    "|loading train data|Start iterating|begin dry-run|Preparing to (load|save)|Saving checkpoint to|Finished saving"
    r"|{'_name'|num. expert model|--user-dir=.* has already been imported|detected shared parameter: .*\.bias <- "
)


def is_for_the_user(record: logging.LogRecord) -> bool:
    """Return whether to show a line. The whole configuration, of 5 kB, is in ``--log-file`` and in every checkpoint."""
    return record.levelno > logging.INFO or not HOUSEKEEPING.match(record.getMessage())


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it ends; Linux only.

    A training that outlived its command or torchrun would keep its folder locked for the next one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def scoring_command(argv: list[str]) -> str | None:
    """Return the command that scores the model that was trained, if it was pretrained by ``lambda-bert train``."""
    folder, data = last_value(argv, "--save-dir"), argv[1] if len(argv) > 1 else "-"
    if last_value(argv, "--task") != "masked_lm_sop" or folder is None or data.startswith("-"):
        return None
    return shlex.join(["lambda-bert", "evaluate", folder, "--data", data.split(os.pathsep)[0]])


def main() -> None:
    if "RANK" in os.environ:
        end_with_parent()
    # Importing fairseq has set up logging already; these are the settings of fairseq-train.
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
        force=True,
    )
    from fairseq_cli.train import cli_main

    for handler in logging.root.handlers:
        handler.addFilter(is_for_the_user)
    if "--distributed-world-size" not in sys.argv:
        sys.argv += ranks_from_torchrun(os.environ, "--cpu" in sys.argv)
    try:
        cli_main()
    except KeyboardInterrupt:
        print("error: interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = message_for_the_user(error, sys.argv)
        if message is None:
            raise
        sys.exit(f"error: {message}")
    if os.environ.get("RANK", "0") == "0" and (command := scoring_command(sys.argv)):
        print(f"to score the model: {command}")


if __name__ == "__main__":
    main()
