"""``lambda-bert from-transformers``: a folder of transformers as a model for fairseq."""

import sys
from pathlib import Path

from fairseq_lambda.commands.parser import Parser

DESCRIPTION = """\
Writes a folder as lambda-bert export does, for the hub and lambda-bert finetune, from what save_pretrained wrote of a
lambda_bert and its tokenizer. It is written only if every weight is the same to the bit, the logits of both differ by
1e-5 at most, and both read a thousand sentences alike."""


def main(argv: list[str] | None = None) -> None:
    parser = Parser("from-transformers", DESCRIPTION, "lambda-bert from-transformers my-bert --dest my-bert-fairseq")
    parser.add_argument("folder", type=Path, help="folder of save_pretrained, of the model and of its tokenizer")
    parser.add_argument("--dest", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--sentencepiece", type=Path, metavar="FILE",
        help="the sentencepiece.model of the vocabulary (default: that in the folder, where to-transformers puts it)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    try:
        from fairseq_lambda.conversion.from_transformers import from_transformers
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'transformers>=4.57' protobuf") from error
    report = from_transformers(args.folder, args.dest, args.sentencepiece)
    print(
        f"written to {args.dest}: {report['model']}, {report['weights']} weights bit-equal, logits within "
        f"{report['logits']:.1e}, ids of {report['sentences']:,} sentences equal"
    )
    if report["added"]:
        print(f"not trained, as the folder has none: {', '.join(report['added'])}", file=sys.stderr)
    if not report["sentences"]:
        print("no sentencepiece.model: texts cannot be encoded. --sentencepiece FILE gives one", file=sys.stderr)
