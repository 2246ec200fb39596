"""Loss curves, from the run's `metrics.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from matplotlib.figure import Figure

from .style import log_values, new_figure

Series = dict[str, list[tuple[float, float]]]  # by name: (step, value)
History = dict[str, Series]  # by stage

NOT_LOSSES = (
    "lr",
    "learning_rate",
    "fraction",
    "samples",
    "seconds",
    "grad",
    "epoch",
    "memory",
    "weight",
    "scale",
    "skipped",
)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933", "#882255")
DASHES = ("-", "--", "-.", ":")


def read_history(path: Path, leave_out: str) -> History:
    """The numbers of every stage but one; lines that are damaged, and values that are no numbers, are passed over."""
    history: History = {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the process died within this line
        if not isinstance(record, Mapping) or record.get("stage") in (None, leave_out):
            continue
        step, series = record.get("step"), history.setdefault(str(record["stage"]), {})
        for name, value in record.items():
            if name not in ("stage", "step") and _is_number(value) and _is_number(step):
                series.setdefault(name, []).append((step, value))
    return {stage: series for stage, series in history.items() if _losses(series)}


def draw_history(stage: str, series: Series) -> Figure:
    """A stage's losses over its optimiser steps: the total and the validation score left, each term right."""
    losses = _losses(series)
    totals = {name: points for name, points in losses.items() if name in ("loss", "total") or _is_validation(name)}
    terms = {name: points for name, points in losses.items() if name not in totals}
    panels = [panel for panel in (totals, terms) if panel]
    figure, axes = new_figure(1, len(panels), height=4.2)
    for axis, panel in zip(axes.flat, panels, strict=True):
        for place, (name, points) in enumerate(panel.items()):
            style = {"color": COLORS[place % len(COLORS)], "linestyle": DASHES[place // len(COLORS) % len(DASHES)]}
            dots = {"marker": "o", "ms": 3} if _is_validation(name) or len(points) < 3 else {}
            axis.plot(*zip(*points, strict=True), label=_label(name), lw=1.4, **style, **dots)
        if any(value > 0 for points in panel.values() for _, value in points):
            log_values(axis)
        axis.set_xlabel(f"optimiser step of {stage}")
        axis.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    axes.flat[0].set_ylabel("loss; nRMSE of validations")
    return figure


def _losses(series: Series) -> Series:
    return {name: points for name, points in series.items() if not any(word in name.lower() for word in NOT_LOSSES)}


def _label(name: str) -> str:
    """Without the group's name; validations say that they are."""
    group, _, own = name.rpartition("/")
    return f"{own.replace('_', ' ')} (validation)" if group == "validation" else own


def _is_validation(name: str) -> bool:
    return name.startswith(("val", "score", "best"))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
