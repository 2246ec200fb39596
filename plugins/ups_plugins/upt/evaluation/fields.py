"""Pictures of one trajectory: truth, prediction and error."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ups_kit.interfaces import FieldSpec

from .definitions import field_label
from .measurement import Measured
from .style import ERROR_COLORS, FIELD_COLORS, bare, keep_clear, new_figure, time_label

FRAMES_SHOWN = 5
FIELDS_SHOWN = 6
PANELS_WIDTH = 8.0  # inches, of all panels of a row

Panel = tuple[str, NDArray[np.float64], dict[str, Any]]  # title, values (N,), scale of colours


def draw_sample(measured: Measured, kind: str) -> Figure:
    """Truth, latent rollout and error of one trajectory: space over time in one dimension, else frames at a few times.

    Shows the first channel of the first target field. Of steady data: the inputs, and the answer of each field.
    """
    truth, shown = measured.truth, measured.shown[kind]
    if truth.fields.steady:
        return _fields_at(measured, kind, 0)
    first = truth.given - 1
    true = truth.values[shown.sample, first:, :, 0].double().numpy()
    predicted = shown.forecast[first:, :, 0].double().numpy()
    times = truth.times[first:].double().numpy()
    title = _title(measured, kind)
    if truth.fields.grid is not None and truth.fields.space_dims == 1:
        return _space_time(measured, true, predicted, times, title)
    return _frames(measured, true, predicted, times, title)


def draw_fields(measured: Measured, kind: str) -> Figure:
    """Every target field of one trajectory at the last time: truth, prediction and error in a row."""
    return _fields_at(measured, kind, measured.truth.values.shape[1] - 1)


def _title(measured: Measured, kind: str) -> str:
    truth = measured.truth
    sample = measured.shown[kind].sample
    nrmse = measured.latent.nrmse[sample].mean().item()
    parameters = "".join(
        f", {name} = {truth.parameters[sample, place]:.4g}"
        for place, name in enumerate(truth.fields.conditions)
        if name != "dt"
    )
    word = {"good": "good (10th percentile)", "median": "median", "worst": "worst"}[kind]
    return f"{word} sample{parameters}: nRMSE{'' if truth.fields.steady else ' of the rollout'} {nrmse:.3g}"


def _scales(true: np.ndarray, predicted: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """One scale for truth and prediction, that of the truth; a symmetric one for the error."""
    error = np.abs(predicted - true)
    largest = float(np.max(error[np.isfinite(error)], initial=0.0)) or 1e-12
    return _field_scale(true), {"cmap": ERROR_COLORS, "vmin": -largest, "vmax": largest}


def _field_scale(values: np.ndarray) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    return {"cmap": FIELD_COLORS, "vmin": low, "vmax": high if high > low else low + 1e-12}


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
    panel = PANELS_WIDTH / max(len(shown), 3)
    figure, axes = new_figure(3, len(shown), height=0.8 + 3 * panel * _aspect(measured.truth.fields))
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
        figure.colorbar(image, ax=list(line), pad=0.01, format="%.3g")
    keep_clear(figure)
    figure.suptitle(f"{title}; {field_label(name)}", fontsize="medium", x=0.01, ha="left")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# One row per field
# ---------------------------------------------------------------------------------------------------------------------
def _fields_at(measured: Measured, kind: str, frame: int) -> Figure:
    """The first channel of every field at one frame; of steady data the inputs, too, in the first column."""
    truth = measured.truth
    rows = _field_panels(measured, kind, frame)
    images = truth.fields.grid is None or truth.fields.space_dims > 1
    columns = max(map(len, rows))
    panel = PANELS_WIDTH / columns
    height = 0.7 + len(rows) * (0.75 * panel * _aspect(truth.fields) + 0.45 if images else 2.2)
    figure, axes = new_figure(len(rows), columns, height=height)
    for line, panels in zip(axes, rows, strict=True):
        for axis in line[: columns - len(panels)]:
            axis.set_visible(False)
        for axis, (title, values, scale) in zip(line[columns - len(panels) :], panels, strict=True):
            axis.set_title(title, fontsize="medium")
            if images:
                image = _draw_frame(axis, measured, values, scale)
                bare(axis)
                figure.colorbar(image, ax=axis, pad=0.02, format="%.3g")
            else:
                _draw_line(axis, measured, values)
    time = "" if truth.fields.steady else f"; t = {truth.times[frame]:.3g}"
    figure.suptitle(f"{_title(measured, kind)}{time}", fontsize="medium", x=0.01, ha="left")
    return figure


def _field_panels(measured: Measured, kind: str, frame: int) -> list[list[Panel]]:
    truth, shown = measured.truth, measured.shown[kind]
    what = "answer" if truth.fields.steady else "latent rollout"
    inputs = _input_panels(measured, shown.sample) if truth.fields.steady else []
    rows, channel = [], 0
    for number, target in enumerate(truth.fields.targets[:FIELDS_SHOWN]):
        true = truth.values[shown.sample, frame, :, channel].double().numpy()
        predicted = shown.forecast[frame, :, channel].double().numpy()
        field, error = _scales(true, predicted)
        name = field_label(target)
        panels: list[Panel] = [
            (f"truth, {name}", true, field),
            (what, predicted, field),
            ("error", predicted - true, error),
        ]
        rows.append([*inputs[number : number + 1], *panels])
        channel += target.channels
    return rows


def _input_panels(measured: Measured, sample: int) -> list[Panel]:
    """The first channel of each static field, normalised as the model sees it."""
    panels: list[Panel] = []
    channel = 0
    for static in measured.truth.fields.statics:
        values = measured.truth.statics[sample, :, channel].double().numpy()
        panels.append((f"input {static.name}, normalised", values, _field_scale(values)))
        channel += static.channels
    return panels


def _draw_line(axis: Axes, measured: Measured, values: np.ndarray) -> None:
    positions = measured.truth.positions[:, 0].numpy()
    order = np.argsort(positions)
    axis.plot(positions[order], values[order], color="#0072B2", lw=1.4)
    axis.set_xlabel("position x")


def _aspect(fields: FieldSpec) -> float:
    """Height over width of a panel."""
    extent = fields.extent
    return min(max(extent[1] / extent[0], 0.25), 1.6) if len(extent) > 1 else 0.6


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
