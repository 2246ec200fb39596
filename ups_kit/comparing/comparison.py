"""The comparison: tables of what differs and of what came of it, as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ..errors import StorageError, UsageError
from ..folder import write_json, write_text
from .groups import Group, Spread, grouped, number, refuse_other_definitions
from .runs import FinishedRun, read_run

FLOOR_COLUMNS = ("one step", "rollout", "nRMSE")  # of floors, which are many
LONGEST_VALUE = 60
SEEDS = (
    "run.seed draws weights, batches and splits: a spread over seeds is also one of the trajectories that are scored"
)


@frozen
class Table:
    """Rows of text under a title; the first column names them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Aligned columns."""
        widths = [max(len(row[place]) for row in (self.columns, *self.rows)) for place in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in (self.columns, *self.rows)]
        return "\n".join([self.title, *(f"  {line}".rstrip() for line in lines)])

    def markdown(self) -> str:
        """A table of Markdown."""
        rows = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join([f"## {self.title}", "", *lines])


@frozen(eq=False)
class Comparison:
    """Two or more runs beside each other."""

    groups: tuple[Group, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Recipe, environment, score card, and what else is known of the runs; those without a row are left out."""
        head = tuple(group.letter for group in self.groups)
        found = (
            Table("recipe, where it differs", ("key", *head), tuple(self._recipe())),
            Table("environment, where it differs", ("what", *head), tuple(self._environment())),
            Table("score card (mean ± standard deviation over seeds)", ("forecast", *head), tuple(self._card())),
            Table("runs", ("what", *head), tuple(self._facts())),
        )
        return tuple(table for table in found if table.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the spreads."""
        if all(len(group.runs) == 1 for group in self.groups) and len({run.seed for run in self._runs}) == 1:
            return ()
        return (SEEDS,)

    def text(self) -> str:
        """For a terminal."""
        legend = "\n".join(f"{group.letter}  {group.label}" for group in self.groups)
        notes = [f"note: {note}" for note in self.notes]
        return "\n\n".join([legend, *(table.text() for table in self.tables), *notes])

    def markdown(self, pictures: Sequence[str] = ()) -> str:
        """For a page; `pictures` are names of files beside it."""
        legend = "\n".join(f"- **{group.letter}**: {group.label}" for group in self.groups)
        shown = [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in pictures]
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join(["# Comparison", legend, *tables, *self.notes, *shown]) + "\n"

    def summary(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        first = self.groups[0].runs[0]
        return {
            "groups": {
                group.letter: [{"run": str(run.path), "seed": run.seed, **run.facts} for run in group.runs]
                for group in self.groups
            },
            "definition": dict(first.fingerprint),
            "notes": list(self.notes),
            "recipe": {row[0]: dict(zip(self._letters, row[1:])) for row in self._recipe()},
            "environment": {row[0]: dict(zip(self._letters, row[1:])) for row in self._environment()},
            "card": {
                row: {
                    column: {group.letter: _plain(group.of(row, column)) for group in self.groups}
                    for column in self._columns(row)
                }
                for row in self._rows
            },
        }

    @property
    def _letters(self) -> tuple[str, ...]:
        return tuple(group.letter for group in self.groups)

    @property
    def _runs(self) -> list[FinishedRun]:
        return [run for group in self.groups for run in group.runs]

    @property
    def _rows(self) -> list[str]:
        """Models first, then floors."""
        names = list(dict.fromkeys(row for run in self._runs for row in run.rows))
        return sorted(names, key=lambda row: any(row in run.floors for run in self._runs))

    def _columns(self, row: str) -> list[str]:
        return list(dict.fromkeys(column for run in self._runs for column in run.rows.get(row, {})))

    def _recipe(self) -> Iterator[tuple[str, ...]]:
        yield from self._differing([dict(group.runs[0].values) for group in self.groups], ("run.seed",))

    def _environment(self) -> Iterator[tuple[str, ...]]:
        known = [[dict(run.environment) for run in group.runs] for group in self.groups]
        keys = dict.fromkeys(key for group in known for each in group for key in each)
        joined = [{key: _one([each.get(key) for each in group]) for key in keys} for group in known]
        yield from self._differing(joined)

    def _differing(
        self, tables: Sequence[Mapping[str, Any]], left_out: Sequence[str] = ()
    ) -> Iterator[tuple[str, ...]]:
        for key in dict.fromkeys(key for table in tables for key in table):
            values = [table.get(key) for table in tables]
            if key not in left_out and any(value != values[0] for value in values):
                yield (key, *(_short(value) for value in values))

    def _card(self) -> Iterator[tuple[str, ...]]:
        for row in self._rows:
            is_floor = any(row in run.floors for run in self._runs)
            shortened = any(column in FLOOR_COLUMNS for column in self._columns(row))  # not of other families' floors
            for column in self._columns(row):
                if not is_floor or column in FLOOR_COLUMNS or not shortened:
                    label = f"{row.replace('_', ' ')}, {column}"
                    yield (label, *(group.of(row, column).text() for group in self.groups))

    def _facts(self) -> Iterator[tuple[str, ...]]:
        for name in dict.fromkeys(name for run in self._runs for name in run.facts):
            cells = []
            for group in self.groups:
                values = [run.facts.get(name) for run in group.runs]
                numbers = tuple(value for value in values if not isinstance(value, str))
                cells.append(Spread(numbers).text() if len(numbers) == len(values) else _short(_one(values)))
            yield (name, *cells)


def compare(paths: Sequence[Path]) -> Comparison:
    """Read finished runs and put them beside each other.

    Raises UsageError where there are fewer than two, one stands twice, one is no finished run, or they were scored by
    different definitions; StorageError for damaged files.
    """
    if len(paths) < 2:
        raise UsageError(f"expected two runs or more, got {len(paths)}: upskit compare runs/NAME/1 runs/NAME/2")
    seen: dict[Path, Path] = {}
    for path in paths:
        before = seen.setdefault(path.resolve(), path)
        if before is not path:
            raise UsageError(f"{path}: stands twice ('{before}'); a run compared with itself tells nothing")
    groups = grouped([read_run(path) for path in paths])
    refuse_other_definitions(groups)
    return Comparison(groups)


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `compare.json`, `compare.md` and the pictures that `compare.md` shows; returns what was written."""
    from .pictures import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = []
        for name, figure in draw(comparison.groups).items():
            pictures.append(f"{name}.png")
            figure.savefig(folder / f"{name}.png", dpi=110)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}; choose another --out") from error
    write_json(folder / "compare.json", comparison.summary())
    write_text(folder / "compare.md", comparison.markdown(pictures))
    return [folder / name for name in ("compare.json", "compare.md", *pictures)]


def _plain(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "deviation": spread.deviation, "values": list(spread.values)}


def _one(values: Sequence[Any]) -> Any:
    """The value that all have, or all of them in words."""
    return values[0] if all(value == values[0] for value in values) else "; ".join(_short(value) for value in values)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and not isinstance(value, bool):
        return number(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
