"""The floor `interpolation`: the truth through as many of its own points as a latent has tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ups_kit.data.scattered import scattered_matrix
from ups_kit.interfaces import FieldSpec, Latent

from .truth import Truth


class Interpolation:
    """Cubic splines along each axis of a grid, periodic where the axis is, through a lattice of its points.

    The lattice is like that of the tokens: equally spaced up to rounding, and from end to end where an axis is not
    periodic. One number per field and token, where a token is `latent.width` numbers: what a codec must beat before it
    can be called one.
    """

    def __init__(self, fields: FieldSpec, latent: Latent) -> None:
        assert fields.grid is not None
        self._grid = fields.grid
        self._places, self._matrices = [], []
        for points, nodes, periodic in zip(
            fields.grid, lattice(fields.grid, latent.tokens.shape[1], latent.grid), fields.periodic, strict=True
        ):
            places = node_places(points, nodes, periodic)
            self._places.append(torch.from_numpy(places))
            self._matrices.append(spline_matrix(points, places, periodic))

    def __call__(self, values: Tensor) -> Tensor:
        """Fields (S, frames, N, C) from their values at the lattice, in single precision."""
        return torch.stack([self._of_sample(sample) for sample in values])

    def _of_sample(self, values: Tensor) -> Tensor:
        out = values.reshape(len(values), *self._grid, -1)
        for axis, places in enumerate(self._places, 1):
            out = out.index_select(axis, places)
        out = out.double()
        for axis, matrix in enumerate(self._matrices, 1):
            out = torch.tensordot(out, matrix, dims=([axis], [1])).movedim(-1, axis)
        return out.reshape(values.shape).float()


class ScatteredInterpolation:
    """Polyharmonic splines between scattered points, through as many of them as there are tokens.

    Those are chosen one after the other, each the farthest from all before, beginning near the middle: what a codec
    must beat on a mesh. The matrix of a trajectory is made once for all its frames.
    """

    def __init__(self, fields: FieldSpec, tokens: int) -> None:
        pairs = zip(fields.extent, fields.periodic, strict=True)
        self._periods = [length if periodic else None for length, periodic in pairs]
        self._tokens = tokens

    def __call__(self, truth: Truth) -> Tensor:
        """The true fields (S, frames, N, C) from their values at the chosen points, in single precision."""
        out, shared = truth.values.clone(), None
        for sample, values in enumerate(truth.values):
            own = truth.points_of(sample)
            if shared is None or truth.positions.dim() > 2:
                shared = self._matrix(truth.places(slice(sample, sample + 1), 0)[0, own].double().numpy())
            nodes, matrix = shared
            known = values[:, own][:, nodes].double().movedim(1, 0)
            found = matrix @ known.reshape(len(nodes), -1).numpy()
            out[sample][:, own] = torch.from_numpy(found).reshape(-1, *known.shape[1:]).movedim(0, 1).float()
        return out

    def _matrix(self, positions: np.ndarray) -> tuple[Tensor, Any]:
        nodes = farthest(positions, self._tokens, self._periods)
        return torch.from_numpy(nodes), scattered_matrix(positions[nodes], positions, self._periods)


def farthest(positions: np.ndarray, number: int, periods: Sequence[float | None]) -> np.ndarray:
    """Indices of `number` of the points (N, D), or of all, each the farthest from those chosen before it.

    The first is the one that is nearest to the mean; distances are the shortest around axes with a period.
    """
    chosen = [int(np.square(positions - positions.mean(0)).sum(1).argmin())]
    distance = np.full(len(positions), np.inf)
    for _ in range(min(number, len(positions)) - 1):
        way = positions - positions[chosen[-1]]
        for axis, period in enumerate(periods):
            if period is not None:
                way[:, axis] -= period * np.round(way[:, axis] / period)
        distance = np.minimum(distance, np.square(way).sum(1))
        chosen.append(int(distance.argmax()))
    return np.asarray(chosen)


def lattice(grid: tuple[int, ...], tokens: int, anchors: tuple[int, ...] | None) -> tuple[int, ...]:
    """Nodes along each axis: the tokens' own lattice, or one like the grid's with at most as many nodes as tokens."""
    if anchors is not None and len(anchors) == len(grid):
        return tuple(min(points, nodes) for points, nodes in zip(grid, anchors))
    share = min(1.0, (tokens / np.prod(grid)) ** (1 / len(grid)))
    return tuple(min(points, max(1, int(points * share + 1e-9))) for points in grid)


def node_places(points: int, nodes: int, periodic: bool) -> np.ndarray:
    """Indices of `nodes` grid points out of `points`, equally spaced up to rounding.

    Along an axis that is not periodic from the first to the last, so that nothing lies beyond them; else centred.
    """
    if not periodic and nodes > 1:
        ends: np.ndarray = np.linspace(0, points - 1, nodes).round().astype(np.int64)
        return ends
    places: np.ndarray = np.floor((np.arange(nodes) + 0.5) * (points / nodes)).astype(np.int64)
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
