"""Links installed packages, with all that they require, into a folder that another environment puts on its path.

    python scripts/link_packages.py FOLDER torch pytest ...

This lets several environments share one torch. What is not linked cannot be imported there: fairseq, torchaudio.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

UNWANTED = ("torchaudio",)  # fairseq asks for it; one that does not fit torch breaks the import of transformers


def with_requirements(names: list[str]) -> dict[str, metadata.Distribution]:
    """Return the distributions with these names and those of their requirements that are installed."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found or name in UNWANTED:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                sys.exit(f"error: {sys.executable} has no {name}")
            continue  # a requirement of another platform, or of an extra
        requirements = found[name].requires or []
        waiting += [re.match(r"[\w.-]+", r)[0] for r in requirements if "extra ==" not in r]
    return found


def main(folder: str, *names: str) -> None:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for distribution in with_requirements(list(names)).values():
        for part in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            target, link = distribution.locate_file(part), folder / part
            if os.path.lexists(target) and not os.path.lexists(link):
                link.symlink_to(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
