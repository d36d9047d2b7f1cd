"""``lambda-bert from-transformers``: converts a folder of transformers for fairseq."""

import sys
from pathlib import Path

from fairseq_lambda.commands.parser import Parser

DESCRIPTION = """\
Writes a folder like that of lambda-bert export, for the hub and lambda-bert finetune, from one that save_pretrained
wrote for a lambda_bert and its tokenizer. The new folder is written only if all weights are bit-equal, the logits of
the two models differ by at most 1e-5, and both encode a thousand sentences alike."""


def main(argv: list[str] | None = None) -> None:
    parser = Parser("from-transformers", DESCRIPTION, "lambda-bert from-transformers my-bert --dest my-bert-fairseq")
    parser.add_argument("folder", type=Path, help="folder that save_pretrained wrote, with the model and its tokenizer")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    parser.add_argument(
        "--sentencepiece", type=Path, metavar="FILE",
        help="the sentencepiece.model of the vocabulary (default: the one in the folder, left by to-transformers)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        from transformers.utils import logging as transformers_logging

        from fairseq_lambda.conversion.from_transformers import from_transformers
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'transformers>=4.57' protobuf") from error
    transformers_logging.disable_progress_bar()  # a conversion takes seconds
    report = from_transformers(args.folder, args.dest, args.sentencepiece, args.force)
    print(
        f"written to {args.dest}: {report['model']}, {report['weights']} weights bit-equal, logits within "
        f"{report['logits']:.1e}, ids of {report['sentences']:,} sentences equal"
    )
    if report["added"]:
        print(f"not trained, since the folder does not have them: {', '.join(report['added'])}", file=sys.stderr)
    if not report["sentences"]:
        print("no sentencepiece.model, so texts cannot be encoded: add --sentencepiece FILE", file=sys.stderr)
