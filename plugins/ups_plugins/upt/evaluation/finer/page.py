"""`finer.html`: the tables and pictures at finer points, in one file that asks nothing of any other machine."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from matplotlib.figure import Figure

from ..facts import Facts
from ..page import PAGE, STYLE, definitions, paragraph, picture, section, small_print, table_of
from ..report import DPI
from .measuring import Finer
from .table import NOTES, WAYS, head, sheets
from .verdict import verdict

CAPTIONS = {
    "spectra": "Energy by wave number at the last time, all trajectories. Dotted: the coarse grid's highest wave "
    "number; what lies to the right of it was never given to the model, in training or here.",
    "states": "One trajectory of the middle of the split at the last time, at the finest points.",
}


def finer_page(facts: Facts, finer: Finer, pictures: Mapping[str, Figure]) -> str:
    """The whole page."""
    shown = {name: picture(figure, CAPTIONS[name], DPI) for name, figure in pictures.items()}
    sections = [section("Does decoding anywhere beat interpolation?", "".join(map(paragraph, verdict(finer))))]
    for sheet in sheets(finer):
        lines = [
            (f"×{line[0]}, {line[1]} points, {line[2]}", line[3:], "model" if line[2] == WAYS["decoded"] else "")
            for line in sheet.lines
        ]
        sections.append(section(sheet.title[0].upper() + sheet.title[1:], table_of(("", *sheet.head[3:]), lines)))
    sections += [
        section("Below and beyond the coarse grid", shown.get("spectra", "")),
        section("What it looks like", shown.get("states", "")),
        section("What the numbers mean", definitions(NOTES) + small_print(f"{head(finer)}.")),
        section("What was run", definitions(dict(facts.rows))),
    ]
    return PAGE.substitute(
        title=escape(f"{facts.name} at finer points"),
        description=escape(facts.description),
        line=escape(facts.line),
        style=STYLE,
        status="finer",
        body="\n".join(part for part in sections if part),
    )
