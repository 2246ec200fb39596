"""Error against number of points, and one trajectory as it looks on each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.tri import Triangulation

from ..style import ERROR_COLORS, FIELD_COLORS, GREY, bare, keep_clear, log_values, new_figure
from .measuring import Line, Shown, Transfer

COLORS = {"rollout": "#0072B2", "one_step": "#009E73", "encode_decode": "#E69F00", "interpolation": "#56B4E9"}
LABELS = {
    "rollout": "rollout",
    "one_step": "one step",
    "encode_decode": "encode-decode",
    "interpolation": "interpolation from N points",
}
MARKS = {"grid": "s", "mesh": "^", "particles": "o"}
LINES_SHOWN = 6


def draw_errors(transfer: Transfer) -> Figure:
    """Two panels, logarithmic both ways: compared at the data's own points, and at the N points themselves."""
    figure, axes = new_figure(1, 2, height=4.2, sharey=True)
    panels = (
        ("reference", f"compared at the data's own {transfer.points} points"),
        ("own", "compared at the N points"),
    )
    for axis, (group, title) in zip(axes.flat, panels, strict=True):
        for layout in transfer.layouts:
            _draw_series(axis, transfer.series(layout), group, layout)
        constant = transfer.reference.get("persistence")
        if constant:
            axis.axhline(constant, color=GREY, linestyle=":", lw=1.4)
        own = transfer.reference.get("rollout")
        if own:
            axis.axhline(own, color=COLORS["rollout"], linestyle="-", lw=0.8)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("points N that the model is given")
        _log_points(axis, sorted({line.points for line in transfer.lines}))
    axes[0, 0].set_ylabel("nRMSE")
    log_values(axes[0, 0])
    figure.legend(
        handles=_legend(transfer), loc="outside lower center", ncols=5, fontsize="small", frameon=False, numpoints=1
    )
    return figure


def _draw_series(axis: Axes, lines: list[Line], group: str, layout: str) -> None:
    for name, color in COLORS.items():
        found = [(line.points, getattr(line, group).get(name)) for line in lines]
        shown = [(points, value) for points, value in found if value]
        if shown:
            thin = name == "interpolation"
            axis.plot(
                *zip(*shown, strict=True),
                color=color,
                marker=MARKS[layout],
                markersize=5,
                lw=1.2 if thin else 1.8,
                linestyle="--" if thin else "-",
            )


def _legend(transfer: Transfer) -> list[Line2D]:
    """Colours of forecasts, marks of layouts, and the lines that hold for every N."""
    colors = [Line2D([], [], color=COLORS[name], label=LABELS[name]) for name in COLORS]
    colors[-1].set_linestyle("--")
    marks = [
        Line2D([], [], color=GREY, marker=MARKS[layout], linestyle="", label=layout) for layout in transfer.layouts
    ]
    level = Line2D([], [], color=GREY, linestyle=":", label=transfer.constant)
    own = Line2D([], [], color=COLORS["rollout"], lw=0.8, label="rollout from the own points")
    return [*colors, *([] if transfer.fields.steady else [level]), own, *marks]


def _log_points(axis: Axes, points: list[int]) -> None:
    axis.set_xscale("log")
    shown: list[int] = []
    for count in points:
        if not shown or count > 1.4 * shown[-1]:
            shown.append(count)
    axis.xaxis.set_major_locator(FixedLocator([float(count) for count in shown]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_states(transfer: Transfer) -> Figure:
    """The first target channel of one trajectory at the last frame on each of the points: truth, rollout, error."""
    chosen = np.unique(np.linspace(0, len(transfer.lines) - 1, min(LINES_SHOWN, len(transfer.lines))).round()).astype(
        int
    )
    lines = [transfer.lines[place] for place in chosen]
    if transfer.fields.space_dims == 1:
        return _curves(transfer, lines)
    (left, right), (low, high) = transfer.fields.domain[:2]
    height = min(2.2, 8.0 / 3 * (high - low) / (right - left)) + 0.35
    figure, axes = new_figure(len(lines), 3, height=height * len(lines) + 0.3)
    for row, line in zip(axes, lines, strict=True):
        _draw_row(figure, row, line, transfer)
    keep_clear(figure)
    return figure


def _curves(transfer: Transfer, lines: list[Line]) -> Figure:
    rows = -(-len(lines) // 2)
    figure, axes = new_figure(rows, 2, height=2.2 * rows + 0.4, sharex=True, sharey=True)
    for axis, line in zip(axes.flat, lines, strict=False):
        place = line.shown.positions[:, 0].double().numpy()
        order = np.argsort(place)
        dots: dict[str, Any] = {"marker": ".", "markersize": 3} if line.points <= 256 else {}
        axis.plot(
            place[order], line.shown.truth[:, 0].double().numpy()[order], color="#333333", lw=1, label="truth", **dots
        )
        forecast = line.shown.forecast[:, 0].double().numpy()[order]
        axis.plot(place[order], forecast, color=COLORS["rollout"], lw=1.4, linestyle="--", label="rollout", **dots)
        axis.set_title(_label(line), fontsize="small")
    for axis in list(axes.flat)[len(lines) :]:
        axis.set_visible(False)
    axes[0, 0].legend(fontsize="small", frameon=False)
    return figure


def _draw_row(figure: Figure, row: np.ndarray, line: Line, transfer: Transfer) -> None:
    true = line.shown.truth[:, 0].double().numpy()
    found = line.shown.forecast[:, 0].double().numpy()
    error = found - true
    largest = float(np.max(np.abs(error[np.isfinite(error)]), initial=0.0)) or 1e-12
    scale = {"cmap": FIELD_COLORS, "vmin": float(true.min()), "vmax": float(true.max()) or 1e-12}
    panels = (("truth", true, scale), ("rollout", found, scale))
    difference = {"cmap": ERROR_COLORS, "vmin": -largest, "vmax": largest}
    for axis, (label, values, colors) in zip(row, (*panels, ("error", error, difference)), strict=True):
        image = _draw_values(axis, line.shown, values, colors, transfer)
        axis.set_title(f"{_label(line)}: {label}" if label == "truth" else label, fontsize="small")
        if label != "truth":
            figure.colorbar(image, ax=axis, pad=0.02)


def _draw_values(axis: Axes, shown: Shown, values: np.ndarray, colors: dict[str, Any], transfer: Transfer) -> Any:
    """Cells of a grid, triangles of a mesh, dots of a cloud; of three dimensions the first two."""
    bare(axis)
    axis.set_aspect("equal")
    (left, right), (low, high) = transfer.fields.domain[:2]
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
    if shown.grid is not None and len(shown.grid) == 2:
        flat = values.reshape(shown.grid).T
        return axis.imshow(flat, origin="lower", extent=(left, right, low, high), interpolation="nearest", **colors)
    x, y = shown.positions[:, 0].double().numpy(), shown.positions[:, 1].double().numpy()
    if shown.cells is not None:
        triangles = Triangulation(x, y, np.asarray(shown.cells))
        return axis.tripcolor(triangles, values, shading="gouraud", rasterized=True, **colors)
    size = float(np.clip(4e4 / len(x), 1.0, 40.0)) / 3
    return axis.scatter(x, y, c=values, s=size, linewidths=0, rasterized=True, **colors)


def _label(line: Line) -> str:
    shape = "" if line.grid is None or len(line.grid) == 1 else f" ({' × '.join(map(str, line.grid))})"
    return f"{line.layout}, {line.points} points{shape}"
