"""Floors for steady data: what the answers of the training samples say of a new one."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.interfaces import Dataset
from ups_kit.metrics import NRMSE_FLOOR

from .truth import Truth, read_trajectories

FIT_SAMPLES = 1024
FIT_VALUES = 64 << 20  # values of inputs and answers that are held for it; where samples are large, fewer are
LEAST_SAMPLES = 16
COMPONENTS = 256  # principal components of the inputs, at most
RIDGES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)  # of the features' mean square
HELD_OUT = 5  # every fifth training sample chooses the ridge and the scale


@frozen(eq=False)
class TrainSamples:
    """Training samples that floors are made of."""

    inputs: Tensor  # (n, N·Cs), normalised statics
    condition: Tensor  # (n, P − 1), normalised, without dt
    parameters: Tensor  # (n, P − 1), physical, without dt
    answers: Tensor  # (n, N, C), physical
    names: tuple[str, ...]  # of the conditions

    @classmethod
    def read(cls, dataset: Dataset) -> TrainSamples:
        """At most 1024, evenly spread; fewer where they hold more than 64 Mi values."""
        fields = dataset.fields
        size = (fields.points or 1) * (fields.target_channels + sum(field.channels for field in fields.statics))
        held = read_trajectories(dataset, "train", min(FIT_SAMPLES, max(LEAST_SAMPLES, FIT_VALUES // size)))
        statics = dataset.normaliser.statics(held.statics)
        condition = dataset.normaliser.condition(held.parameters)
        names = fields.conditions
        return cls(statics.flatten(1), condition[:, 1:], held.parameters[:, 1:], held.values[:, 0], names[1:])

    def __len__(self) -> int:
        return len(self.answers)

    def some(self, rows: Tensor) -> TrainSamples:
        """Some of the samples."""
        return TrainSamples(
            self.inputs[rows], self.condition[rows], self.parameters[rows], self.answers[rows], self.names
        )


def channel_means(dataset: Dataset) -> tuple[Tensor, int]:
    """The mean answer (C,) over all points of training samples, at most 1024, evenly spread; and how many they are.

    For data whose points differ between samples; each sample counts alike. Float64.
    """
    fields = dataset.fields
    size = (fields.counts[1] if fields.counts is not None else fields.points or 1) * fields.target_channels
    held = read_trajectories(dataset, "train", min(FIT_SAMPLES, max(LEAST_SAMPLES, FIT_VALUES // size)))
    answers = held.values[:, 0].double()
    real = torch.ones(answers.shape[:2], dtype=torch.bool) if held.mask is None else held.mask
    means = answers.masked_fill(~real[..., None], 0.0).sum(1) / real.sum(1, keepdim=True)
    return means.mean(0), len(answers)


def as_samples(truth: Truth) -> TrainSamples:
    """Held-out samples in the same form."""
    condition, parameters = truth.condition[:, 1:], truth.parameters[:, 1:]
    return TrainSamples(
        truth.statics.flatten(1), condition, parameters, truth.values[:, 0], truth.fields.conditions[1:]
    )


def nearest_sample(train: TrainSamples, new: TrainSamples) -> Tensor:
    """For each new sample the number of the training sample whose inputs are closest.

    In the mean square over the points of the normalised statics, plus that of the normalised conditions.
    """
    distance = _squared_distance(new.inputs, train.inputs) / train.answers.shape[1]
    return (distance + _squared_distance(new.condition, train.condition)).argmin(1)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) from (n, features) and (m, features), one of the m at a time."""
    return torch.stack([(one - row).square().sum(1) for row in other], 1)


# ---------------------------------------------------------------------------------------------------------------------
# Linear regression
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class Regression:
    """A linear law from inputs and conditions to the answer: ridge regression on principal components of the inputs.

    The squared error of each sample counts relative to its answer's mean square, as the score does. `scale` is the
    condition that the answer is proportional to, where that fits better (a source's strength), else None.
    """

    centre: Tensor  # (N·Cs,)
    basis: Tensor  # (N·Cs, r), so that components have mean square 1 on average
    weights: Tensor  # (1 + r + P − 1, N·C)
    scale: str | None
    ridge: float

    def __call__(self, new: TrainSamples) -> Tensor:
        """Answers (n, N, C) in single precision."""
        answers = self._features(new) @ self.weights
        return (answers * scales(new, self.scale)[:, None]).reshape(new.answers.shape).float()

    def _features(self, new: TrainSamples) -> Tensor:
        return features(new, self.centre, self.basis)


def fit_regression(train: TrainSamples) -> Regression:
    """Fit the law; ridge and scale are those that do best on every fifth training sample, then all are used."""
    count = len(train)
    held = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    choices: list[tuple[float, str | None, float]] = [(math.inf, None, RIDGES[2])]
    if held.any() and not held.all():
        kept, new = train.some((~held).nonzero().flatten()), train.some(held.nonzero().flatten())
        centre, basis = principal_components(kept.inputs)
        for scale in (None, *usable_scales(train)):
            for ridge, weights in solve(kept, centre, basis, scale).items():
                found = Regression(centre, basis, weights, scale, ridge)(new)
                choices.append((_relative_error(found, new.answers), scale, ridge))
    _, scale, ridge = min(choices, key=lambda choice: choice[0])
    centre, basis = principal_components(train.inputs)
    return Regression(centre, basis, solve(train, centre, basis, scale)[ridge], scale, ridge)


def usable_scales(train: TrainSamples) -> list[str]:
    """Conditions that are never zero, keep their sign and differ between samples: an answer may be proportional."""
    columns = {name: train.parameters[:, place] for place, name in enumerate(train.names)}
    return [
        name
        for name, values in columns.items()
        if bool((values * values[0] > 0).all()) and bool((values != values[0]).any())
    ]


def scales(samples: TrainSamples, name: str | None) -> Tensor:
    """What each sample's answer is divided by, (n,)."""
    if name is None:
        return torch.ones(len(samples), dtype=torch.float64)
    return samples.parameters[:, samples.names.index(name)].double()


def principal_components(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the inputs and a basis of their variation, from the eigenvectors of the samples' Gram matrix."""
    centre = inputs.double().mean(0)
    varied = inputs.double() - centre
    if varied.shape[1] == 0 or len(inputs) < 2:
        return centre, varied.new_zeros(varied.shape[1], 0)
    values, vectors = torch.linalg.eigh(varied @ varied.T)
    order = torch.arange(len(values) - 1, -1, -1)[: min(COMPONENTS, len(values) - 1)]
    order = order[values[order] > 1e-10 * values[-1].clamp_min(1e-300)]
    total = values.clamp_min(0).sum() / len(values)
    basis = varied.T @ (vectors[:, order] / values[order].sqrt()) / total.sqrt().clamp_min(1e-150)
    return centre, basis * len(order) ** 0.5


def features(samples: TrainSamples, centre: Tensor, basis: Tensor) -> Tensor:
    """1, the components, the conditions: (n, 1 + r + P − 1)."""
    ones = torch.ones(len(samples), 1, dtype=torch.float64)
    return torch.cat([ones, (samples.inputs.double() - centre) @ basis, samples.condition.double()], 1)


def solve(samples: TrainSamples, centre: Tensor, basis: Tensor, scale: str | None) -> dict[float, Tensor]:
    """The weights for every ridge; the constant is not shrunk."""
    known, scaling = features(samples, centre, basis), scales(samples, scale)
    answers = samples.answers.flatten(1).double() / scaling[:, None]
    size = answers.square().mean(1).sqrt().clamp_min(NRMSE_FLOOR)
    known, answers = known / size[:, None], answers / size[:, None]
    gram, cross = known.T @ known, known.T @ answers
    penalty = gram.diagonal().mean() * torch.ones(len(gram), dtype=gram.dtype)
    penalty[0] *= 1e-6
    return {ridge: torch.linalg.solve(gram + ridge * torch.diag(penalty), cross) for ridge in RIDGES}


def _relative_error(answers: Tensor, truth: Tensor) -> float:
    error = (answers.double() - truth.double()).square().mean(1).sqrt()
    return float((error / truth.double().square().mean(1).sqrt().clamp_min(NRMSE_FLOOR)).mean())
