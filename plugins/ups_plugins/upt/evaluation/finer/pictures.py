"""Spectra beyond what the coarse grid carries, and one trajectory between the points that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ups_kit.data.discretisations import grid_axes

from ..style import ERROR_COLORS, FIELD_COLORS, GREY, bare, keep_clear, new_figure
from .measuring import Finer, Line

STYLES: dict[str, dict[str, Any]] = {
    "truth": {"color": "#333333", "lw": 3.2, "alpha": 0.35, "label": "truth"},
    "decoded": {"color": "#0072B2", "lw": 1.8, "label": "decoded there"},
    "interpolated": {"color": "#D55E00", "lw": 1.4, "linestyle": "--", "label": "own forecast, splines"},
    "splines": {"color": "#56B4E9", "lw": 1.2, "linestyle": (0, (2, 1)), "label": "truth, splines"},
}
LEAST_ENERGY = 1e-11  # of the largest: below lies single precision's noise
ZOOM = 10  # of how many coarse spacings a zoomed part is wide


def draw_spectra(finer: Finer) -> Figure:
    """Energy by shell of the rollout's last frame, one panel for each finer factor."""
    lines = [line for line in finer.lines if line.factor > 1]
    figure, axes = new_figure(1, len(lines), height=3.8, sharey=True)
    edge = min(finer.fields.grid or (1,)) / 2
    for axis, line in zip(axes.flat, lines, strict=True):
        for name, style in STYLES.items():
            energy = line.spectra[name].numpy()[1:]
            axis.plot(np.arange(1, len(energy) + 1), energy, **style)
        axis.axvline(edge, color=GREY, linestyle=":", lw=1.2)
        axis.set_xscale("log")
        axis.set_yscale("log")
        top = float(line.spectra["truth"][1:].max()) or 1.0
        axis.set_ylim(bottom=top * LEAST_ENERGY)
        axis.set_xlabel("wave number k [periods per domain]")
        axis.set_title(_title(line), fontsize="medium")
    axes[0, 0].set_ylabel("energy, |û(k)|²")
    axes[0, 0].legend(frameon=False, fontsize="small", loc="lower left")
    return figure


def draw_states(finer: Finer) -> Figure:
    """The first target channel of one trajectory at the last time, at the finest points."""
    line = finer.lines[-1]
    return _curves(finer, line) if finer.fields.space_dims == 1 else _maps(line)


def _curves(finer: Finer, line: Line) -> Figure:
    """The whole line, and the part of it where the truth is steepest."""
    figure, axes = new_figure(1, 2, height=3.6)
    (place,), (given,) = (_axes(each) for each in (line, finer.lines[0]))
    true = line.shown.truth[:, 0].double().numpy()
    steepest = place[int(np.abs(np.diff(true)).argmax())]
    reach = ZOOM / 2 * (given[1] - given[0])
    for number, axis in enumerate(axes.flat):
        for name, style in STYLES.items():
            axis.plot(place, getattr(line.shown, name)[:, 0].double().numpy(), **style)
        axis.plot(given, finer.given[:, 0].double().numpy(), "k.", markersize=4, label="truth at the given points")
        axis.set_xlabel("x")
        if number:
            axis.set_xlim(steepest - reach, steepest + reach)
            axis.set_title("where it is steepest", fontsize="medium")
    axes[0, 0].set_title(_title(line), fontsize="medium")
    axes[0, 0].legend(frameon=False, fontsize="small")
    return figure


def _maps(line: Line) -> Figure:
    """Of three dimensions the middle slice: truth, decoded, interpolated, and both errors."""
    figure, axes = new_figure(2, 3, height=6.2)
    true, decoded, interpolated = (
        _slice(line, getattr(line.shown, name)) for name in ("truth", "decoded", "interpolated")
    )
    errors = decoded - true, interpolated - true
    largest = max(float(np.abs(error[np.isfinite(error)]).max(initial=0.0)) for error in errors) or 1e-12
    scale = {"cmap": FIELD_COLORS, "vmin": float(true.min()), "vmax": float(true.max()) or 1e-12}
    difference = {"cmap": ERROR_COLORS, "vmin": -largest, "vmax": largest}
    for axis, label, values in zip(
        axes[0], ("truth", "decoded there", "own forecast, splines"), (true, decoded, interpolated), strict=True
    ):
        image = _draw(axis, line, values, label, scale)
    figure.colorbar(image, ax=axes[0].tolist(), pad=0.02, shrink=0.8)
    axes[1, 0].set_visible(False)
    for axis, label, values in zip(axes[1, 1:], ("error, decoded there", "error, splines"), errors, strict=True):
        image = _draw(axis, line, values, label, difference)
    figure.colorbar(image, ax=axes[1].tolist(), pad=0.02, shrink=0.8)
    keep_clear(figure)
    return figure


def _draw(axis: Axes, line: Line, values: NDArray[np.float64], label: str, colors: dict[str, Any]) -> Any:
    bare(axis)
    (left, right), (low, high) = line.fields.domain[:2]
    axis.set_title(label, fontsize="small")
    return axis.imshow(values.T, origin="lower", extent=(left, right, low, high), interpolation="nearest", **colors)


def _slice(line: Line, values: Any) -> NDArray[np.float64]:
    grid = line.fields.grid or ()
    on_grid = np.asarray(values[:, 0].double().numpy()).reshape(grid)
    return on_grid if len(grid) == 2 else on_grid[:, :, grid[2] // 2]


def _axes(line: Line) -> tuple[NDArray[np.float64], ...]:
    return grid_axes(line.fields.domain, line.fields.grid or (), line.fields.offset)


def _title(line: Line) -> str:
    return f"×{line.factor}: {' × '.join(map(str, line.fields.grid or ()))} points"
