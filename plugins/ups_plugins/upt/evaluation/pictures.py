"""The pictures of a report, as matplotlib figures without any global state.

Colours can be told apart with any kind of colour vision: viridis for fields, a blue-to-red map for signed errors, and
lines that differ in dash and marker as well as in colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .bands import draw_drawn
from .curves import History, draw_history
from .fields import draw_fields, draw_sample
from .measurement import Measured
from .scores import Score
from .spectra import draw_spectra
from .style import FLOOR_STYLES, GREY, MODEL_STYLES, log_values, new_figure, time_label

BUDGET_STYLES: dict[str, tuple[str, Any]] = {
    "total": ("k", "-"),
    "drift": ("#0072B2", "-"),
    "step": ("#E69F00", "--"),
    "decode": ("#009E73", "-."),
    "encode": ("#CC79A7", ":"),
    "reencoding": (GREY, (0, (5, 3))),
}


def draw_training(history: History) -> dict[str, Figure]:
    """The loss curves of every stage that trained."""
    return {f"training_{stage}": draw_history(stage, records) for stage, records in history.items()}


def draw_pictures(measured: Measured) -> dict[str, Figure]:
    """All pictures of an evaluation by name, in the order of the report."""
    steady = measured.truth.fields.steady
    pictures = {"error_by_sample": draw_samples(measured)} if steady else {"error_over_time": draw_errors(measured)}
    if measured.truth.moving:
        pictures["positions_over_time"] = draw_positions(measured)
    pictures |= {f"sample_{kind}": draw_sample(measured, kind) for kind in measured.shown}
    if len(measured.truth.fields.targets) > 1 and not steady:
        pictures["fields_median"] = draw_fields(measured, "median")
    if measured.spectra is not None:
        pictures["spectra"] = draw_spectra(measured.spectra)
    if not steady:
        pictures["budget"] = draw_budget(measured)
    if measured.shuffle.applicable:
        pictures["error_by_parameter"] = draw_parameters(measured)
    if measured.ensembles is not None:
        pictures |= draw_drawn(measured.ensembles)
    return pictures


def draw_samples(measured: Measured) -> Figure:
    """nRMSE and VRMSE of a steady answer and of its floors: each curve's samples in the order of their errors."""
    figure, axes = new_figure(1, 2, height=4.2)
    share = 100 * (np.arange(measured.truth.samples) + 0.5) / measured.truth.samples
    for axis, name in zip(axes.flat, ("nrmse", "vrmse"), strict=True):
        scores = {"answer": measured.latent} | {floor: found.rollout for floor, found in measured.floors.items()}
        for label, found in scores.items():
            curve = np.sort(getattr(found, name).mean(1).numpy())
            style = MODEL_STYLES.get(label) or FLOOR_STYLES[label]
            axis.plot(share, _positive(curve), label=label.replace("_", " "), **style)
        log_values(axis)
        axis.set_ylabel({"nrmse": "nRMSE", "vrmse": "VRMSE"}[name])
        axis.set_xlabel("samples with less error [%]")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_errors(measured: Measured) -> Figure:
    """nRMSE and VRMSE over time: the rollouts, one step from the truth, and the floors' rollouts."""
    figure, axes = new_figure(1, 2, height=4.2)
    times = _times(measured)
    for axis, name in zip(axes.flat, ("nrmse", "vrmse"), strict=True):
        _errors_of(axis, measured, times, name)
        axis.set_ylabel({"nrmse": "nRMSE", "vrmse": "VRMSE"}[name])
        axis.set_xlabel(time_label(measured.truth))
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _errors_of(axis: Axes, measured: Measured, times: np.ndarray, name: str) -> None:
    models = {
        "latent rollout": measured.latent,
        "re-encoded rollout": measured.reencoded,
        "one step": measured.one_step,
    }
    for label, found in models.items():
        axis.plot(times, _positive(getattr(found, name).mean(0).numpy()), label=label, **MODEL_STYLES[label])
    spread = getattr(measured.latent, name).quantile(_levels(measured), dim=0).numpy()
    color = MODEL_STYLES["latent rollout"]["color"]
    axis.fill_between(
        times, *_positive(spread), color=color, alpha=0.15, lw=0, label="latent rollout, 10–90 % of samples"
    )
    for label, floor in measured.floors.items():
        curve = getattr(floor.rollout, name).mean(0).numpy()
        axis.plot(times, _positive(curve), label=label.replace("_", " "), **FLOOR_STYLES[label])
    log_values(axis)


def draw_positions(measured: Measured) -> Figure:
    """How far points are from where they should be, over time: the root of the mean square, of rollouts and floors."""
    figure, axes = new_figure(1, 1, height=3.6)
    axis, times = axes.flat[0], _times(measured)
    models = {"latent rollout": measured.latent, "re-encoded rollout": measured.reencoded}
    scores = models | {name: floor.rollout for name, floor in measured.floors.items()}
    for name, found in scores.items():
        curve = np.array([np.nan if value is None else value for value in _values(found, "curve_position_mse")])
        style = MODEL_STYLES.get(name) or FLOOR_STYLES[name]
        axis.plot(times, _positive(np.sqrt(curve)), label=name.replace("_", " "), **style)
    log_values(axis)
    axis.set_xlabel(time_label(measured.truth))
    axis.set_ylabel("RMS distance along an axis")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _values(found: Score, name: str) -> list[float | None]:
    curve = found.summary[name]
    assert isinstance(curve, list)
    return curve


def draw_budget(measured: Measured) -> Figure:
    """The parts of the latent rollout's error over time."""
    figure, axes = new_figure(1, 1, height=3.6)
    axis = axes.flat[0]
    times = _times(measured)
    for name, (color, dash) in BUDGET_STYLES.items():
        curve = np.array([np.nan if value is None else value for value in _curve(measured.budget[name])], dtype=float)
        axis.plot(times, _positive(curve), label=name, color=color, linestyle=dash, lw=2 if name == "total" else 1.6)
    log_values(axis)
    axis.set_xlabel(time_label(measured.truth))
    axis.set_ylabel("RMS of the part / RMS of the truth")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_parameters(measured: Measured) -> Figure:
    """Each trajectory's mean nRMSE against its parameters, beside the floor that it is held against."""
    names, truth = measured.shuffle.names, measured.truth
    model = "answer" if truth.fields.steady else "latent rollout"
    figure, axes = new_figure(1, len(names), height=3.6)
    for axis, name in zip(axes.flat, names):
        values = truth.parameters[:, truth.fields.conditions.index(name)].numpy()
        reference = measured.floors[measured.reference].rollout.nrmse.mean(1).numpy()
        other = measured.reference.replace("_", " ")
        axis.scatter(values, _positive(reference), s=14, marker="x", color=GREY, label=other)
        style = {"s": 16, "color": MODEL_STYLES[model]["color"], "label": model}
        axis.scatter(values, _positive(measured.latent.nrmse.mean(1).numpy()), **style)
        log_values(axis)
        if values.min() > 0 and values.max() > 10 * values.min():
            axis.set_xscale("log")
        axis.set_xlabel(name)
        axis.set_ylabel("nRMSE" if truth.fields.steady else "nRMSE of the rollout")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _times(measured: Measured) -> np.ndarray:
    return np.asarray(measured.truth.times[measured.truth.given :].numpy())


def _curve(part: Mapping[str, object]) -> list[float | None]:
    curve = part["curve"]
    assert isinstance(curve, list)
    return curve


def _levels(measured: Measured) -> object:
    return measured.latent.nrmse.new_tensor([0.1, 0.9])


def _positive(values: np.ndarray) -> np.ndarray:
    """Zero and what is not finite cannot be drawn on a logarithmic axis: a gap."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
