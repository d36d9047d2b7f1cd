"""``lambda-bert fill-mask``: fills in the masks of texts."""

from fairseq_lambda.commands.parser import MODEL, Parser
from fairseq_lambda.models import LambdaBertModel
from fairseq_lambda.symbols import WORD_START


def main(argv: list[str] | None = None) -> None:
    example = "lambda-bert fill-mask my-bert 'The film was <mask> in 1997.'"
    parser = Parser("fill-mask", __doc__.split(": ", 1)[1], example)
    parser.add_argument("checkpoint", help=MODEL)
    parser.add_argument("texts", nargs="+", help="texts, each with one or more <mask>")
    parser.add_argument("--topk", type=int, default=5, help="predictions per mask (default: %(default)s)")
    args = parser.parse_args(argv)
    bert = LambdaBertModel.from_pretrained(args.checkpoint)
    for text in args.texts:
        predictions = bert.fill_mask(text, topk=args.topk)
        print(text)
        for mask in [predictions] if text.count("<mask>") == 1 else predictions:
            print("  " + "  ".join(f"{p.token.strip() or WORD_START} {p.probability:.2f}" for p in mask))
