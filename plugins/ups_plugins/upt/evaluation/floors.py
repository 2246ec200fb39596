"""Floors: forecasts that cost nothing to train. A model that does not beat them has learned nothing worth its name.

Every floor is a pair of forecasts in physical units, (S, frames, N, C) with the given frames copied from the truth: one
step from every true frame, and a rollout from the given frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from attrs import frozen
from scipy.interpolate import CubicSpline
from torch import Tensor

from ups_kit.errors import DataError
from ups_kit.interfaces import Dataset, FieldSpec, Latent

from .truth import Truth

FIT_TRAJECTORIES = 64
RIDGE = 1e-10  # of a mode's mean energy: keeps modes that never move from being fitted to rounding errors


class Floor(NamedTuple):
    """What a floor forecasts."""

    one_step: Tensor
    rollout: Tensor


def persistence(truth: Truth) -> Floor:
    """Nothing changes: the frame before, and the last given frame."""
    one_step, rollout = truth.values.clone(), truth.values.clone()
    one_step[:, truth.given :] = truth.values[:, truth.given - 1 : -1]
    rollout[:, truth.given :] = truth.values[:, truth.given - 1 : truth.given]
    return Floor(one_step, rollout)


def spatial_mean(truth: Truth) -> Floor:
    """Everything is mixed: the mean over points of the frame before, and of the last given frame.

    The value of a field whose integral is conserved and which has come to rest.
    """
    means = truth.values.mean(2, keepdim=True).expand_as(truth.values)
    one_step, rollout = truth.values.clone(), truth.values.clone()
    one_step[:, truth.given :] = means[:, truth.given - 1 : -1]
    rollout[:, truth.given :] = means[:, truth.given - 1 : truth.given]
    return Floor(one_step, rollout)


def encode_decode(codec: Tensor) -> Floor:
    """The true frame through encoder and decoder: what a perfect operator would reach."""
    return Floor(codec, codec)


# ---------------------------------------------------------------------------------------------------------------------
# Linear autoregression
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class ModeFilter:
    """A linear law for every Fourier mode k, fitted by least squares.

    û_{t+1}(k) = Σ_j A_j(k) û_{t−j}(k) with complex (C, C) matrices A_j, j = 0 … history − 1. It is exact for linear
    equations with constant coefficients on a periodic grid. There is one filter for all trajectories, whatever their
    parameters are: it does not see them.
    """

    weights: Tensor  # (modes, history·C, C), complex; oldest frame first
    fields: FieldSpec

    def one_step(self, values: Tensor) -> Tensor:
        """The frame after every run of `history` frames: (S, F, N, C) -> (S, F − history, N, C)."""
        modes = _modes(values, self.fields)
        return self._back(torch.einsum("sfki,kio->sfko", _histories(modes, self.fields.history)[:, :-1], self.weights))

    def rollout(self, given: Tensor, steps: int) -> Tensor:
        """The `steps` frames after the given ones (S, history, N, C)."""
        frames = list(_modes(given, self.fields).unbind(1))
        for _ in range(steps):
            history = torch.cat(frames[-self.fields.history :], -1)
            frames.append(torch.einsum("ski,kio->sko", history, self.weights))
        return self._back(torch.stack(frames[-steps:], 1))

    def _back(self, modes: Tensor) -> Tensor:
        """Modes (S, F, K, C) to points (S, F, N, C)."""
        grid = self.fields.grid or ()
        samples, frames, _, channels = modes.shape
        half = (*grid[:-1], grid[-1] // 2 + 1)
        spectrum = modes.movedim(-1, 2).reshape(samples, frames, channels, *half)
        values: Tensor = torch.fft.irfftn(spectrum, s=grid, dim=_axes(grid))
        return values.reshape(samples, frames, channels, -1).movedim(2, -1).float()


def fit_modes(values: Tensor, fields: FieldSpec) -> ModeFilter:
    """Fit the filter to trajectories (S, F, N, C) in physical units, by least squares over all their steps."""
    modes = _modes(values[:1, :1], fields).shape[2]
    size, channels = fields.history * fields.target_channels, fields.target_channels
    gram = torch.zeros(modes, size, size, dtype=torch.complex128)
    cross = torch.zeros(modes, size, channels, dtype=torch.complex128)
    for sample in range(len(values)):
        spectrum = _modes(values[sample : sample + 1], fields)
        past = _histories(spectrum, fields.history)[0, :-1]
        gram += torch.einsum("fki,fkj->kij", past.conj(), past)
        cross += torch.einsum("fki,fko->kio", past.conj(), spectrum[0, fields.history :])
    energy = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1) / size
    ridge = RIDGE * energy + 1e-24 * energy.max() + 1e-290
    weights = torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(size, dtype=gram.dtype), cross)
    return ModeFilter(weights, fields)


def linear_autoregression(truth: Truth, dataset: Dataset) -> Floor | None:
    """The linear law of each Fourier mode, fitted on at most 64 training trajectories; None where there is no grid."""
    if truth.fields.grid is None:
        return None
    modes = fit_modes(_train_trajectories(truth, dataset), truth.fields)
    one_step, rollout = truth.values.clone(), truth.values.clone()
    one_step[:, truth.given :] = modes.one_step(truth.values)
    rollout[:, truth.given :] = modes.rollout(truth.values[:, : truth.given], truth.steps)
    return Floor(one_step, rollout)


def _train_trajectories(truth: Truth, dataset: Dataset) -> Tensor:
    """At most 64 windows of training trajectories, as long as the truth or as the training data allow, physical."""
    steps = next((steps for steps in range(truth.steps, 0, -1) if dataset.windows("train", steps) > 0), 0)
    if steps == 0:
        raise DataError("the split 'train' has no window of one step: the linear autoregression cannot be fitted")
    count = dataset.windows("train", steps)
    chosen = np.unique(np.linspace(0, count - 1, min(count, FIT_TRAJECTORIES)).round().astype(np.int64))
    batch = dataset.batch("train", chosen, steps)
    channels = truth.fields.target_channels
    older = [
        batch.inputs.values[:, :, place * channels : (place + 1) * channels]
        for place in range(truth.fields.history - 1)
    ]
    frames = torch.cat([torch.stack(older, 1), batch.states], 1) if older else batch.states
    return dataset.normaliser.physical(frames)


def _modes(values: Tensor, fields: FieldSpec) -> Tensor:
    """Fourier coefficients (S, F, modes, C) of (S, F, N, C), in complex128."""
    grid = fields.grid or ()
    samples, frames, _, channels = values.shape
    on_grid = values.double().movedim(-1, 2).reshape(samples, frames, channels, *grid)
    spectrum: Tensor = torch.fft.rfftn(on_grid, dim=_axes(grid))
    return spectrum.reshape(samples, frames, channels, -1).movedim(2, -1)


def _axes(grid: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(3, 3 + len(grid)))


def _histories(modes: Tensor, history: int) -> Tensor:
    """Runs of `history` frames, oldest first: (S, F, K, C) -> (S, F − history + 1, K, history·C)."""
    last = modes.shape[1] - history + 1
    return torch.cat([modes[:, place : place + last] for place in range(history)], -1)


# ---------------------------------------------------------------------------------------------------------------------
# Interpolation
# ---------------------------------------------------------------------------------------------------------------------
def interpolation(truth: Truth, latent: Latent) -> Floor | None:
    """Every true frame through as many of its own points as the latent has tokens; None where there is no grid.

    The points are grid points, equally spaced up to rounding, on a lattice like that of the tokens; between them a
    cubic spline along each axis, periodic where the axis is. One number per field and token, where a token is
    `latent.width` numbers: what a codec must beat before it can be called one.
    """
    grid = truth.fields.grid
    if grid is None:
        return None
    counts = lattice(grid, latent.tokens.shape[1], latent.grid)
    values = truth.values.double().reshape(*truth.values.shape[:2], *grid, truth.fields.target_channels)
    for axis, (points, nodes) in enumerate(zip(grid, counts, strict=True)):
        at = node_places(points, nodes)
        matrix = spline_matrix(points, at, truth.fields.periodic[axis])
        values = torch.tensordot(values.index_select(2 + axis, torch.from_numpy(at)), matrix, dims=([2 + axis], [1]))
        values = values.movedim(-1, 2 + axis)
    result = truth.values.clone()
    result[:, truth.given :] = values.reshape(truth.values.shape).float()[:, truth.given :]
    return Floor(result, result)


def lattice(grid: tuple[int, ...], tokens: int, anchors: tuple[int, ...] | None) -> tuple[int, ...]:
    """Nodes along each axis: the tokens' own lattice, or one like the grid's with at most as many nodes as tokens."""
    if anchors is not None and len(anchors) == len(grid):
        return tuple(min(points, nodes) for points, nodes in zip(grid, anchors))
    share = min(1.0, (tokens / np.prod(grid)) ** (1 / len(grid)))
    return tuple(min(points, max(1, int(points * share + 1e-9))) for points in grid)


def node_places(points: int, nodes: int) -> np.ndarray:
    """Indices of `nodes` grid points out of `points`, equally spaced up to rounding, centred."""
    spacing = points / nodes
    places: np.ndarray = np.floor((np.arange(nodes) + 0.5) * spacing).astype(np.int64)
    return places


def spline_matrix(points: int, nodes: np.ndarray, periodic: bool) -> Tensor:
    """The matrix (points, nodes) of cubic spline interpolation from values at grid places `nodes` to all grid places.

    Beyond the outermost nodes of an axis that is not periodic the outermost pieces go on.
    """
    values = np.eye(len(nodes))
    if len(nodes) == 1:
        return torch.ones(points, 1, dtype=torch.float64)
    if not periodic:
        return torch.from_numpy(CubicSpline(nodes, values)(np.arange(points)))
    closed = np.append(nodes, nodes[0] + points)
    spline = CubicSpline(closed, np.vstack([values, values[:1]]), bc_type="periodic")
    return torch.from_numpy(spline(np.arange(points)))
