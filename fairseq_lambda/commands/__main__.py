"""``lambda-bert NAME``, or ``python -m fairseq_lambda.commands NAME``: imports and runs the module of that name."""

import importlib
import logging
import os
import sys
import warnings

COMMANDS = {
    "preprocess": "a corpus to a data folder for training",
    "train": "a pretraining with the recipe of a size",
    "curve": "the learning curves of trainings as a picture",
    "evaluate": "masked-LM and sentence scores of a checkpoint",
    "finetune": "a model that labels texts or words, from labelled files",
    "predict": "labels of new texts by such a model",
    "export": "a folder to hand on, made of a training run",
    "fill-mask": "predictions for the masks of texts",
    "blimp": "grammatical knowledge of a model, by BLiMP's minimal pairs",
    "inspect": "pictures of what the layers do with a text",
    "to-transformers": "a trained model as a folder for transformers",
    "from-transformers": "such a folder back as a model for fairseq",
}


def usage() -> str:
    lines = ["usage: lambda-bert COMMAND [arguments]", "", "BERT with lambda layers in place of self-attention.", ""]
    lines += [f"  {name:<18}{what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "lambda-bert COMMAND --help describes one, with an example."])


def main(argv: list[str] | None = None) -> None:
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(f"error: unknown command '{name}': {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    # Before torch and fairseq are imported, which read these then. The commands print results, so that fairseq's INFO
    # stays out of them; and no user can do anything about warnings of torch about calls inside fairseq.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
    except (ValueError, OSError) as error:  # what a user can put right
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
