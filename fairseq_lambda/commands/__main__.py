"""``lambda-bert NAME``, or ``python -m fairseq_lambda.commands NAME``: imports and runs the module of that name."""

import importlib
import logging
import os
import sys
import warnings

from fairseq_lambda.version import __version__

COMMANDS = {
    "preprocess": "prepare a corpus for training",
    "train": "pretrain a model with the recipe of its size",
    "curve": "draw the learning curves of training runs",
    "evaluate": "score a checkpoint: masked LM and sentence order",
    "finetune": "train a model on labelled files to label texts or words",
    "predict": "label new texts with a fine-tuned model",
    "export": "make a folder to share from a training run",
    "fill-mask": "fill in the masks of texts",
    "blimp": "test a model's grammatical knowledge on BLiMP's minimal pairs",
    "inspect": "draw what the layers do with a text",
    "to-transformers": "convert a trained model for transformers",
    "from-transformers": "convert such a folder back for fairseq",
}


def usage() -> str:
    lines = ["usage: lambda-bert COMMAND [arguments]", "", "BERT with lambda layers in place of self-attention.", ""]
    lines += [f"  {name:<18}{what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "lambda-bert COMMAND --help describes a command, with an example; --version."])


def main(argv: list[str] | None = None) -> None:
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name == "--version":
        print(f"lambda-bert {__version__}")
        return
    if name not in COMMANDS:
        print(f"error: unknown command '{name}': {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    # Commands print results, so fairseq's INFO lines are left out; so are torch's warnings about calls inside fairseq,
    # which a user can do nothing about.
    logging.basicConfig(level=os.environ.get("LOGLEVEL", "WARNING").upper(), force=True)
    if not sys.warnoptions:
        for category in (FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
    try:
        command = importlib.import_module(f"fairseq_lambda.commands.{name.replace('-', '_')}")
    except ImportError as error:
        sys.exit(f"error: {error}: install the requirements (README.md), or set PYTHON to a Python that has them")
    try:
        sys.exit(command.main(arguments))
    except (ValueError, OSError) as error:  # those that a user can fix
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
