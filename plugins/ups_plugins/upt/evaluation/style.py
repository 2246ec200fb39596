"""What all pictures have in common: size, type, colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from .truth import Truth

WIDTH = 9.0  # inches
GREY = "#777777"
FIELD_COLORS = "viridis"
ERROR_COLORS = "RdBu_r"
DISTANCE_COLORS = "magma_r"

# Okabe and Ito's palette.
MODEL_STYLES: dict[str, dict[str, Any]] = {
    "latent rollout": {"color": "#0072B2", "linestyle": "-", "lw": 2.2},
    "re-encoded rollout": {"color": "#D55E00", "linestyle": "--", "lw": 1.8},
    "one step": {"color": "#009E73", "linestyle": "-.", "lw": 1.8},
    "answer": {"color": "#0072B2", "linestyle": "-", "lw": 2.2},
}
FLOOR_STYLES: dict[str, dict[str, Any]] = {
    "persistence": {"color": "#333333", "linestyle": ":", "lw": 1.4},
    "constant_velocity": {"color": "#333333", "linestyle": ":", "lw": 1.4},
    "at_rest": {"color": "#CC79A7", "linestyle": (0, (6, 2)), "lw": 1.2},
    "spatial_mean": {"color": GREY, "linestyle": (0, (1, 3)), "lw": 1.4},
    "linear_autoregression": {"color": "#CC79A7", "linestyle": (0, (6, 2)), "lw": 1.2},
    "encode_decode": {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1)), "lw": 1.2},
    "interpolation": {"color": "#56B4E9", "linestyle": (0, (2, 1)), "lw": 1.2},
    "train_mean": {"color": "#333333", "linestyle": ":", "lw": 1.4},
    "nearest_sample": {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1)), "lw": 1.2},
    "linear_regression": {"color": "#CC79A7", "linestyle": (0, (6, 2)), "lw": 1.2},
}


def new_figure(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of the report's width, with a light frame, and its axes as an array (rows, columns)."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        light_frame(axis)
    return figure, axes


def keep_clear(figure: Figure) -> None:
    """Leave room at the right and below for the labels of colour bars that rows of images share.

    The constrained layout does not see all of them.
    """
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, 0.01, 0.975, 0.99))


def light_frame(axis: Axes) -> None:
    """No box, a faint grid."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, alpha=0.25, lw=0.6)
    axis.set_axisbelow(True)


def log_values(axis: Axes) -> None:
    """A logarithmic axis of values, labelled with plain numbers at 1, 2 and 5."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    low, high = axis.get_ylim()
    digits = "25" if high < 30 * low else ""
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in digits else ""))


def bare(axis: Axes) -> None:
    """For images: no grid, no ticks, no frame."""
    axis.spines[:].set_visible(False)
    axis.grid(False)
    axis.xaxis.set_major_locator(NullLocator())
    axis.yaxis.set_major_locator(NullLocator())


def time_label(truth: Truth) -> str:
    """The label of a time axis; data sets state no unit of time."""
    return "time t"
