"""From values on a grid to those between its points, by interpolation alone: what a decoder is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.data.discretisations import grid_axes, grid_points
from ups_kit.data.splines import GridSpline
from ups_kit.interfaces import FieldSpec

Lift = Callable[[Tensor], Tensor]  # (S, F, N, C) on the one grid to (S, F, N', C) on the other, float32


def splines(coarse: FieldSpec, fine: FieldSpec) -> Lift:
    """Cubic splines, across the seams of periodic axes; beyond the outermost points of others they go on."""
    grid = _grid(coarse)
    periods = [length if wraps else None for length, wraps in zip(coarse.extent, coarse.periodic, strict=True)]
    spline = GridSpline.at(_axes(coarse), periods, grid_points(_axes(fine)))

    def lift(values: Tensor) -> Tensor:
        lifted = (spline(sample.reshape(len(sample), *grid, -1).double().numpy()) for sample in values)
        return torch.stack([torch.from_numpy(each).float() for each in lifted])

    return lift


def trigonometric(coarse: FieldSpec, fine: FieldSpec) -> Lift | None:
    """The trigonometric polynomial through the values, exact for all modes that the grid carries.

    None where an axis is not periodic.
    """
    if not all(coarse.periodic):
        return None
    grid, dims = _grid(coarse), coarse.space_dims
    matrices = [
        torch.from_numpy(_dirichlet(own, other, length))
        for own, other, length in zip(_axes(coarse), _axes(fine), coarse.extent, strict=True)
    ]

    def lift(values: Tensor) -> Tensor:
        lifted = []
        for sample in values:
            on_grid = sample.double().reshape(len(sample), *grid, -1)
            each = reduce(
                lambda held, axis: torch.tensordot(held, matrices[axis], dims=([1 + axis], [1])).movedim(-1, 1 + axis),
                range(dims),
                on_grid,
            )
            lifted.append(each.reshape(len(sample), -1, sample.shape[-1]).float())
        return torch.stack(lifted)

    return lift


def _dirichlet(nodes: NDArray[np.float64], places: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Weights (places, nodes) of the trigonometric polynomial through evenly spaced nodes.

    (1/n) Σ_k exp(2πi k (x − x_j)/L) over |k| < n/2, and half of both modes at n/2 where n is even.
    """
    count = len(nodes)
    turn = 2 * np.pi * (places[:, None] - nodes[None]) / period
    numbers = np.arange(1, (count - 1) // 2 + 1)
    weights = 1 + 2 * sum((np.cos(number * turn) for number in numbers), np.zeros_like(turn))
    if count % 2 == 0:
        weights = weights + np.cos(count // 2 * turn)
    return np.asarray(weights / count)


def _axes(fields: FieldSpec) -> tuple[NDArray[np.float64], ...]:
    return grid_axes(fields.domain, _grid(fields), fields.offset)


def _grid(fields: FieldSpec) -> tuple[int, ...]:
    assert fields.grid is not None
    return fields.grid
