"""The comparison as tables: on the console, and the same cells for the page."""

from __future__ import annotations

from ..card import number
from ..transfer.table import Sheet
from .measuring import Finer, Line
from .verdict import KINDS

WAYS = {
    "decoded": "decoded there",
    "interpolated": "own forecast, splines",
    "persistence": "persistence, splines",
    "splines": "truth, splines",
    "trigonometric": "truth, trigonometric",
}
NOTES = {
    "decoded there": "the model is given the coarse points alone and its decoder is asked at the fine ones",
    "own forecast, splines": "the model's forecast at the coarse points, interpolated by cubic splines",
    "persistence, splines": "the given coarse frame (in one step: the one before), interpolated",
    "truth, splines": "the interpolation floor: the true coarse frame of the same time, interpolated; beside "
    "encode-decode, which is given the same",
    "below, above": "nRMSE in modes that the coarse grid carries, and in those beyond; squares add up for each frame",
    "detail": "energy beyond, over the truth's: 1 is as much as there should be, not where it should be",
}


def head(finer: Finer) -> str:
    """What was computed."""
    what = "answers" if finer.fields.steady else f"{finer.steps} steps"
    count = finer.lines[0].points
    return f"{what} of {finer.trajectories} trajectories of the split '{finer.split}', encoded from {count} points"


def sheets(finer: Finer) -> list[Sheet]:
    """nRMSE and VRMSE of every way by kind of forecast; the rollout and the codec by modes."""
    kinds = {"rollout": "answer"} if finer.fields.steady else KINDS
    found = [_errors(finer, kinds, metric, label) for metric, label in (("nrmse", "nRMSE"), ("vrmse", "VRMSE"))]
    split = {kind: label for kind, label in kinds.items() if kind != "one_step"}
    found += [_modes(finer, kind, label) for kind, label in split.items()]
    return found


def _errors(finer: Finer, kinds: dict[str, str], metric: str, label: str) -> Sheet:
    rows = []
    for line in finer.lines:
        for way, own in line.scores.items():
            cells = (number(getattr(own[kind], metric)) if kind in own else "-" for kind in kinds)
            if any(kind in own for kind in kinds):
                rows.append((*_names(line, way), *cells))
    return Sheet(f"{label} at the points asked", ("×", "points", "", *kinds.values()), tuple(rows), 3)


def _modes(finer: Finer, kind: str, label: str) -> Sheet:
    rows = [
        (*_names(line, way), *map(number, (own[kind].nrmse, own[kind].below, own[kind].above, own[kind].detail)))
        for line in finer.lines[1:]
        for way, own in line.scores.items()
        if kind in own
    ]
    columns = ("×", "points", "", "nRMSE", "below", "above", "detail")
    return Sheet(f"{label}: in modes that the coarse grid carries, and beyond", columns, tuple(rows), 3)


def _names(line: Line, way: str) -> tuple[str, ...]:
    name = WAYS[way] if line.factor > 1 else WAYS[way].removesuffix(", splines")
    return (str(line.factor), " × ".join(map(str, line.fields.grid or ())), name)
