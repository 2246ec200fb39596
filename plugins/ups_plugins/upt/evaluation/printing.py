"""The score card on the console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from .card import Card, Drawn, Row, number
from .scores import finite
from .shuffle import Shuffle

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

FIELDS_IN_LINE = 5


def print_card(card: Card, stream: TextIO | None = None) -> None:
    """Print the card: with colours on a terminal, as plain text of at most 80 columns elsewhere."""

    def everything(console: Console) -> None:
        _print_parts(card, console)
        if card.drawn is not None:
            console.print(card.drawn.default, markup=False, style="bold")
            console.print()
        _print_verdict(card.verdict.text, card.verdict.status, console)

    _print(everything, stream or sys.stdout)


def print_tasks(cards: Mapping[str, Card], verdict: str, status: str, default: str = "") -> None:
    """Print the cards of several tasks, the default forecast of all where there is a choice, and the verdict."""

    def everything(console: Console) -> None:
        for name, card in cards.items():
            console.print(f"task {name}", markup=False, style="bold underline")
            console.print()
            _print_parts(card, console)
            _print_verdict(card.verdict.text, card.verdict.status, console)
            console.print()
        if default:
            console.print(default, markup=False, style="bold")
            console.print()
        _print_verdict(verdict, status, console)

    _print(everything, sys.stdout)


def _print(parts: Callable[[Console], None], stream: TextIO) -> None:
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    with console.capture() as capture:
        parts(console)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with suppress(OSError):  # nobody reads it, as in `upskit run … | head`; the report has it all
        stream.write(capture.get().encode(encoding, "replace").decode(encoding))
        stream.flush()


def _print_parts(card: Card, console: Console) -> None:
    parts = {
        score_title(card): _scores(card.columns, card.rows),
        field_title(card): _by_field(card),
        place_title(): _scores(card.places, card.by_place) if card.places else None,
        "ratios of nRMSE": _ratios(card),
        budget_title(card): _budget(card),
        "gradient norm of each loss alone, by part of the model": _reach(card),
    }
    for title, part in parts.items():
        if part is not None:
            console.print(title, markup=False, style="bold")
            console.print(part)
            console.print()
    for line in shuffle_lines(card):
        console.print(line, markup=False)
    console.print()
    for name, text in card.definition.items():
        console.print(f"{name}: {text}", markup=False, style="dim")
    console.print()
    if card.drawn is not None:
        _print_drawn(card.drawn, console)


def _print_drawn(drawn: Drawn, console: Console) -> None:
    console.print(drawn.title, markup=False, style="bold")
    console.print(_scores(drawn.columns, drawn.rows))
    console.print()
    for line in drawn.findings:
        console.print(line, markup=False)
    console.print()
    for name, text in drawn.definition.items():
        console.print(f"{name}: {text}", markup=False, style="dim")
    console.print()


def _print_verdict(text: str, status: str, console: Console) -> None:
    console.print(text, markup=False, style="bold green" if status == "ok" else "bold red")


def score_title(card: Card) -> str:
    """What the table of scores shows."""
    return "errors in physical units" if card.steady else "nRMSE in physical units (VRMSE of the whole rollout)"


def field_title(card: Card) -> str:
    """What the table of fields shows."""
    return "nRMSE of each field" if card.steady else "nRMSE of each field (whole rollout)"


def place_title() -> str:
    """What the table of moving points shows."""
    return "MSE of positions (mean of the first steps), of the energy; Sinkhorn divergence"


def budget_title(card: Card) -> str:
    """What the error budget splits."""
    return (
        "where the answer's error comes from (nRMSE)"
        if card.steady
        else "where the latent rollout's error comes from (nRMSE, by step)"
    )


def shuffle_lines(card: Card) -> list[str]:
    """The shuffles in a sentence each; that of the static fields only where there are any."""
    lines = [_shuffle_line(card.shuffle, "parameters", card)]
    if card.shuffle_statics.names:
        lines.append(_shuffle_line(card.shuffle_statics, "static fields", card))
    return lines


def _shuffle_line(shuffle: Shuffle, what: str, card: Card) -> str:
    if not shuffle.applicable:
        return f"{what} shuffled: {shuffle.reason}"
    names = ", ".join(shuffle.names)
    factor = "no finite ratio" if shuffle.ratio is None else f"ratio {shuffle.ratio:.3g}"
    verdict = "" if shuffle.ratio is None or shuffle.ratio > 1.05 else "; the model hardly uses them"
    kind = "answer" if card.steady else "rollout"
    numbers = f"{kind} nRMSE {number(finite(shuffle.shuffled))}, its own {number(finite(shuffle.own))}"
    return f"{what} shuffled ({names}): {numbers}, {factor}{verdict}"


def _table(first: str, rest: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _scores(columns: Sequence[str], rows: Sequence[Row]) -> Table:
    table = _table("", columns)
    for line in rows:
        table.add_row(line.name, *map(number, line.values), style="bold" if line.is_model else None)
    return table


def _by_field(card: Card) -> Group | None:
    """As many fields beside each other as fit a line."""
    from rich.console import Group

    groups = [slice(first, first + FIELDS_IN_LINE) for first in range(0, len(card.fields), FIELDS_IN_LINE)]
    tables = [
        _scores(card.fields[own], [Row(line.name, line.values[own], line.is_model) for line in card.by_field])
        for own in groups
    ]
    return Group(*tables) if tables else None


def _ratios(card: Card) -> Table:
    table = _table("", ("",))
    table.show_header = False
    for name, value in card.ratios.items():
        table.add_row(name, number(value))
    return table


def _budget(card: Card) -> Table:
    shown = ("mean",) if card.steady else ("first", "last", "mean")
    table = _table("", shown)
    for name, part in card.budget.items():
        values = [part[key] for key in shown]
        table.add_row(name, *(number(value if isinstance(value, float) else None) for value in values))
    return table


def _reach(card: Card) -> Table | None:
    if not card.reach:
        return None
    modules = list(card.reach[0].norms)
    table = _table("", modules)
    for line in card.reach:
        table.add_row(f"{line.stage}.{line.loss}", *(number(line.norms[name]) for name in modules))
    return table
