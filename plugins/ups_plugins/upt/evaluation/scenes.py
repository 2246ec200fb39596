"""Where the points of one trajectory are, and how values at them are drawn: images, triangles or dots."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from ups_kit.interfaces import FieldSpec

from .measurement import Measured, Shown

SLAB = 0.2  # of the third axis, about its middle: the points of a three-dimensional cloud that are shown
LEAST_IN_SLAB = 50
AREA = 9000.0  # of all dots together, in square points, for a panel of an inch
LARGEST_DOT = 40.0


@frozen(eq=False)
class Scene:
    """The real points of one trajectory at one time."""

    fields: FieldSpec
    own: NDArray[np.int64]  # their numbers among all
    places: NDArray[np.float64]  # (n, D)
    cells: NDArray[np.int64] | None  # (M, 3), the triangles between them

    @classmethod
    def of(cls, measured: Measured, shown: Shown, frame: int, forecast: bool = False) -> Scene:
        """Of a shown trajectory at a frame: its true points, or where the forecast has brought them."""
        truth = measured.truth
        own = truth.points_of(shown.sample).numpy()
        if forecast and shown.positions is not None:
            places = shown.positions[frame]
        else:
            places = truth.places(slice(shown.sample, shown.sample + 1), frame)[0]
        return cls(truth.fields, own, places[own].double().numpy(), shown.cells)

    @property
    def lines(self) -> bool:
        """Whether values are a line over one dimension."""
        return self.fields.space_dims == 1


def aspect(fields: FieldSpec) -> float:
    """Height over width of a panel."""
    extent = fields.extent
    return min(max(extent[1] / extent[0], 0.25), 1.6) if len(extent) > 1 else 0.6


def draw_values(
    axis: Axes, scene: Scene, values: NDArray[np.float64], scale: dict[str, Any], width: float = 2.5
) -> Any:
    """Values (N,) of all points at a time; returns what a colour bar is of, or a line.

    A grid is an image (the middle slice of a three-dimensional one). Other points are coloured triangles where there
    are any, else dots, those of three dimensions within the middle fifth of the third axis. `width` is the panel's,
    in inches.
    """
    if scene.lines:
        order = np.argsort(scene.places[:, 0])
        return axis.plot(scene.places[order, 0], values[scene.own][order], color="#0072B2", lw=1.4)[0]
    (left, right), (low, high) = scene.fields.domain[0], scene.fields.domain[1]
    if scene.fields.grid is not None:
        image = slice_of(values, scene.fields)
        return axis.imshow(image.T, origin="lower", extent=(left, right, low, high), interpolation="nearest", **scale)
    axis.set_aspect("equal")
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
    shown = in_slab(scene)
    x, y, colors = scene.places[shown, 0], scene.places[shown, 1], values[scene.own][shown]
    if scene.cells is not None and scene.fields.space_dims == 2 and np.isfinite(colors).all():
        triangles = Triangulation(x, y, scene.cells)
        return axis.tripcolor(triangles, colors, shading="gouraud", rasterized=True, **scale)
    size = min(AREA * width**2 * aspect(scene.fields) / max(len(x), 1) / 4, LARGEST_DOT)
    return axis.scatter(x, y, c=colors, s=size, lw=0, rasterized=True, **scale)


def in_slab(scene: Scene) -> NDArray[np.bool_]:
    """The points that are shown: all in two dimensions, those near the middle of the third, where these are enough."""
    everything = np.ones(len(scene.places), bool)
    if scene.fields.space_dims < 3:
        return everything
    low, high = scene.fields.domain[2]
    near = np.abs(scene.places[:, 2] - (low + high) / 2) <= SLAB * (high - low) / 2
    return near if near.sum() >= min(LEAST_IN_SLAB, len(near)) else everything


def slice_of(values: np.ndarray, fields: FieldSpec) -> np.ndarray:
    """A grid's frame (N,) as an image (first axis, second axis), in the middle of a third."""
    assert fields.grid is not None
    block = values.reshape(fields.grid)
    return block if block.ndim == 2 else block[:, :, block.shape[2] // 2]


def color_bar(figure: Figure, axis: Axes, image: Any, label: str = "") -> None:
    """A colour bar beside a picture, as tall as that."""
    beside = axis.inset_axes((1.03, 0.0, 0.05, 1.0))
    bar = figure.colorbar(image, cax=beside, format="%.3g", ticks=MaxNLocator(5))
    bar.outline.set_visible(False)
    if label:
        bar.set_label(label)
