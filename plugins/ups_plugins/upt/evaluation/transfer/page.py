"""`transfer.html`: the tables and pictures of a transfer, in one file that asks nothing of any other machine."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from matplotlib.figure import Figure

from ..facts import Facts
from ..page import PAGE, STYLE, definitions, paragraph, picture, section, small_print, table_of
from ..report import DPI
from .measuring import Transfer, verdict
from .table import NOTES, head, sheets

CAPTIONS = {
    "errors": "Error over the number of points that the model is given, logarithmic both ways. Dashed: the true states "
    "interpolated from these points. On the left all errors are taken at the same points, so they can be compared.",
    "states": "One trajectory of the middle of the split at the last time, on each of the points.",
}


def transfer_page(facts: Facts, transfer: Transfer, pictures: Mapping[str, Figure]) -> str:
    """The whole page."""
    texts = "".join(map(paragraph, verdict(transfer)))
    shown = {name: picture(figure, CAPTIONS[name], DPI) for name, figure in pictures.items()}
    sections = [section("Error over points", texts + shown.get("errors", ""))]
    for sheet in sheets(transfer):
        lines = [
            (f"{line[0]}, {line[1]} points", line[2:], "model" if line[0] == "own" else "") for line in sheet.lines
        ]
        sections.append(section(sheet.title[0].upper() + sheet.title[1:], table_of(("", *sheet.head[2:]), lines)))
    sections += [
        section("What it looks like", shown.get("states", "")),
        section("What the numbers mean", definitions(NOTES) + small_print(f"{head(transfer)}.")),
        section("What was run", definitions(dict(facts.rows))),
    ]
    return PAGE.substitute(
        title=escape(f"{facts.name} elsewhere"),
        description=escape(facts.description),
        line=escape(facts.line),
        style=STYLE,
        status="transfer",
        body="\n".join(part for part in sections if part),
    )
