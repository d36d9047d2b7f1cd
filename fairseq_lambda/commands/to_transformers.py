"""``lambda-bert to-transformers``: converts a trained or fine-tuned model to a folder for transformers."""

from pathlib import Path

from fairseq_lambda.commands.parser import MODEL, Parser

DESCRIPTION = """\
Writes a folder that transformers loads with trust_remote_code=True, without this package and without fairseq: weights
as safetensors, the code, a fast tokenizer, a card. The folder is written only if all weights are bit-equal, the logits
of the two models differ by at most 1e-5, and both encode a thousand sentences alike. docs/transformers.md shows how to
use it."""


def main(argv: list[str] | None = None) -> None:
    parser = Parser("to-transformers", DESCRIPTION, "lambda-bert to-transformers checkpoints/my-run --dest my-bert")
    parser.add_argument("checkpoint", type=Path, help=MODEL)
    parser.add_argument("--dest", type=Path, required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    args = parser.parse_args(argv)
    try:
        from transformers.utils import logging as transformers_logging

        from fairseq_lambda.conversion.to_transformers import to_transformers
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'transformers>=4.57' protobuf") from error
    transformers_logging.disable_progress_bar()  # a conversion takes seconds
    report = to_transformers(args.checkpoint, args.dest, args.force)
    ids = f"ids of {report['sentences']:,} sentences equal" if report["sentences"] else (
        "no tokenizer, as the model came without a sentencepiece.model"
    )  # fmt: skip
    print(
        f"written to {args.dest}: {report['model']}, {report['weights']} weights bit-equal, logits within "
        f"{report['logits']:.1e}, {ids}"
    )
