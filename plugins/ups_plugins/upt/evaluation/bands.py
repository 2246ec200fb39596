"""Pictures of drawn forecasts: how their errors grow, and one trajectory's ensemble beside the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .curves import COLORS, DASHES
from .definitions import field_label
from .drawing import ALONE
from .ensembles import Band, Ensembles, EnsembleScore
from .fields import scales_of
from .scenes import Scene, aspect, color_bar, draw_values
from .style import DISTANCE_COLORS, FLOOR_STYLES, bare, log_values, new_figure, time_label

TIMES_SHOWN = 3  # of one trajectory in one dimension
CURVES = {
    "curve_nrmse": "nRMSE of the mean",
    "curve_crps": "CRPS / RMS of the truth",
    "curve_spread_skill": "spread / skill",
}
Values = NDArray[np.float64]


def draw_drawn(ensembles: Ensembles) -> dict[str, Figure]:
    """The pictures by name; of steady data there are no errors over time."""
    pictures = {"ensemble_median": draw_band(ensembles.band)}
    if ensembles.truth.fields.steady:
        return pictures
    return {"ensemble_errors": draw_growth(ensembles), **pictures}


def draw_growth(ensembles: Ensembles) -> Figure:
    """The numbers of every way to forecast over time."""
    figure, axes = new_figure(1, len(CURVES), height=4.0)
    times = ensembles.truth.times[ensembles.truth.given :].double().numpy()
    for axis, (key, label) in zip(axes.flat, CURVES.items(), strict=True):
        for place, (variant, score) in enumerate(ensembles.scores.items()):
            thick = 2.2 if variant in (ensembles.choice.default, ALONE) else 1.4
            style = {"color": COLORS[place % len(COLORS)], "linestyle": DASHES[place % len(DASHES)], "lw": thick}
            axis.plot(times, _curve(score, key, len(times)), label=variant.name, **style)
        name, floor = ensembles.floor
        if key in floor.summary:
            axis.plot(times, _curve(floor, key, len(times)), label=name.replace("_", " "), **FLOOR_STYLES[name])
            log_values(axis)
        else:
            axis.axhline(1.0, color="k", lw=0.8)
        axis.set_xlabel(time_label(ensembles.truth))
        axis.set_ylabel(label)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _curve(score: EnsembleScore, key: str, steps: int) -> Values:
    """A curve as numbers, with gaps where there is none, and where none can be drawn on a logarithmic axis."""
    found = score.summary.get(key, [None] * steps)
    assert isinstance(found, list)
    return np.array([np.nan if value is None or value <= 0 else value for value in found])


def draw_band(band: Band) -> Figure:
    """One trajectory's ensemble: a line with its band at a few times in one dimension, else maps at the last time.

    The first channel of the first target field, at the points' true places.
    """
    truth = band.truth
    return _lines(band) if truth.fields.space_dims == 1 else _maps(band)


def _title(band: Band) -> str:
    return f"median of '{band.variant.name}'"


def _scene(band: Band, frame: int) -> Scene:
    truth = band.truth
    own = truth.points_of(0).numpy()
    places = truth.places(slice(0, 1), frame)[0]
    return Scene(truth.fields, own, places[own].double().numpy(), None)


def _lines(band: Band) -> Figure:
    truth, last = band.truth, band.truth.values.shape[1] - 1
    frames = sorted({round(place) for place in np.linspace(truth.given, last, TIMES_SHOWN)})
    figure, axes = new_figure(1, len(frames), height=3.4, sharey=True)
    for axis, frame in zip(axes.flat, frames, strict=True):
        scene = _scene(band, frame)
        order = np.argsort(scene.places[:, 0])
        places, own = scene.places[order, 0], scene.own[order]
        low, high, mean = (each[frame, own, 0].numpy() for each in (band.low, band.high, band.mean))
        axis.fill_between(places, low, high, color="#0072B2", alpha=0.25, lw=0, label="5–95 % of the members")
        axis.plot(places, mean, color="#0072B2", lw=1.6, label="mean of the members")
        axis.plot(places, truth.values[0, frame, own, 0].double().numpy(), "k--", lw=1.2, label="truth")
        axis.set_xlabel("x")
        axis.set_title("" if truth.fields.steady else f"t = {truth.times[frame]:.3g}", fontsize="medium")
    axes.flat[0].set_ylabel(field_label(truth.fields.targets[0]))
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(_title(band), fontsize="medium")
    return figure


def _maps(band: Band) -> Figure:
    truth, frame = band.truth, band.truth.values.shape[1] - 1
    true, mean, spread = (each[..., frame, :, 0].double() for each in (truth.values[0], band.mean, band.spread))
    scene, error = _scene(band, frame), (mean - true).abs()
    field, _ = scales_of(true.numpy()[scene.own], error.numpy()[scene.own])
    size = np.concatenate([error.numpy()[scene.own], spread.numpy()[scene.own]])
    largest = float(np.max(size[np.isfinite(size)], initial=0.0)) or 1e-12
    sure: dict[str, Any] = {"cmap": DISTANCE_COLORS, "vmin": 0.0, "vmax": largest}
    name = field_label(truth.fields.targets[0])
    panels = {
        name: (true, field),
        "mean of the members": (mean, field),
        "spread of the members": (spread, sure),
        "error of the mean": (error, sure),
    }
    figure, axes = new_figure(1, len(panels), height=0.6 + 1.8 * aspect(truth.fields))
    for axis, (label, (values, scale)) in zip(axes.flat, panels.items(), strict=True):
        _panel(figure, axis, scene, values.numpy(), scale)
        axis.set_title(label, fontsize="medium")
    when = "" if truth.fields.steady else f", t = {truth.times[frame]:.3g}"
    figure.suptitle(f"{_title(band)}{when}", fontsize="medium")
    return figure


def _panel(figure: Figure, axis: Axes, scene: Scene, values: Values, scale: dict[str, Any]) -> None:
    image = draw_values(axis, scene, values, scale, width=2.0)
    bare(axis)
    color_bar(figure, axis, image)
