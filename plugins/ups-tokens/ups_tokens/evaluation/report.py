"""`report.html`: one file that holds everything, and asks nothing of any other machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from string import Template

from matplotlib.figure import Figure

from .card import DEFINITION, Card, title
from .measuring import MODELS

CAPTIONS = {
    "scalars": "Every dot is a sequence: the expected value over the true one.",
    "training": "Losses of the training and, in black, the score that the best weights are chosen by.",
}
CAPTION = "{name}: sequences of the split, each token predicted from the true ones before it."
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1d2327;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 1rem 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.soft, figcaption, dt { color: #5d676e; font-size: .9rem; }
.verdict { font-weight: 600; } .ok { color: #00684a; } .below_floor { color: #b3261e; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #e3e6e8; white-space: nowrap; }
th:first-child { text-align: left; } tbody th { font-weight: 400; } thead th { color: #5d676e; font-weight: 500; }
tr.model th, tr.model td { font-weight: 600; background: #eef5fa; }
figure { margin: 0 0 1.4rem; } img { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .3rem 1rem; } dd { margin: 0; }
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
<h1>$title</h1>
<p>$description</p>
<p class="soft">$line</p>
<p class="verdict $status">$verdict</p>
$body
</body>
</html>
""")


def report_page(
    name: str, description: str, line: str, card: Card, losses: Mapping[str, Mapping[str, float]], pictures: Pictures
) -> str:
    """The whole page."""
    sections = {
        "Scores": _scores(card),
        "Losses on this split": _losses(losses),
        **{key.replace("_", " ").capitalize(): _picture(key, figure) for key, figure in pictures.items()},
        "What the numbers mean": _definitions(DEFINITION),
    }
    body = "\n".join(f"<section><h2>{escape(head)}</h2>\n{text}</section>" for head, text in sections.items() if text)
    return PAGE.substitute(
        title=escape(name),
        description=escape(description),
        line=escape(line),
        status=escape(card.verdict.status),
        verdict=escape(card.verdict.text),
        style=STYLE,
        body=body,
    )


Pictures = Mapping[str, Figure]


def _scores(card: Card) -> str:
    """A table with one line for each number: models and floors side by side."""
    head = "".join(f'<th scope="col">{escape(row.replace("_", " "))}</th>' for row in card.rows)
    lines = [
        f'<tr><th scope="row">{escape(title(column))}</th>'
        + "".join(
            f"<td>{'<strong>' if row in MODELS else ''}{_number(numbers.get(column))}"
            f"{'</strong>' if row in MODELS else ''}</td>"
            for row, numbers in card.rows.items()
        )
        + "</tr>"
        for column in card.columns
    ]
    return _table(head, lines)


def _losses(losses: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        f'<tr><th scope="row">{escape(stage)}: {escape(name)}</th><td>{_number(value)}</td></tr>'
        for stage, found in losses.items()
        for name, value in found.items()
    ]
    return _table('<th scope="col">value</th>', lines) if lines else ""


def _table(head: str, lines: list[str]) -> str:
    body = "\n".join(lines)
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _picture(name: str, figure: Figure) -> str:
    caption = CAPTIONS.get(name, CAPTION.format(name=name))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img alt="{escape(caption, quote=True)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _definitions(entries: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())
    return f"<dl>{rows}</dl>\n"
