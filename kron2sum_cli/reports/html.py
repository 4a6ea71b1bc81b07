"""HTML by hand: a page that needs nothing from outside, in which every text is escaped."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 84rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #ccc; }
p { max-width: 50rem; }
.lead { color: #444; margin-top: 0; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #444; padding: .2rem 0 .4rem; white-space: nowrap; }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.prose { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
th.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
tbody th { position: sticky; left: 0; background: #fff; }
td.strong { background: #fdeadd; }
small { color: #555; }
code { font-size: .95em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { color: #444; font-size: .87rem; max-width: 50rem; }
img { max-width: 100%; height: auto; }
nav a { margin-right: 1rem; }
a { color: #0060a0; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; } tr, figure { break-inside: avoid; } }
"""

LONGEST_HEADING = 20
"""The heading of a column that has more letters may break into lines."""


@dataclass(frozen=True)
class Markup:
    """HTML that is finished: everything else is escaped where it is put in."""

    html: str


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and whether it is aligned as text."""

    heading: str
    is_text: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table, which may stand out, and may break its lines."""

    content: str | Markup
    strong: bool = False
    prose: bool = False


Content = str | Markup | Cell


def markup(content: str | Markup) -> str:
    """The HTML of a text or of markup."""
    return content.html if isinstance(content, Markup) else escape(content)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], caption: str = "") -> Markup:
    """A table whose first column names its rows; it scrolls sideways where the page is narrow."""
    head = "".join(f'<th scope="col"{_heading_classes(column)}>{escape(column.heading)}</th>' for column in columns)
    headings = f"<thead><tr>{head}</tr></thead>\n" if any(column.heading for column in columns) else ""
    body = "\n".join(f"<tr>{_row(columns, row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    return Markup(f'<div class="wide"><table>\n{title}{headings}<tbody>\n{body}\n</tbody>\n</table></div>')


def _row(columns: Sequence[Column], row: Sequence[Content]) -> str:
    cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
    first, *others = zip(columns, cells, strict=True)
    html = [f'<th scope="row"{_text(first[0])}>{markup(first[1].content)}</th>']
    html += [f"<td{_classes(column, cell)}>{markup(cell.content)}</td>" for column, cell in others]
    return "".join(html)


def _text(column: Column) -> str:
    return ' class="text"' if column.is_text else ""


def _heading_classes(column: Column) -> str:
    names = [
        name for name, holds in (("text", column.is_text), ("long", len(column.heading) > LONGEST_HEADING)) if holds
    ]
    return f' class="{" ".join(names)}"' if names else ""


def _classes(column: Column, cell: Cell) -> str:
    names = [
        name for name, holds in (("text", column.is_text), ("strong", cell.strong), ("prose", cell.prose)) if holds
    ]
    return f' class="{" ".join(names)}"' if names else ""


def paragraph(content: str | Markup) -> Markup:
    """A paragraph."""
    return Markup(f"<p>{markup(content)}</p>")


def image(png: bytes, description: str, caption: str, width: int) -> Markup:
    """A picture inside the page, shown so many CSS pixels wide."""
    data = base64.b64encode(png).decode()
    below = f"\n<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Markup(
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" alt="{escape(description)}">{below}</figure>'
    )


def section(name: str, heading: str, *content: Markup) -> Markup:
    """A part of the page that can be linked to."""
    body = "\n".join(part.html for part in content)
    return Markup(f'<section id="{escape(name)}">\n<h2>{escape(heading)}</h2>\n{body}\n</section>')


def page(title: str, lead: str, sections: Sequence[Markup], links: Sequence[tuple[str, str]]) -> str:
    """A whole page.

    Parameters
    ----------
    title, lead : what it is, and a sentence on it
    sections : the parts, in order
    links : for each the name and the heading
    """
    nav = "".join(f'<a href="#{escape(name)}">{escape(heading)}</a>' for name, heading in links)
    body = "\n".join(part.html for part in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        f'<nav aria-label="Contents">{nav}</nav>\n</header>\n'
        f"<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
