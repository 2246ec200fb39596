"""Pictures of one trajectory: truth, prediction and error."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ups_kit.interfaces import FieldSpec

from .card import field_label
from .measurement import Measured
from .style import ERROR_COLORS, FIELD_COLORS, bare, new_figure, time_label

FRAMES_SHOWN = 5
PANELS_WIDTH = 8.0  # inches, of all panels of a row


def draw_sample(measured: Measured, kind: str, sample: int) -> Figure:
    """Truth, latent rollout and error of one trajectory: space over time in one dimension, else frames at a few times.

    Shows the first channel of the first target field.
    """
    truth = measured.truth
    first = truth.given - 1
    true = truth.values[sample, first:, :, 0].double().numpy()
    predicted = measured.forecasts.latent[sample, first:, :, 0].double().numpy()
    times = truth.times[first:].double().numpy()
    title = _title(measured, kind, sample)
    if truth.fields.grid is not None and truth.fields.space_dims == 1:
        return _space_time(measured, true, predicted, times, title)
    return _frames(measured, true, predicted, times, title)


def _title(measured: Measured, kind: str, sample: int) -> str:
    truth = measured.truth
    nrmse = measured.latent.nrmse[sample].mean().item()
    parameters = "".join(
        f", {name} = {truth.parameters[sample, place]:.4g}"
        for place, name in enumerate(truth.fields.conditions)
        if name != "dt"
    )
    word = {"good": "good (10th percentile)", "median": "median", "worst": "worst"}[kind]
    return f"{word} sample{parameters}: nRMSE of the rollout {nrmse:.3g}"


def _scales(true: np.ndarray, predicted: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """One scale for truth and prediction, that of the truth; a symmetric one for the error."""
    error = np.abs(predicted - true)
    largest = float(np.max(error[np.isfinite(error)], initial=0.0)) or 1e-12
    low, high = float(true.min()), float(true.max())
    field = {"cmap": FIELD_COLORS, "vmin": low, "vmax": high if high > low else low + 1e-12}
    return field, {"cmap": ERROR_COLORS, "vmin": -largest, "vmax": largest}


def _space_time(measured: Measured, true: np.ndarray, predicted: np.ndarray, times: np.ndarray, title: str) -> Figure:
    figure, axes = new_figure(1, 3, height=3.3, sharey=True)
    fields = measured.truth.fields
    low, high = fields.domain[0]
    half = (times[-1] - times[0]) / max(len(times) - 1, 1) / 2
    extent = (times[0] - half, times[-1] + half, low, high)
    name = field_label(fields.targets[0])
    field, error = _scales(true, predicted)
    panels = (("truth", true, field), ("latent rollout", predicted, field), ("error", predicted - true, error))
    for axis, (label, values, scale) in zip(axes.flat, panels, strict=True):
        image = axis.imshow(
            values.T, origin="lower", aspect="auto", extent=extent, interpolation="nearest", rasterized=True, **scale
        )
        axis.grid(False)
        axis.set_title(label, fontsize="medium")
        axis.set_xlabel(time_label(measured.truth))
        if label != "truth":
            figure.colorbar(image, ax=axis, label=name if label != "error" else f"error of {name}", pad=0.02)
    axes.flat[0].set_ylabel("position x")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def _frames(measured: Measured, true: np.ndarray, predicted: np.ndarray, times: np.ndarray, title: str) -> Figure:
    shown = np.unique(np.linspace(1, len(times) - 1, min(FRAMES_SHOWN, len(times) - 1)).round().astype(int))
    extent = measured.truth.fields.extent
    shape = min(max(extent[1] / extent[0], 0.25), 1.6) if len(extent) > 1 else 0.6
    figure, axes = new_figure(3, len(shown), height=0.8 + 3 * PANELS_WIDTH / len(shown) * shape)
    field, error = _scales(true, predicted)
    name = measured.truth.fields.targets[0]
    rows = (("truth", true, field), ("latent rollout", predicted, field), ("error", predicted - true, error))
    for line, (label, values, scale) in zip(axes, rows, strict=True):
        for axis, frame in zip(line, shown, strict=True):
            image = _draw_frame(axis, measured, values[frame], scale)
            bare(axis)
            if label == "truth":
                axis.set_title(f"t = {times[frame]:.3g}", fontsize="medium")
        line[0].set_ylabel(label)
        figure.colorbar(image, ax=list(line), pad=0.01)
    figure.suptitle(f"{title}; {field_label(name)}", fontsize="medium", x=0.01, ha="left")
    return figure


def _draw_frame(axis: Axes, measured: Measured, values: np.ndarray, scale: dict[str, Any]) -> Any:
    """One frame: a grid as an image (the middle slice of a three-dimensional one), other points as dots."""
    fields = measured.truth.fields
    if fields.grid is not None:
        image = slice_of(values, fields)
        (left, right), (low, high) = fields.domain[0], fields.domain[1]
        return axis.imshow(image.T, origin="lower", extent=(left, right, low, high), interpolation="nearest", **scale)
    positions = measured.truth.positions.numpy()
    axis.set_aspect("equal" if positions.shape[1] > 1 else "auto")
    height = positions[:, 1] if positions.shape[1] > 1 else values
    return axis.scatter(positions[:, 0], height, c=values, s=4, lw=0, **scale)


def slice_of(values: np.ndarray, fields: FieldSpec) -> np.ndarray:
    """A grid's frame (N,) as an image (first axis, second axis), in the middle of a third."""
    assert fields.grid is not None
    block = values.reshape(fields.grid)
    return block if block.ndim == 2 else block[:, :, block.shape[2] // 2]
