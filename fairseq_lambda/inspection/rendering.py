"""The page as HTML: sections with pictures and tables, which need no files except the pictures beside it."""

import html
from dataclasses import dataclass, field


@dataclass
class Section:
    """A heading, an explanation, and pictures (name without suffix, description) or a table, header first."""

    title: str
    text: str
    pictures: list[tuple[str, str]] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #1a1a1a;
  background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem; }
.text { background: #f3f3f3; padding: .6rem .8rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0 1.5rem; } figcaption { font-size: .9rem; color: #444; }
.wide { overflow-x: auto; } .wide img { display: block; max-width: none; }
table { border-collapse: collapse; min-width: 40rem; } th, td { text-align: left; vertical-align: top;
  padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ddd; }
"""


def render(name: str, text: str, sections: list[Section]) -> str:
    """Return the page as HTML; it needs no files except the pictures beside it."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(name)}: one text from the inside</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(name)}: one text from the inside</h1>",
        f'<p class="text">{html.escape(text)}</p>',
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
        if section.table:
            parts.append(_table(section.table))
        for picture, description in section.pictures:
            alt = html.escape(description, quote=True)
            parts.append(
                f'<figure><div class="wide"><img src="{picture}.svg" alt="{alt}"></div><figcaption>{alt} '
                f'(<a href="{picture}.png">PNG</a>, <a href="{picture}.svg">SVG</a>)</figcaption></figure>'
            )
    return "\n".join([*parts, "</body></html>", ""])


def _table(rows: list[list[str]]) -> str:
    header, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
