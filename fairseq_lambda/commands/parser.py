"""The command-line parser of the sub-commands."""

import argparse

MODEL = "training folder, exported folder, checkpoint file, or name of an included model"


class Parser(argparse.ArgumentParser):
    """Help with an example, no abbreviated flags (fairseq has none), and one line for wrong usage, with exit code 2."""

    def __init__(self, name: str, description: str, example: str):
        super().__init__(
            prog=f"lambda-bert {name}",
            description=description[:1].upper() + description[1:],
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help lists the options)\n")
