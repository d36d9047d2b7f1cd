"""Draws docs/figures/layer.svg, a lambda layer beside softmax attention: python docs/figures/layer.py [FILE]

The shades of keys, values, lambdas and output are those of a real layer of random weights: seven tokens, k = 4, v = 6,
r = 3. The picture brings its own background, so that it can be read on a light and on a dark page.
"""

import math
import random
import sys
from pathlib import Path

TOKENS = "The old film was released in 1997".split()
AT, REACH = 4, 1  # the token whose output is shown, and r // 2
K, V = 4, 6
WIDTH, HEIGHT = 960, 508

LIGHT = {
    "paper": "#ffffff", "edge": "#d0d7de", "text": "#1f2328", "muted": "#57606a", "empty": "#eef1f4",
    "key": "#0969da", "value": "#1a7f37", "near": "#bc4c00", "query": "#8250df",
}  # fmt: skip
DARK = {
    "paper": "#0d1117", "edge": "#30363d", "text": "#e6edf3", "muted": "#9da7b3", "empty": "#21262d",
    "key": "#58a6ff", "value": "#3fb950", "near": "#f0883e", "query": "#bc8cff",
}  # fmt: skip

Matrix = list[list[float]]


def layer() -> dict[str, Matrix]:
    """Return keys, values, both lambdas, and query and output of one token, by the equations of docs/layer.md."""
    draw = random.Random(4)
    n, embedding = len(TOKENS), [[draw.gauss(0, 1) for _ in range(K)] for _ in range(2 * REACH + 1)]
    scores, values = ([[draw.gauss(0, 1) for _ in range(d)] for _ in range(n)] for d in (K, V))
    query = [[draw.gauss(0, 1)] for _ in range(K)]
    keys = [[math.exp(s[c]) / sum(math.exp(other[c]) for other in scores) for c in range(K)] for s in scores]
    content = product(transposed(keys), values)
    position = product(transposed(embedding), values[AT - REACH : AT + REACH + 1])
    both = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(content, position, strict=True)]
    output = product(transposed(query), both)
    return {"keys": keys, "values": values, "content": content, "position": position, "query": query, "output": output}


def transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def product(a: Matrix, b: Matrix) -> Matrix:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in transposed(b)] for row in a]


def cells(matrix: Matrix, x: float, y: float, size: float, colour: str) -> str:
    """Return a grid with its upper left corner at (x, y), a cell the darker the larger its number is beside 0."""
    largest = max(abs(number) for row in matrix for number in row)
    squares = [
        f'<rect class="{colour}" x="{x + size * j:g}" y="{y + size * i:g}" width="{size - 1.5:g}" '
        f'height="{size - 1.5:g}" opacity="{0.15 + 0.85 * abs(number) / largest:.2f}"/>'
        for i, row in enumerate(matrix)
        for j, number in enumerate(row)
    ]
    return "\n".join(squares)


def text(x: float, y: float, words: str, kind: str = "text", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{words}</text>'


def curve(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    middle = (y + to_y) / 2
    path = f"M{x:g} {y:g} C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
    return f'<path class="line {colour}" d="{path}"/>'


def draw() -> str:
    """Return the picture as SVG."""
    numbers = layer()
    return "\n".join([HEAD, *tokens(numbers), *lambdas(numbers), *output(numbers), *attention(), "</svg>", ""])


def tokens(numbers: dict[str, Matrix]) -> list[str]:
    """Return the row of tokens, with the key and the value of each below it."""
    parts = [text(28, 42, "A lambda layer sums the text first, then applies the queries to the sums", "text title")]
    for name, y, kind in (("tokens", 88, "text"), ("keys K", 127, "key strong"), ("values V", 149, "value strong")):
        parts.append(text(106, y, name, kind, "end"))
    for i, (word, centre) in enumerate(zip(TOKENS, CENTRES, strict=True)):
        kind = "chosen" if i == AT else "token"
        parts += [
            f'<rect class="{kind}" x="{centre - 35}" y="68" width="70" height="30" rx="5"/>',
            text(centre, 88, word, "text", "middle"),
            cells([numbers["keys"][i]], centre - 20, 117, 10, "key"),
            cells([numbers["values"][i]], centre - 30, 139, 10, "value"),
        ]
    return [*parts, text(CENTRES[AT], 62, "token n", "query strong", "middle")]


def lambdas(numbers: dict[str, Matrix]) -> list[str]:
    """Return the two lambdas, and lines from what is summed into each."""
    top, content, position = 264, 214, 474
    near = range(AT - REACH, AT + REACH + 1)
    low, high = CENTRES[near[0]] - 34, CENTRES[near[-1]] + 34
    parts = [curve(centre, 154, content, top - 12, "key") for centre in CENTRES]
    parts += [f'<path class="line near" d="M{low} 156 v7 H{high} v-7"/>']
    parts += [curve(CENTRES[i], 163, position, top - 12, "near") for i in near]
    for kind, x, colour, equation, per in (
        ("content", content, "key", "&#8721; K[m] V[m], over all tokens m", "text"),
        ("position", position, "near", "&#8721; E[m&#8722;n] V[m], over r neighbours m", "token"),
    ):
        parts += [
            cells(numbers[kind], x - 3 * 20, top, 20, colour),
            text(x, top + 104, f"{kind} lambda", f"{colour} strong", "middle"),
            text(x, top + 124, equation, "muted", "middle"),
            text(x, top + 143, f"one matrix k &#215; v per {per}", "muted", "middle"),
        ]
    parts.append(text(high + 8, 173, "r", "near strong"))
    return [*parts, text((content + position) / 2, top + 48, "+", "text sign", "middle")]


def output(numbers: dict[str, Matrix]) -> list[str]:
    """Return the last line: the query of one token times the sum of its two lambdas."""
    return [
        text(106, 455, "query q[n]", "query strong", "end"),
        cells(transposed(numbers["query"]), 118, 441, 17, "query"),
        text(196, 455, "&#215; (content + position lambda)"),
        text(446, 455, "="),
        cells(numbers["output"], 470, 441, 17, "query"),
        text(580, 455, "output y[n]", "query strong"),
        text(118, 485, "Twice the text: twice the sums, and matrices of the same size.", "muted"),
    ]


def attention() -> list[str]:
    """Return the n x n weights of softmax attention."""
    n, x, y, size = len(TOKENS), 754, 117, 24
    draw = random.Random(7)
    weights = [[draw.random() ** 2 for _ in range(n)] for _ in range(n)]
    lines = ["one weight per pair of tokens:", "a map n &#215; n in every head"]
    return [
        '<path class="rule" d="M716 68 V485"/>',
        text(x + n * size / 2, 88, "softmax attention", "text strong", "middle"),
        cells(weights, x, y, size, "text"),
        f'<rect class="row" x="{x - 3.25}" y="{y + AT * size - 3.25}" width="{n * size + 5}" height="{size + 5}"/>',
        text(x - 10, y + AT * size + 17, "n", "query strong", "end"),
        *(text(x + n * size / 2, y + n * size + 26 + 19 * i, line, "muted", "middle") for i, line in enumerate(lines)),
        text(x + n * size / 2, 466, "Twice the text:", "muted", "middle"),
        text(x + n * size / 2, 485, "four times the map.", "muted", "middle"),
    ]


def style(colours: dict[str, str]) -> str:
    """Return the rules that give the classes their colours."""
    rules = [f".{name}{{fill:{colour}}}" for name, colour in colours.items() if name not in ("edge", "empty")]
    rules += [f".line.{name}{{stroke:{colours[name]}}}" for name in ("key", "near")]
    rules += [f".paper,.token,.rule{{stroke:{colours['edge']}}}", f".token,.chosen{{fill:{colours['empty']}}}"]
    return "\n".join([*rules, f".chosen,.row{{stroke:{colours['query']};stroke-width:2.5}}"])


CENTRES = [153 + 76 * i for i in range(len(TOKENS))]
HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="name">
<title id="name">A lambda layer: the keys and values of all tokens are summed into one content lambda, the values of
the neighbours into a position lambda per token, and a token's query is applied to both. There is no n by n map.</title>
<style>
svg {{ font: 15px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }}
.strong, .title {{ font-weight: 600 }} .title {{ font-size: 20px }} .sign {{ font-size: 30px }}
.muted {{ font-size: 14px }}
.line {{ fill: none !important; stroke-width: 1.5; opacity: .65 }} .row {{ fill: none }}
{style(LIGHT)}
@media (prefers-color-scheme: dark) {{
{style(DARK)}
}}
</style>
<rect class="paper" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>"""

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg")
    target.write_text(draw(), encoding="utf-8")
