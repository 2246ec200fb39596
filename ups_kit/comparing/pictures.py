"""Curves of several runs in one picture: a colour for each group, a thin line for each seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .groups import Group

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933", "#882255")
ACROSS = 2  # panels beside each other
GREY = "#777777"
ERRORS = {"nrmse": "nRMSE", "vrmse": "VRMSE"}
Line = list[tuple[float, float]]


def draw(groups: Sequence[Group]) -> dict[str, Figure]:
    """The training of every stage, and how errors grow along rollouts, by name; what nobody has is left out."""
    stages = dict.fromkeys(stage for group in groups for run in group.runs for stage in run.history)
    pictures = {f"training_{stage}": _training(groups, stage) for stage in stages}
    if any(run.growth for group in groups for run in group.runs):
        pictures["error_growth"] = _growth(groups)
    return pictures


def _training(groups: Sequence[Group], stage: str) -> Figure:
    """A panel for the validation score, one for the loss and one for each of its terms."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.history.get(stage, {}))
    shown = sorted(names, key=lambda name: (name != "validation/score", name != "loss", name))
    figure, axes = _panels(shown)
    for name, axis in zip(shown, axes):
        for group, color in zip(groups, _colors()):
            lines = [run.history.get(stage, {}).get(name, []) for run in group.runs]
            _draw(axis, lines, color)
        _finish(axis, name.removeprefix("losses/").replace("/", " "), f"optimiser step of {stage}")
    _legend(figure, groups)
    return figure


def _growth(groups: Sequence[Group]) -> Figure:
    """A panel for each forecast and error, over the steps of a rollout; dotted grey: the first group's persistence."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.growth)
    shown = [name for name in names if not _is_floor(name)]
    figure, axes = _panels(shown)
    for name, axis in zip(shown, axes):
        task, _, own = name.rpartition(": ")
        forecast, _, error = own.partition("/")
        floor = f"{task}: persistence/{error}" if task else f"persistence/{error}"
        _draw_mean(axis, [_steps(run.growth.get(floor, [])) for run in groups[0].runs], GREY, ":")
        for group, color in zip(groups, _colors()):
            _draw(axis, [_steps(run.growth.get(name, [])) for run in group.runs], color)
        title = f"{forecast.replace('_', ' ')}, {ERRORS.get(error, error)}"
        _finish(axis, f"{title} ({task})" if task else title, "steps of a rollout")
    _legend(figure, groups, [Line2D([], [], color=GREY, lw=1.6, ls=":", label="persistence")])
    return figure


def _is_floor(name: str) -> bool:
    return name.rpartition(": ")[2].startswith("persistence/")


def _steps(values: Sequence[float | None]) -> Line:
    return [(step, value) for step, value in enumerate(values, 1) if value is not None]


def _draw(axis: Axes, lines: Sequence[Line], color: str) -> None:
    """The line of each run; of several a mean as well."""
    drawn = [line for line in lines if line]
    width, alpha = (0.8, 0.45) if len(drawn) > 1 else (1.6, 1.0)
    for line in drawn:
        axis.plot(*zip(*line), color=color, lw=width, alpha=alpha, marker="o" if len(line) < 3 else "", ms=3)
    if len(drawn) > 1:
        _draw_mean(axis, drawn, color, "-")


def _draw_mean(axis: Axes, lines: Sequence[Line], color: str, style: str) -> None:
    """The mean of lines that have the same steps."""
    drawn = [line for line in lines if line]
    if drawn and len({tuple(step for step, _ in line) for line in drawn}) == 1:
        mean = [(points[0][0], fmean(value for _, value in points)) for points in zip(*drawn)]
        axis.plot(*zip(*mean), color=color, lw=1.8, ls=style)


def _panels(names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    rows, columns = max(1, math.ceil(len(names) / ACROSS)), min(ACROSS, max(1, len(names)))
    figure = Figure(figsize=(4.8 * columns, 3.0 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[len(names) :]:
        spare.set_visible(False)
    return figure, axes[: len(names)]


def _finish(axis: Axes, title: str, steps: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(steps)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, alpha=0.25, lw=0.6)
    if any((np.asarray(line.get_ydata()) > 0).any() for line in axis.get_lines()):
        axis.set_yscale("log")


def _legend(figure: Figure, groups: Sequence[Group], more: Sequence[Line2D] = ()) -> None:
    handles = []
    for group, color in zip(groups, _colors()):
        others = f" and {len(group.runs) - 1} more" if len(group.runs) > 1 else ""
        handles.append(Line2D([], [], color=color, lw=1.8, label=f"{group.letter}  {group.runs[0].path}{others}"))
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=2, frameon=False, fontsize="small")


def _colors() -> Iterator[str]:
    """As many as are asked for."""
    while True:
        yield from COLORS
