"""What the numbers of a score card are, in sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ups_kit.interfaces import Field
from ups_kit.metrics import CENTRAL

from .choice import Choice
from .config import EvaluateConfig
from .particles import CLOUD_POINTS, CLOUD_TRAJECTORIES
from .truth import Truth

METRICS_VERSION = 1  # raised when a number of the card would come out otherwise for the same forecasts


def fingerprint(truth: Truth, config: EvaluateConfig) -> dict[str, Any]:
    """What must be equal for numbers of two score cards to mean the same: for `upskit compare`.

    `scored` is a hash of the first frame that is scored, and so tells which trajectories these are.
    """
    first, last = truth.scored.start, truth.scored.stop - 1
    frame = truth.values[:, first].contiguous()
    return {
        "evaluator": "ups_kit evaluate",
        "version": METRICS_VERSION,
        "split": config.split,
        "trajectories": truth.samples,
        "steps": truth.steps,
        "given": truth.given,
        "times": [round(float(truth.times[place]), 6) for place in (first, last)],
        "points": _points(truth),
        "fields": [field_label(target) for target in truth.fields.targets],
        "scored": hashlib.sha256(frame.view(torch.uint8).numpy().tobytes()).hexdigest(),
    }


def definition(truth: Truth, split: str, tokens: int, remarks: Mapping[str, str]) -> dict[str, str]:
    """What the numbers are: space, frames, denominators, order of averages (reliability of a score begins here)."""
    fields = truth.fields
    units = ", ".join(field_label(target) for target in fields.targets)
    samples = "samples" if fields.steady else "trajectories"
    return {
        "data": f"{truth.samples} {samples} of the split '{split}', {_points(truth)}, fields {units}",
        "space": "physical units: the normalisation is undone first",
        **(_steady(truth) if fields.steady else _series(truth)),
        **(_moving(truth) if truth.moving else {}),
        **remarks,
        **({} if truth.moving else {"interpolation": _interpolation(truth, tokens)}),
    }


def _points(truth: Truth) -> str:
    """How many points there are."""
    if truth.mask is None:
        return f"{truth.values.shape[2]} points"
    counts = truth.mask.sum(1)
    fewest, most = int(counts.min()), int(counts.max())
    return f"{fewest} points" if fewest == most else f"{fewest} to {most} points"


def _interpolation(truth: Truth, tokens: int) -> str:
    what = "answer" if truth.fields.steady else "frame"
    if truth.fields.grid is not None:
        return f"the true {what} by cubic splines through as many of its points as there are tokens, {tokens}"
    return (
        f"the true {what} by polyharmonic splines through as many of its points as there are tokens, {tokens}, each "
        "chosen the farthest from those before"
    )


def _moving(truth: Truth) -> dict[str, str]:
    kept = "; those that move as given are left where they are and not scored" if truth.kinematic is not None else ""
    return {
        "points": f"move with the forecast's own {truth.fields.moves_with}; every error is that of one point, wherever "
        f"it has gone{kept}",
        "positions": "mean over points and axes of the squared distance from the true place, and over the first 5, 10, "
        "20 or all steps; around periodic axes the shortest way",
        "energy": "squared error of the kinetic energy, half the mean of |v|^2; mean over steps",
        "Sinkhorn": f"divergence of predicted from true places after the last of those steps, {CLOUD_POINTS} points of "
        f"{CLOUD_TRAJECTORIES} trajectories at most: how the points are spread, whichever is which",
    }


def _steady(truth: Truth) -> dict[str, str]:
    names = ", ".join(field.name for field in truth.fields.statics)
    parameters = ", ".join(name for name in truth.fields.conditions if name != "dt")
    given = " and ".join(part for part in (names, parameters) if part) or "nothing"
    return {
        "answer": f"in one model step from {given}; steady data have no frames and no rollout",
        "nrmse": "per sample and channel: RMSE over points / RMS of the truth; then the mean. Relative to each "
        "sample's own size, so that samples count alike where parameters and answers span decades",
        "vrmse": "per sample and channel: sqrt(MSE / (variance of the truth in space + 1e-7)); then the mean",
        "average": "over channels, then over samples; RMSE and max error are in the field's unit and ruled by the "
        "samples with large answers",
        "spatial mean": "the true answer's own mean over points: what one right number would score",
    }


def _series(truth: Truth) -> dict[str, str]:
    first, last = truth.scored.start, truth.scored.stop - 1
    times = f"t = {truth.times[first]:.4g} to {truth.times[last]:.4g}"
    given = "frame 0" if truth.given == 1 else f"frames 0 to {truth.given - 1}"
    return {
        "frames": f"{given} given and never scored; frames {first} to {last} scored ({times})",
        "nrmse": "per sample, frame and channel: RMSE over points / RMS of the truth; then the mean",
        "vrmse": "per sample, frame and channel: sqrt(MSE / (variance of the truth in space + 1e-7)); then the mean",
        "average": "over channels, then over samples and scored frames, all alike",
        "one step": "each scored frame from the true frames before it",
        "rollout": f"each scored frame from {given} alone; 'step k' is the k-th frame after it, 'rollout' their mean",
        "corr. time": "time after the given frames at which the Pearson correlation first falls under 0.8, the last "
        "time if never; mean over samples",
    }


def drawn_definition(members: int, rollout: str, choice: Choice) -> dict[str, str]:
    """What the numbers of drawn forecasts are."""
    least = 1 - (1 - CENTRAL) / 2 * (members + 1)
    few = f"; of {members} members never below {least:.2g}, 0 from 19 on" if round(least, 9) > 0 else ""
    helps = {
        "helps": "CRPS and nRMSE of the mean are both below those of the operator alone, on the validation split "
        f"({choice.trajectories} samples); the numbers of the table decide nothing"
    }
    return {
        "drawn": f"the {rollout}, {members} times of each sample, every time and at every step with other noise",
        "member": "nRMSE of one member, the mean over members",
        "mean": "nRMSE of the mean of the members; so is VRMSE. Of what is not drawn, its own",
        "CRPS": "fair, over the RMS of the truth; of what is not drawn the absolute error",
        "spread": "spread over skill: 1 where members differ as much as their mean errs, less where they are too sure",
        "in 90 %": f"share of points, frames and samples within the central 90 % of the members, point by point{few}",
        "ms/step": "wall milliseconds of a latent step of one trajectory among at most eight; no encoder, no decoder",
        **(helps if choice.operator is not None else {}),
    }


OTHER_METRICS = {
    "rmse": "RMSE over points, in the field's unit",
    "max_error": "largest absolute error over points, in the field's unit",
    "crmse": "error of the field's integral per unit volume, in the field's unit; points weighed by their area or "
    "volume where data have it",
    "brmse": "RMSE over boundary points: both sides of the seam of a periodic axis, first and last points of others",
    "frmse_low, _mid, _high": "Fourier error in the wave numbers 0-4, 5-12 and from 13 on: root of the summed squared "
    "amplitudes over the number of wave numbers",
    "nrmse/<field>, vrmse/<field>": "of one field alone, where there are several",
    "nrmse_median, vrmse_median": "over samples and scored frames; the mean VRMSE is ruled by truths gone flat",
    "relative_l2": "error norm over truth norm, both over all scored frames and points of a sample",
    "geometric_mean_nrmse": "geometric mean over the scored frames, at most 100, of the samples' mean nRMSE",
}


PARTICLE_METRICS = {
    "position_mse, position_mse_n": "mean over points, axes and steps (the first n) of the squared distance from the "
    "true place, in the data's unit of length, squared",
    "kinetic_energy_mse": "mean over steps of the squared error of half the mean of |v|^2 over points",
    "sinkhorn_n": "debiased Sinkhorn divergence of predicted from true places after n steps, a squared length",
}


def field_label(field: Field) -> str:
    """A field and its unit; nothing where it has none."""
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"
