"""The floor `linear_autoregression`: the linear law of each mode of a grid, fitted to training trajectories."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from attrs import frozen
from torch import Tensor

from ups_kit.errors import DataError
from ups_kit.interfaces import Dataset, FieldSpec

from .modes import Modes
from .truth import read_trajectories

FIT_TRAJECTORIES = 64
FIT_VALUES = 64 << 20  # values that are read for it; where trajectories are large, fewer are
LEAST_TRAJECTORIES = 4
RIDGE = 1e-10  # of a mode's mean energy: keeps modes that never move from being fitted to rounding errors
LARGEST_FIT = 1 << 30  # bytes of the normal equations; beyond it every channel gets a law of its own


@frozen(eq=False)
class ModeFilter:
    """A linear law for every mode k, fitted by least squares.

    û_{t+1}(k) = Σ_j A_j(k) û_{t−j}(k) with (C, C) matrices A_j, j = 0 … history − 1. It is exact for linear equations
    with constant coefficients on a periodic grid, or between walls without flux. There is one filter for all
    trajectories, whatever their parameters are: it does not see them. Where it is not `coupled` the matrices are
    diagonal.
    """

    weights: Tensor  # (laws, history·channels, channels); oldest frame first
    modes: Modes
    history: int
    coupled: bool
    fitted: int = 0  # training trajectories that it has seen

    def one_step(self, values: Tensor) -> Tensor:
        """The frame after every run of `history` frames: (S, F, N, C) -> (S, F − history, N, C)."""
        return torch.stack([self._one_step(trajectory) for trajectory in values])

    def rollout(self, given: Tensor, steps: int) -> Tensor:
        """The `steps` frames after the given ones (S, history, N, C)."""
        return torch.stack([self._rollout(trajectory, steps) for trajectory in given])

    def _one_step(self, values: Tensor) -> Tensor:
        past = _histories(_laws(self.modes, values, self.coupled), self.history)[:-1]
        return self._back(torch.einsum("fki,kio->fko", past, self.weights), values.shape[-1])

    def _rollout(self, given: Tensor, steps: int) -> Tensor:
        frames = list(_laws(self.modes, given, self.coupled).unbind(0))
        for _ in range(steps):
            history = torch.cat(frames[-self.history :], -1)
            frames.append(torch.einsum("ki,kio->ko", history, self.weights))
        return self._back(torch.stack(frames[-steps:]), given.shape[-1])

    def _back(self, spectrum: Tensor, channels: int) -> Tensor:
        return self.modes.back(spectrum.reshape(len(spectrum), -1, channels))


def fit_modes(trajectories: Iterable[Tensor], fields: FieldSpec) -> ModeFilter:
    """Fit the filter to trajectories (F, N, C) in physical units, by least squares over all their steps.

    The trajectories are taken one at a time; the memory does not grow with their number.
    """
    modes, history, channels = Modes.of(fields), fields.history, fields.target_channels
    item = 16 if modes.dtype.is_complex else 8
    coupled = modes.count * (history * channels) ** 2 * item <= LARGEST_FIT
    laws, own = (modes.count, channels) if coupled else (modes.count * channels, 1)
    gram = torch.zeros(laws, history * own, history * own, dtype=modes.dtype)
    cross = torch.zeros(laws, history * own, own, dtype=modes.dtype)
    fitted = 0
    for trajectory in trajectories:
        spectrum = _laws(modes, trajectory, coupled)
        past = _histories(spectrum, history)[:-1].movedim(0, 1)  # (laws, steps, history·channels)
        gram += past.mH @ past
        cross += past.mH @ spectrum[history:].movedim(0, 1)
        fitted += 1
    energy = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    ridge = RIDGE * energy + 1e-24 * energy.max() + 1e-290
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge[:, None])
    return ModeFilter(torch.linalg.solve(gram, cross), modes, history, coupled, fitted)


def train_trajectories(dataset: Dataset, frames: int) -> Tensor:
    """Training trajectories (S, F, N, C) in physical units, evenly spread, at most 64.

    Fewer where 64 trajectories of so many `frames` hold more than about 64 Mi values. Raises DataError where they have
    no step after the given frames.
    """
    fields = dataset.fields
    size = frames * (fields.points or 1) * fields.target_channels
    values = read_trajectories(dataset, "train", min(FIT_TRAJECTORIES, max(LEAST_TRAJECTORIES, FIT_VALUES // size)))[0]
    if not len(values) or values.shape[1] <= fields.history:
        raise DataError(
            f"the split 'train' has {len(values)} trajectories of {values.shape[1]} frames: the linear autoregression "
            f"cannot be fitted; expected at least {fields.history + 1} frames"
        )
    return values


def _laws(modes: Modes, values: Tensor, coupled: bool) -> Tensor:
    """(F, N, C) to what has one law each: modes (F, modes, C), or modes of channels (F, modes·C, 1)."""
    spectrum = modes.forward(values)
    return spectrum if coupled else spectrum.reshape(len(spectrum), -1, 1)


def _histories(spectrum: Tensor, history: int) -> Tensor:
    """Runs of `history` frames, oldest first: (F, K, C) -> (F − history + 1, K, history·C)."""
    last = spectrum.shape[0] - history + 1
    return torch.cat([spectrum[place : place + last] for place in range(history)], -1)
