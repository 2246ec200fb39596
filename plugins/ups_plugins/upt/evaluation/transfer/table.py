"""The transfer as tables: on the console, and the same cells for the page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TextIO

from attrs import frozen

from ..card import number
from .measuring import Line, Scores, Transfer, verdict

NAMES = {
    "one_step": "one step",
    "rollout": "rollout",
    "encode_decode": "encode-decode",
    "persistence": "persistence",
    "interpolation": "through N",
}


@frozen
class Sheet:
    """One table: what it compares, its head, its lines of text, and how many of their cells are names."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    names: int = 1


def sheets(transfer: Transfer) -> list[Sheet]:
    """From N points at the data's own; from N points at themselves; from the data's own points at N."""
    own = f"the data's own {transfer.points} points"
    steady = transfer.fields.steady
    names = ["rollout"] if steady else ["one_step", "rollout", "encode_decode", "persistence"]
    labels = {**NAMES, "persistence": transfer.constant, "rollout": "answer" if steady else "rollout"}
    reference = [("own", str(transfer.points), *_cells(transfer.reference, names), "-")]
    return [
        Sheet(
            f"encoded from N points, compared at {own}",
            ("on", "N", *(labels[name] for name in names), labels["interpolation"]),
            (*(_row(line, line.reference, [*names, "interpolation"]) for line in transfer.lines), *reference),
        ),
        Sheet(
            "encoded from N points, compared at these",
            ("on", "N", *(labels[name] for name in names), "states"),
            tuple((*_row(line, line.own, names), number(line.states_error)) for line in transfer.lines),
        ),
        Sheet(
            f"encoded from {own}, compared at N others (super-resolution)",
            ("on", "N", *(labels[name] for name in names), "states"),
            tuple((*_row(line, line.queried, names), number(line.states_error)) for line in transfer.lines),
        ),
    ]


def _row(line: Line, scores: Scores, names: list[str]) -> tuple[str, ...]:
    return (line.layout, str(line.points), *_cells(scores, names))


def _cells(scores: Scores, names: list[str]) -> list[str]:
    return [number(scores.get(name)) for name in names]


def head(transfer: Transfer) -> str:
    """What was computed."""
    what = "answers" if transfer.fields.steady else f"{transfer.steps} steps"
    return f"{what} of {transfer.trajectories} trajectories of the split '{transfer.split}'; nRMSE in physical units"


NOTES = {
    "through N": "the true states at the data's own points, interpolated from the N points that the model is given "
    "(cubic splines of a grid, cubic radial functions of other points): what a codec is held against",
    "states": "nRMSE of the way in which the true states came to the N points, at most; 0 where they are stored there",
}


def print_transfer(transfer: Transfer, stream: TextIO | None = None) -> None:
    """Print all tables as plain text of at most 80 columns, in colour on a terminal."""
    print_sheets(head(transfer), sheets(transfer), NOTES, verdict(transfer), stream)


def print_sheets(
    lead: str, tables: Sequence[Sheet], notes: Mapping[str, str], sentences: Sequence[str], stream: TextIO | None = None
) -> None:
    """Print a line of what was computed, tables, what their words mean, and what follows from them."""
    from rich.console import Console
    from rich.table import Table

    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False)
    with console.capture() as capture:
        console.print(lead, markup=False)
        for sheet in tables:
            table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
            for place, name in enumerate(sheet.head):
                table.add_column(name, justify="left" if place < sheet.names else "right", no_wrap=True)
            for line in sheet.lines:
                table.add_row(*line)
            console.print()
            console.print(sheet.title, markup=False, style="bold")
            console.print(table)
        console.print()
        for name, text in notes.items():
            console.print(f"{name}: {text}", markup=False, style="dim")
        for text in sentences:
            console.print(text, markup=False, style="bold")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with suppress(OSError):  # nobody reads it, as in `upskit evaluate … | head`; the page has it all
        stream.write(capture.get().encode(encoding, "replace").decode(encoding))
        stream.flush()
