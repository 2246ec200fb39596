"""Floors: forecasts that cost nothing to train. A model that does not beat them has learned nothing worth its name.

Every floor is a pair of forecasts in physical units, (S, frames, N, C) with the given frames copied from the truth: one
step from every true frame, and a rollout from the given frames. The two are one where a floor does not step. What a
floor knows of the training data is prepared once; it then forecasts any held-out trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from attrs import field, frozen
from torch import Tensor

from ups_kit.interfaces import Dataset, Latent

from .answers import Regression, TrainSamples, as_samples, channel_means, fit_regression, nearest_sample
from .autoregression import ModeFilter, fit_modes, train_trajectories
from .interpolation import Interpolation, ScatteredInterpolation
from .truth import Truth


class Floor(NamedTuple):
    """What a floor forecasts."""

    one_step: Tensor
    rollout: Tensor


@frozen(eq=False)
class Floors:
    """The floors of a data set by name, ready to forecast, and what is to be said of how they were prepared."""

    forecasts: dict[str, Callable[[Truth], Floor]]
    remarks: dict[str, str] = field(factory=dict)


def prepare(truth: Truth, dataset: Dataset, latent: Latent) -> Floors:
    """The floors that these data have; `encode_decode` is not among them, because it is a forecast of the model."""
    if truth.moving:
        return Floors({"constant_velocity": constant_velocity, "at_rest": at_rest, "spatial_mean": spatial_mean})
    if truth.fields.grid is None:
        return _point_floors(truth, dataset, latent)
    return _steady_floors(truth, dataset, latent) if truth.fields.steady else _series_floors(truth, dataset, latent)


def _point_floors(truth: Truth, dataset: Dataset, latent: Latent) -> Floors:
    """Where trajectories have points of their own: what is known of one point says nothing of another trajectory's."""
    floors = Floors({"persistence": persistence, "spatial_mean": spatial_mean})
    if truth.fields.steady:
        means, samples = channel_means(dataset)
        floors = Floors(
            {
                "train_mean": lambda part: _answer(part, means.float().expand(part.samples, 1, -1)),
                "spatial_mean": lambda part: _answer(part, point_means(part)[:, 0]),
            }
        )
        floors.remarks["train mean"] = f"the mean over all points of {samples} training samples, one for each channel"
    through = ScatteredInterpolation(truth.fields, latent.tokens.shape[1])
    floors.forecasts["interpolation"] = lambda part: interpolation(part, through)
    return floors


def _series_floors(truth: Truth, dataset: Dataset, latent: Latent) -> Floors:
    floors = Floors({"persistence": persistence, "spatial_mean": spatial_mean})
    modes = fit_modes(train_trajectories(dataset, truth.values.shape[1]), truth.fields)
    floors.forecasts["linear_autoregression"] = lambda part: autoregression(part, modes)
    floors.remarks["linear autoregression"] = _remark(modes)
    through = Interpolation(truth.fields, latent)
    floors.forecasts["interpolation"] = lambda part: interpolation(part, through)
    return floors


def _remark(modes: ModeFilter) -> str:
    kinds = {"Fourier"} if all(modes.modes.periodic) else {"cosine"} if not any(modes.modes.periodic) else set()
    kind = next(iter(kinds), "Fourier and cosine")
    law = "one matrix over fields" if modes.coupled else "one factor for every field"
    return f"{law} per {kind} mode, fitted on {modes.fitted} training trajectories, the same for all parameter values"


def _steady_floors(truth: Truth, dataset: Dataset, latent: Latent) -> Floors:
    train = TrainSamples.read(dataset)
    law, mean = fit_regression(train), train.answers.double().mean(0).float()
    floors = Floors(
        {
            "train_mean": lambda part: _answer(part, mean.expand(part.samples, -1, -1)),
            "spatial_mean": lambda part: _answer(part, part.values[:, 0].mean(1, keepdim=True)),
            "nearest_sample": lambda part: _answer(part, train.answers[nearest_sample(train, as_samples(part))]),
            "linear_regression": lambda part: _answer(part, law(as_samples(part))),
        }
    )
    floors.remarks["train mean, nearest sample, linear regression"] = _steady_remark(train, law)
    through = Interpolation(truth.fields, latent)
    floors.forecasts["interpolation"] = lambda part: interpolation(part, through)
    return floors


def _steady_remark(train: TrainSamples, law: Regression) -> str:
    scaled = "" if law.scale is None else f", times {law.scale}"
    return (
        f"from {len(train)} training samples: their mean answer; the answer of the one with the closest inputs; ridge "
        f"regression on {law.basis.shape[1]} principal components of the inputs and on the conditions{scaled}"
    )


def _answer(truth: Truth, values: Tensor) -> Floor:
    """A steady answer (S, N or 1, C) as a forecast."""
    answer = values[:, None].expand_as(truth.values)
    return Floor(answer, answer)


# ---------------------------------------------------------------------------------------------------------------------
# Time series
# ---------------------------------------------------------------------------------------------------------------------
def persistence(truth: Truth) -> Floor:
    """Nothing changes: the frame before, and the last given frame."""
    return _carried(truth, truth.values)


def spatial_mean(truth: Truth) -> Floor:
    """Everything is mixed: the mean over points of the frame before, and of the last given frame.

    The value of a field whose integral is conserved and which has come to rest.
    """
    return _carried(truth, point_means(truth))


def point_means(truth: Truth) -> Tensor:
    """The mean of each trajectory, frame and channel over the points that count, (S, frames, 1, C)."""
    if truth.counted is None:
        return truth.values.mean(2, keepdim=True)
    counted = truth.counted[:, None, :, None]
    return truth.values.where(counted, 0.0).sum(2, keepdim=True) / counted.sum(2, keepdim=True)


def constant_velocity(truth: Truth) -> Floor:
    """Every point moves on as it did: with the velocity and all fields of the frame before, or the last given one."""
    return _carried(truth, truth.values)


def at_rest(truth: Truth) -> Floor:
    """Every point stays where it is; its other fields stay as they were."""
    assert truth.fields.motion is not None
    frames = truth.values.clone()
    frames[..., truth.fields.motion] = 0.0
    return _carried(truth, frames)


def _carried(truth: Truth, frames: Tensor) -> Floor:
    one_step, rollout = truth.values.clone(), truth.values.clone()
    one_step[:, truth.given :] = frames[:, truth.given - 1 : -1]
    rollout[:, truth.given :] = frames[:, truth.given - 1 : truth.given]
    if truth.kinematic is not None:
        known = truth.kinematic[:, None, :, None]
        return Floor(truth.values.where(known, one_step), truth.values.where(known, rollout))
    return Floor(one_step, rollout)


def encode_decode(codec: Tensor) -> Floor:
    """The true frame through encoder and decoder: what a perfect operator would reach."""
    return Floor(codec, codec)


def autoregression(truth: Truth, modes: ModeFilter) -> Floor:
    """The linear law of each mode."""
    one_step, rollout = truth.values.clone(), truth.values.clone()
    one_step[:, truth.given :] = modes.one_step(truth.values)
    rollout[:, truth.given :] = modes.rollout(truth.values[:, : truth.given], truth.steps)
    return Floor(one_step, rollout)


def interpolation(truth: Truth, through: Interpolation | ScatteredInterpolation) -> Floor:
    """Every true frame through as many of its own points as the latent has tokens."""
    result = through(truth.values) if isinstance(through, Interpolation) else through(truth)
    result[:, : truth.given] = truth.values[:, : truth.given]
    return Floor(result, result)
