"""The site: README.md, the pages of docs/ and the API from docstrings. scripts/docs.sh builds it."""

import runpy
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
PAGES = {
    "Use": [
        "python",
        "../fairseq_lambda/pretrained/lambda_bert_mini-enwiki/README",
        "pretraining",
        "data",
        "fine-tuning",
        "scoring",
        "inspection",
        "transformers",
        "long-texts",
        "long-runs",
    ],
    "Understand": ["layer", "quality", "speed", "ablations", "design", "api"],
    "Help": ["troubleshooting", "../CONTRIBUTING", "../CHANGELOG", "../benchmarks/README"],
}

project = "fairseq_lambda"
version = release = runpy.run_path(str(ROOT / "fairseq_lambda/version.py"))["__version__"]
copyright = "fairseq_lambda's authors, MIT licence"
extensions = ["myst_parser", "sphinx.ext.napoleon", "sphinx.ext.autodoc", "autoapi.extension"]
root_doc = "README"  # so that the pages' links to one another are those of the repository
include_patterns = ["*.md", "docs/*.md", "docs/*.rst", "benchmarks/*.md"]
include_patterns += ["fairseq_lambda/pretrained/*/README.md"]

myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # a page of a forge may begin with a table
    "autoapi.python_import_resolution",  # constants that are made two at a time
]
autoapi_dirs = [str(ROOT / "fairseq_lambda")]
autoapi_generate_api_docs = False  # docs/api.rst says what is public
python_use_unqualified_type_names = True
highlight_language = "none"  # of blocks that name none: equations, in which lambda is no keyword
smartquotes = False

html_theme = "furo"
html_title = f"fairseq_lambda {version}"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_copy_source = False
exclude_patterns = [".*", "build", "checkpoints", "data-bin", "outputs", "tests"]


def add_contents(app: Sphinx, name: str, text: list[str]) -> None:
    """Give the first page the table of contents, which a forge would show as text."""
    if name == root_doc:
        for caption, pages in PAGES.items():
            names = "\n".join(page.removeprefix("../") if page.startswith("../") else f"docs/{page}" for page in pages)
            text[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
