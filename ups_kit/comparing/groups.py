"""Runs that differ in their seed alone as one, and whether numbers of different ones mean the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from ..differences import PLACES
from ..errors import UsageError
from .runs import FinishedRun

WITHOUT_EFFECT = (*PLACES, "run.seed", "run.name")  # keys of a recipe that do not keep runs apart
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SCORED = "scored"  # of a fingerprint: which trajectories, drawn by the seed


@frozen(eq=False)
class Spread:
    """One number of one or several runs."""

    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """None where a run has no such number, or none that is finite."""
        known = [value for value in self.values if value is not None]
        return statistics.fmean(known) if known and len(known) == len(self.values) else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation; None of fewer than two."""
        known = [value for value in self.values if value is not None]
        return statistics.stdev(known) if len(known) == len(self.values) > 1 else None

    def text(self) -> str:
        """`0.0123 ± 0.0004`."""
        if self.mean is None:
            return "-"
        return number(self.mean) if not self.deviation else f"{number(self.mean)} ± {self.deviation:.2g}"


@frozen(eq=False)
class Group:
    """Runs of one recipe with different seeds, or one run: a column of every table."""

    letter: str
    runs: tuple[FinishedRun, ...]

    @property
    def label(self) -> str:
        """`A  runs/burgers/1, runs/burgers/2 (seeds 0, 1; n = 2)`."""
        paths = ", ".join(str(run.path) for run in self.runs)
        seeds = ", ".join(str(run.seed) for run in self.runs)
        return f"{paths} (seed{'s' if len(self.runs) > 1 else ''} {seeds}; n = {len(self.runs)})"

    def of(self, row: str, column: str) -> Spread:
        """A number of the score card."""
        return Spread(tuple(run.rows.get(row, {}).get(column) for run in self.runs))


def grouped(runs: Sequence[FinishedRun]) -> tuple[Group, ...]:
    """Runs of one recipe together, in the order they are given in; a seed that is there already begins a new group."""
    found: list[list[FinishedRun]] = []
    for run in runs:
        for group in found:
            if recipe_of(group[0]) == recipe_of(run) and run.seed not in [other.seed for other in group]:
                group.append(run)
                break
        else:
            found.append([run])
    return tuple(Group(_letter(place), tuple(group)) for place, group in enumerate(found))


def recipe_of(run: FinishedRun) -> dict[str, Any]:
    """The values of a recipe that a result depends on, but the seed."""
    return {
        path: value
        for path, value in run.values.items()
        if not any(path == key or path.startswith(f"{key}.") for key in WITHOUT_EFFECT)
    }


def refuse_other_definitions(groups: Sequence[Group]) -> None:
    """Raise UsageError, with what differs, where numbers of different runs do not mean the same."""
    first, lines = groups[0].runs[0], []
    runs = [(group, run) for group in groups for run in group.runs]
    for key in dict.fromkeys(key for _, run in runs for key in run.fingerprint):
        if key.rpartition(": ")[2] == SCORED:
            continue
        found = {str(run.path): run.fingerprint.get(key) for _, run in runs}
        if any(value != first.fingerprint.get(key) for value in found.values()):
            lines.append(f"  {key}: " + "; ".join(f"{_shown(value)} in {path}" for path, value in found.items()))
    others = list(_other_trajectories(groups))
    if lines or others:
        listed = "\n".join([*lines, *others])
        again = (
            "`upskit evaluate RUN` with --split, --steps and --trajectories scores a run as another was; compare takes "
            "the folder RUN/evaluations/N that it writes"
        )
        drawn = "the seed draws the trajectories that are scored: run both with the same seeds"
        raise UsageError(
            "these runs were scored by different definitions, so their numbers do not compare:\n"
            f"{listed}\n{again if lines else drawn}"
        )


def _other_trajectories(groups: Sequence[Group]) -> Iterator[str]:
    """Trajectories that are scored may differ between seeds, which draw them, and not between runs of one seed."""
    by_seed = [{run.seed: _scored(run) for run in group.runs} for group in groups]
    for group, own in zip(groups[1:], by_seed[1:]):
        common = own.keys() & by_seed[0].keys()
        if any(own[seed] != by_seed[0][seed] for seed in common) or (
            not common and not set(own.values()) & set(by_seed[0].values())
        ):
            why = "of the same seed" if common else "their seeds draw others"
            yield f"  data: {group.label} was scored on other trajectories than {groups[0].label}, {why}"


def _scored(run: FinishedRun) -> str:
    return str({key: value for key, value in run.fingerprint.items() if key.rpartition(": ")[2] == SCORED})


def number(value: float) -> str:
    """Four figures."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.4g}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _letter(place: int) -> str:
    """A, B, … Z, A1, B1, …"""
    return LETTERS[place % len(LETTERS)] + (str(place // len(LETTERS)) if place >= len(LETTERS) else "")
