"""``lambda-bert inspect``: draws what the layers do with a text, on one page."""

import json
import sys
from pathlib import Path

from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.files import check_destination, whole_folder
from fairseq_lambda.inspection import Reader, reader
from fairseq_lambda.modules import parse_layers


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert inspect my-bert 'The film was <mask> in 1997.' --out pictures"
    parser = Parser("inspect", __doc__.split(": ", 1)[1], example)
    parser.add_argument("model", help=f"{MODEL}, or a folder of transformers")
    parser.add_argument("text", nargs="+", help="a text, or a pair of texts; <mask> adds pictures of its prediction")
    parser.add_argument("--out", type=Path, required=True, help="folder to make: index.html, pictures as PNG and SVG")
    parser.add_argument("--force", action="store_true", help="replace the folder if it exists")
    layers_help = "layers whose contributions and slots are drawn, such as 0,2-3 (default: %(default)s)"
    parser.add_argument("--layers", default="all", help=layers_help)
    parser.add_argument("--head", type=int, help="head to draw contributions of (default: the strongest of each layer)")
    parser.add_argument("--other", help="a text whose content lambdas replace those of the first, for its <mask>")
    args = parser.parse_args(argv)
    if len(args.text) > 2:
        parser.error(f"{len(args.text)} texts: one or two are needed; quote a text with spaces")
    wrong = [c for text in (*args.text, args.other or "") for c in text if "\ud800" <= c <= "\udfff"]
    if wrong:  # bytes that Python could not decode
        parser.error(f"a text contains {wrong[0]!r}, which is not UTF-8: convert it, for instance with iconv")
    check_destination(args.out, args.force, "index.html", "--out")
    try:
        from fairseq_lambda.inspection.page import write_page
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        parser.error('the pictures need matplotlib: pip install -e ".[inspection]"')
    reads = open_model(args.model)
    layers = None
    if args.layers != "all":
        try:
            layers = sorted(parse_layers(args.layers, len(reads.mixings)))
        except ValueError as error:
            parser.error(str(error).replace("lambda_layers=", "--layers ").replace("layers=", "the model's ", 1))
        if not layers:
            parser.error(f"--layers {args.layers} draws nothing: give layers such as 0,2-3, or leave it out for all")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(args.out) as part:
        files = write_page(
            reads,
            tuple(args.text),
            part,
            Path(args.model).resolve().name,
            layers,
            args.head,
            args.other,
            progress=lambda message: print(message, file=sys.stderr, flush=True),
        )
    pictures = sum(name.endswith(".png") for name in files)
    print(f"{pictures} pictures on one page: {args.out / 'index.html'}")


def open_model(folder: str) -> Reader:
    """Return a reader of the model in a folder that fairseq or transformers wrote.

    Raises:
        ValueError: the folder is one of transformers, which is not installed, or it lacks weights.
    """
    if not is_of_transformers(Path(folder)):
        from fairseq_lambda.models import LambdaBertModel

        return reader(LambdaBertModel.from_pretrained(folder))
    try:
        from transformers import AutoTokenizer
        from transformers.utils import logging

        from fairseq_lambda.huggingface import LambdaBertForMaskedLM
    except ImportError as error:
        raise ValueError(f"{folder} is a model of transformers: {error}") from error
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the heads that are not in the folder
    try:
        model, report = LambdaBertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)
    head = [name for name in report["missing_keys"] if name.startswith("lm_head.")]
    if other := sorted(set(report["missing_keys"]) - set(head)):
        raise ValueError(f"{folder} lacks weights of the model, such as {other[0]}: convert or save it again")
    reads = reader(model, AutoTokenizer.from_pretrained(folder))
    if head:  # random, because the model was saved without it, for example after fine-tuning
        reads.lm_head = None
    return reads


def is_of_transformers(folder: Path) -> bool:
    """Return whether transformers wrote the folder: what ``lambda-bert export`` writes has no ``model_type``."""
    config = folder / "config.json"
    return config.is_file() and "model_type" in json.loads(config.read_text(encoding="utf-8"))
