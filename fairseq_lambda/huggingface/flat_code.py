"""The code that is saved with a model, so that its folder loads where this package is not installed.

transformers copies only files that are in one folder and import each other by bare names. So every module that the
models need is written to one file of that folder: ``fairseq_lambda.ops.banded.mix`` to ``ops_banded_mix.py``. The
Triton kernels are left out; the copies use those of the package where it is installed.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from fairseq_lambda.files import whole

PACKAGE = "fairseq_lambda"
ENTRIES = {  # names that transformers' users look for
    f"{PACKAGE}.huggingface.configuration": "configuration_lambda_bert",
    f"{PACKAGE}.huggingface.modeling": "modeling_lambda_bert",
}
CLASSES = {
    "AutoModel": "LambdaBertModel",
    "AutoModelForPreTraining": "LambdaBertForPreTraining",
    "AutoModelForMaskedLM": "LambdaBertForMaskedLM",
    "AutoModelForSequenceClassification": "LambdaBertForSequenceClassification",
    "AutoModelForTokenClassification": "LambdaBertForTokenClassification",
    "AutoModelForQuestionAnswering": "LambdaBertForQuestionAnswering",
}
AUTO_MAP = {
    "AutoConfig": "configuration_lambda_bert.LambdaBertConfig",
    **{auto: f"modeling_lambda_bert.{name}" for auto, name in CLASSES.items()},
}
IMPORT = re.compile(rf"^( *)from ({PACKAGE}(?:\.\w+)*) import ", re.MULTILINE)


def write_code(folder: str | Path) -> None:
    """Write the code files into ``folder``: made from the package, or, if this is such a file itself, copied."""
    if __name__.startswith(f"{PACKAGE}."):
        files = flat_files()
    else:
        beside = Path(__file__).parent
        files = {path.name: path.read_text(encoding="utf-8") for path in beside.glob("*.py")}
        files.pop("__init__.py", None)
    for name, text in files.items():
        with whole(Path(folder, name)) as file:
            file.write_text(text, encoding="utf-8")


def flat_files() -> dict[str, str]:
    """Return the flat files, name to text, of all modules that the models import from this package."""
    modules = _needed(ENTRIES)
    files = {}
    for module in modules:
        text = IMPORT.sub(lambda match: f"{match[1]}from .{_flat_name(match[2])} import ", _source(module))
        files[f"{_flat_name(module)}.py"] = (
            f"# Made from {module} by {PACKAGE}.huggingface.flat_code. Do not edit.\n{text}"
        )
    # transformers copies the files that an entry imports, and 4.57 does not follow their imports. So each entry names
    # all files; a copy also needs all of them to save the model again.
    names = "".join(f"    from .{_flat_name(module)} import *\n" for module in modules)
    for entry in ENTRIES.values():
        files[f"{entry}.py"] += f"\nif False:  # all files, by name\n{names}"
    return files


def _needed(entries: Iterable[str]) -> list[str]:
    """Return ``entries`` and the modules of this package that they import, directly or through each other."""
    found, waiting = [], list(entries)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.append(module)
            waiting += [
                node.module
                for node in ast.walk(ast.parse(_source(module)))
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}.")
            ]
    return sorted(found)


def _flat_name(module: str) -> str:
    return ENTRIES.get(module) or module.removeprefix(f"{PACKAGE}.").replace(".", "_")


def _source(module: str) -> str:
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")
