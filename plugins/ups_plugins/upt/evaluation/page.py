"""The frame of the report and its parts: HTML and style sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template

from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light; --ink: #1d2327; --soft: #5d676e; --line: #e3e6e8; --paper: #fff; --back: #f6f7f8;
        --blue: #0072b2; --good: #00684a; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
header { margin: 1rem 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
header p { margin: 0; color: var(--soft); max-width: 46rem; }
h2 { font-size: 1.1rem; margin: 0 0 .9rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: 1.2rem;
          margin: 0 0 1rem; }
p { margin: .6rem 0 0; max-width: 46rem; }
.note { color: var(--soft); font-size: .88rem; }
.verdict { margin: 0 0 1rem; font-weight: 600; overflow-wrap: anywhere; }
.verdict.ok { color: var(--good); }
.verdict.below_floor { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .6rem; margin: 0 0 1.2rem; }
.tiles div { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .75rem; }
.tiles strong { display: block; font-size: 1.35rem; line-height: 1.2; font-variant-numeric: tabular-nums;
                color: var(--blue); }
.tiles span { font-size: .8rem; color: var(--soft); }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .38rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; }
tbody th { text-align: left; font-weight: 400; position: sticky; left: 0; background: var(--paper); }
thead th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tr.model th, tr.model td { font-weight: 600; background: #eef5fa; }
figure { margin: 0 0 1.4rem; }
figure:last-child { margin-bottom: 0; }
section > .scroll + figure, dl + figure { margin-top: 1.2rem; }
img { display: block; width: 100%; min-width: 40rem; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem; max-width: 46rem; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .35rem 1rem; margin: .8rem 0 0;
     font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--blue); }
details .scroll { margin-top: .8rem; }
@media (max-width: 34rem) {
  main { padding: .5rem .5rem 3rem; }
  section { padding: .9rem; border-radius: .4rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; } img { min-width: 0; } }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title: $status</title>
<style>$style</style>
</head>
<body>
<main>
<header><h1>$title</h1><p>$description</p><p class="note">$line</p></header>
$body
</main>
</body>
</html>
""")


def section(title: str, content: str) -> str:
    """A part of the page under a title; nothing where there is no content."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>\n"


def small_print(text: str) -> str:
    """A small print."""
    return f'<p class="note">{escape(text)}</p>\n'


def definitions(entries: Mapping[str, str]) -> str:
    """Names and what they mean."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())
    return f"<dl>{rows}</dl>\n"


def table_of(head: Sequence[str], lines: Iterable[tuple[str, Sequence[str], str]]) -> str:
    """A table: its head, and of each line the name, the cells, and its kind ("model" stands out)."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{_cells(cells)}</tr>' for name, cells, kind in lines
    )
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>\n'


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells)


def picture(figure: Figure, caption: str, dpi: int) -> str:
    """A figure within the page, and what stands below it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return image_of(buffer.getvalue(), "png", caption)


def image_of(content: bytes, kind: str, caption: str) -> str:
    """The content of an image file ("png", "gif") within the page, and what stands below it."""
    data = base64.b64encode(content).decode()
    image = f'<img alt="{escape(caption, quote=True)}" src="data:image/{kind};base64,{data}">'
    return f'<figure><div class="scroll">{image}</div><figcaption>{escape(caption)}</figcaption></figure>\n'
