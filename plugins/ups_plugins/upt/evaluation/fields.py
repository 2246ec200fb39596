"""Pictures of one trajectory: truth, prediction and error."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ups_kit.motion import displacement

from .definitions import field_label
from .measurement import Measured
from .scenes import Scene, aspect, color_bar, draw_values
from .style import DISTANCE_COLORS, ERROR_COLORS, FIELD_COLORS, bare, new_figure, time_label

FRAMES_SHOWN = 5
FIELDS_SHOWN = 6
PANELS_WIDTH = 8.0  # inches, of all panels of a row

Values = NDArray[np.float64]
Panel = tuple[str, Values, dict[str, Any]]  # title, values (N,), scale of colours


class Course:
    """What is shown of one trajectory from its last given frame on: one number of every point and frame.

    The first channel of the first target field; of points that move their speed. The error is the difference, of points
    that move their distance from the true place.
    """

    def __init__(self, measured: Measured, kind: str) -> None:
        truth, shown = measured.truth, measured.shown[kind]
        self.first = truth.given - 1
        frames = truth.values[shown.sample, self.first :].double(), shown.forecast[self.first :].double()
        self.times: Values = truth.times[self.first :].double().numpy()
        motion = truth.fields.motion
        if motion is None:
            self.name = field_label(truth.fields.targets[0])
            self.true, self.predicted = (values[..., 0].numpy() for values in frames)
            self.error = self.predicted - self.true
            self.error_name = f"error of {self.name}"
        else:
            assert shown.positions is not None
            self.name, self.error_name = "speed", "distance from the true place"
            self.true, self.predicted = (values[..., motion].norm(dim=-1).numpy() for values in frames)
            way = displacement(truth.positions[shown.sample], shown.positions, truth.fields)
            self.error = way[self.first :].double().norm(dim=-1).numpy()
        self.own = truth.points_of(shown.sample).numpy()
        self._measured, self._shown = measured, shown

    @property
    def scales(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of truth and prediction, and of the error; real points alone count."""
        field, error = scales_of(self.true[:, self.own], self.error[:, self.own])
        if self._measured.truth.moving:
            error = {"cmap": DISTANCE_COLORS, "vmin": 0.0, "vmax": error["vmax"]}
        return field, error

    def scene(self, frame: int, forecast: bool = False) -> Scene:
        """Where the points are, frames counted from the last given one."""
        return Scene.of(self._measured, self._shown, self.first + frame, forecast)


def draw_sample(measured: Measured, kind: str) -> Figure:
    """Truth, latent rollout and error of one trajectory: space over time in one dimension, else frames at a few times.

    Of steady data: the inputs, and the answer of each field.
    """
    fields = measured.truth.fields
    if fields.steady:
        return _fields_at(measured, kind, 0)
    course, title = Course(measured, kind), _title(measured, kind)
    if fields.space_dims > 1:
        return _frames(measured, course, title)
    return _space_time(measured, course, title) if fields.grid is not None else _world_lines(measured, course, title)


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


def scales_of(true: np.ndarray, error: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """One scale for truth and prediction, that of the truth; a symmetric one for the error."""
    size = np.abs(error)
    largest = float(np.max(size[np.isfinite(size)], initial=0.0)) or 1e-12
    return _field_scale(true), {"cmap": ERROR_COLORS, "vmin": -largest, "vmax": largest}


def _field_scale(values: np.ndarray) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    return {"cmap": FIELD_COLORS, "vmin": low, "vmax": high if high > low else low + 1e-12}


# ---------------------------------------------------------------------------------------------------------------------
# One field over time
# ---------------------------------------------------------------------------------------------------------------------
def _space_time(measured: Measured, course: Course, title: str) -> Figure:
    figure, axes = new_figure(1, 3, height=3.3, sharey=True)
    times = course.times
    low, high = measured.truth.fields.domain[0]
    half = (times[-1] - times[0]) / max(len(times) - 1, 1) / 2
    extent = (times[0] - half, times[-1] + half, low, high)
    field, error = course.scales
    panels = (
        ("truth", course.true, field),
        ("latent rollout", course.predicted, field),
        ("error", course.error, error),
    )
    for axis, (label, values, scale) in zip(axes.flat, panels, strict=True):
        image = axis.imshow(
            values.T, origin="lower", aspect="auto", extent=extent, interpolation="nearest", rasterized=True, **scale
        )
        axis.grid(False)
        axis.set_title(label, fontsize="medium")
        axis.set_xlabel(time_label(measured.truth))
        if label != "truth":
            name = course.name if label != "error" else course.error_name
            figure.colorbar(image, ax=axis, label=name, pad=0.02)
    axes.flat[0].set_ylabel("position x")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def _world_lines(measured: Measured, course: Course, title: str) -> Figure:
    """Points of one dimension over time, as dots."""
    figure, axes = new_figure(1, 3, height=3.3, sharey=True)
    field, error = course.scales
    panels = (
        ("truth", course.true, field),
        ("latent rollout", course.predicted, field),
        ("error", course.error, error),
    )
    for axis, (label, values, scale) in zip(axes.flat, panels, strict=True):
        scenes = [course.scene(frame, label == "latent rollout") for frame in range(len(course.times))]
        places = np.stack([scene.places[:, 0] for scene in scenes])
        times = np.broadcast_to(course.times[:, None], places.shape)
        image = axis.scatter(times, places, c=values[:, course.own], s=4, lw=0, rasterized=True, **scale)
        axis.grid(False)
        axis.set_title(label, fontsize="medium")
        axis.set_xlabel(time_label(measured.truth))
        if label != "truth":
            color_bar(figure, axis, image, course.name if label != "error" else course.error_name)
    axes.flat[0].set_ylabel("position x")
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def _frames(measured: Measured, course: Course, title: str) -> Figure:
    times = course.times
    shown = np.unique(np.linspace(1, len(times) - 1, min(FRAMES_SHOWN, len(times) - 1)).round().astype(int))
    panel = PANELS_WIDTH / max(len(shown), 3)
    figure, axes = new_figure(3, len(shown), height=0.8 + 3 * panel * aspect(measured.truth.fields))
    field, error = course.scales
    last = "distance" if measured.truth.moving else "error"
    rows = (("truth", course.true, field), ("latent rollout", course.predicted, field), (last, course.error, error))
    for line, (label, values, scale) in zip(axes, rows, strict=True):
        for axis, frame in zip(line, shown, strict=True):
            image = draw_values(axis, course.scene(frame, label == "latent rollout"), values[frame], scale, panel)
            bare(axis)
            if label == "truth":
                axis.set_title(f"t = {times[frame]:.3g}", fontsize="medium")
        line[0].set_ylabel(label)
        color_bar(figure, line[-1], image)
    figure.suptitle(f"{title}; {course.name}", fontsize="medium", x=0.01, ha="left")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# One row per field
# ---------------------------------------------------------------------------------------------------------------------
def _fields_at(measured: Measured, kind: str, frame: int) -> Figure:
    """The first channel of every field at one frame; of steady data the inputs, too, in the first column."""
    truth, shown = measured.truth, measured.shown[kind]
    rows, scenes = (
        _field_panels(measured, kind, frame),
        [Scene.of(measured, shown, frame, own) for own in (False, True)],
    )
    images = truth.fields.space_dims > 1
    columns = max(map(len, rows))
    panel = PANELS_WIDTH / columns
    height = 0.7 + len(rows) * (0.75 * panel * aspect(truth.fields) + 0.45 if images else 2.2)
    figure, axes = new_figure(len(rows), columns, height=height)
    for line, panels in zip(axes, rows, strict=True):
        for axis in line[: columns - len(panels)]:
            axis.set_visible(False)
        for axis, (title, values, scale) in zip(line[columns - len(panels) :], panels, strict=True):
            axis.set_title(title, fontsize="medium")
            image = draw_values(axis, scenes[title == "latent rollout"], values, scale, panel)
            if images:
                bare(axis)
                color_bar(figure, axis, image)
            else:
                axis.set_xlabel("position x")
    time = "" if truth.fields.steady else f"; t = {truth.times[frame]:.3g}"
    figure.suptitle(f"{_title(measured, kind)}{time}", fontsize="medium", x=0.01, ha="left")
    return figure


def _field_panels(measured: Measured, kind: str, frame: int) -> list[list[Panel]]:
    truth, shown = measured.truth, measured.shown[kind]
    own = truth.points_of(shown.sample).numpy()
    what = "answer" if truth.fields.steady else "latent rollout"
    inputs = _input_panels(measured, shown.sample) if truth.fields.steady else []
    rows, channel = [], 0
    for number, target in enumerate(truth.fields.targets[:FIELDS_SHOWN]):
        true = truth.values[shown.sample, frame, :, channel].double().numpy()
        predicted = shown.forecast[frame, :, channel].double().numpy()
        field, error = scales_of(true[own], (predicted - true)[own])
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
    channel, own = 0, measured.truth.points_of(sample).numpy()
    for static in measured.truth.fields.statics:
        values = measured.truth.statics[sample, :, channel].double().numpy()
        panels.append((f"input {static.name}, normalised", values, _field_scale(values[own])))
        channel += static.channels
    return panels
