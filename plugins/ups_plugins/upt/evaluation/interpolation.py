"""The floor `interpolation`: the truth through as many of its own points as a latent has tokens."""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ups_kit.interfaces import FieldSpec, Latent


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
