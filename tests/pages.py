"""The pages of the documentation: their blocks of code, and their commands run in an empty folder, as a reader would.

A comment above a block of bash says what the block needs that tests do not have, such as ``<!-- needs a GPU -->``. All
others can be run by :func:`bash`, as they stand. To make them quick, ``short`` appends flags to the commands; of two
flags of one name, the last one wins.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from processes import ROOT, environment

NEEDS = ("a GPU", "several GPUs", "several machines", "a download")
TRAIN = (
    "--cpu --updates 4 --log-interval 1 --tokens-per-sample 32 --batch-size 4 --num-workers 0 --encoder-layers 2 "
    "--encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --encoder-attention-heads 2 --lambda-key-depth 4 "
    "--lambda-local-context 7"
)
SHORT = {"train": TRAIN, "preprocess": "--vocab-size 64 --workers 1"}  # a small model, and a corpus of 37 documents


class Block(NamedTuple):
    text: str
    language: str
    needs: str | None  # one of NEEDS, or None


class Page:
    """A file of Markdown, by its path from the root of the repository."""

    def __init__(self, path: str):
        self.path = ROOT / path
        self.text = self.path.read_text(encoding="utf-8")

    def blocks(self, language: str, after: str = "") -> list[Block]:
        """Return the fenced blocks of a language, from the first occurrence of some words on."""
        found = re.finditer(r"(?:<!-- needs (.*?) -->\n)?^```(\w+)\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)
        first = self.text.index(after)
        blocks = [Block(m[3], m[2], m[1]) for m in found if m.start() >= first]
        return [block for block in blocks if block.language == language]

    def commands(self, after: str = "") -> list[str]:
        """Return the blocks of bash that need nothing special, from the first occurrence of some words on."""
        return [block.text for block in self.blocks("bash", after) if block.needs is None]

    def python(self, folder: Path, scope: dict | None = None) -> dict:
        """Run the blocks of Python one after the other in ``folder``; return the names that they leave."""
        scope = {} if scope is None else scope
        before = os.getcwd()
        os.chdir(folder)
        try:
            for block in self.blocks("python"):
                exec(compile(block.text, str(self.path), "exec"), scope)
        finally:
            os.chdir(before)
        return scope

    def table(self, first: str, after: str = "") -> list[list[str]]:
        """Return the cells of the rows below the header that begins with this cell, a regular expression.

        It is the first such table from the first occurrence of the words ``after`` on.
        """
        text = self.text[self.text.index(after) :]
        rows = re.search(rf"^\| {first} \|.*\n\|[ :|-]+\n((?:\|.*\n)+)", text, re.MULTILINE)[1].splitlines()
        return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def bash(script: str, folder: Path, short: dict[str, str] | None = None, **variables: str) -> str:
    """Run lines of bash in ``folder``, which gets ``scripts/`` and a ``lambda-bert`` of this checkout.

    Returns what they print; fails at the first command that does. ``short``: flags to append, by subcommand.
    """
    if not (folder / "scripts").exists():
        _write_scripts(folder, short or {})
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    defaults = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(**(defaults | {"PATH": path} | variables)),
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert done.returncode == 0, script + done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def _write_scripts(folder: Path, short: dict[str, str]) -> None:
    """Write ``scripts/*.sh`` and ``bin/lambda-bert``, which call this checkout's with the flags of ``short``."""
    commands = {"bin/lambda-bert": "$1; shift"}
    for script in (ROOT / "scripts").glob("*.sh"):
        if subcommand := re.search(r'/lambda_bert\.sh" (\S+) "\$@"', script.read_text()):
            commands[f"scripts/{script.name}"] = subcommand[1]
    flags = "".join(f'  "{command} "*) set -- "$@" {added} ;;\n' for command, added in short.items())
    for name, command in commands.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"#!/usr/bin/env bash\ncommand={command}\n"
            f'case "$command $*" in\n  *--vocabulary-from*) ;;\n{flags}esac\n'
            f'exec "{ROOT}/scripts/lambda_bert.sh" "$command" "$@"\n'
        )
        path.chmod(0o755)


def lines_of(block: str) -> list[list[str]]:
    """Return the commands of a block as lists of words, without comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
