"""Cubic splines through values on a regular grid, at any points: the best simple way from a grid to elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

FEWEST = 4  # points that a cubic needs; fewer are joined by straight lines


@frozen(eq=False)
class GridSpline:
    """The spline of any values on one grid, at fixed points. Along each axis it is cubic with continuous curvature.

    It is periodic along axes with a period; elsewhere its two outermost pieces are one cubic (not-a-knot), which goes
    on beyond the grid. Of fourth order in the spacing.
    """

    axes: tuple[NDArray[np.float64], ...]  # coordinates of the grid along each axis, rising
    periods: tuple[float | None, ...]
    _basis: Any  # sparse (Q, coefficients): products of B-splines at the points

    @classmethod
    def at(
        cls,
        axes: Sequence[NDArray[np.float64]],
        periods: Sequence[float | None],
        positions: NDArray[np.floating],
    ) -> GridSpline:
        """For values on the grid of these axes, at positions (Q, D)."""
        basis = None
        sizes = []
        for axis, period, places in zip(axes, periods, np.asarray(positions, np.float64).T, strict=True):
            index, weight, size = _axis_basis(axis, period, places)
            sizes.append(size)
            if basis is None:
                basis = index, weight
            else:
                index = (basis[0][:, :, None] * size + index[:, None, :]).reshape(len(places), -1)
                basis = index, (basis[1][:, :, None] * weight[:, None, :]).reshape(len(places), -1)
        assert basis is not None
        return cls(tuple(axes), tuple(periods), _rows(*basis, math.prod(sizes)))

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Values (F, *grid, C) at the points, (F, Q, C)."""
        held: NDArray[np.float64] = np.asarray(values, np.float64)
        frames, channels = held.shape[0], held.shape[-1]
        for number, (axis, period) in enumerate(zip(self.axes, self.periods, strict=True), 1):
            held = _coefficients(axis, period, held, number)
        flat = held.reshape(frames, -1, channels).transpose(1, 0, 2).reshape(-1, frames * channels)
        out = np.asarray(self._basis @ flat).reshape(-1, frames, channels)
        return np.ascontiguousarray(out.transpose(1, 0, 2))


def _rows(index: NDArray[np.int64], weight: NDArray[np.float64], columns: int) -> Any:
    """A sparse matrix with the same number of entries in each row."""
    from scipy.sparse import csr_array

    starts = np.arange(len(index) + 1) * index.shape[1]
    return csr_array((weight.ravel(), index.ravel(), starts), shape=(len(index), columns))


def _knots(axis: NDArray[np.float64], period: float | None) -> tuple[NDArray[np.float64], int, str | None]:
    """Nodes with the seam closed, the degree, and the condition at the ends."""
    nodes = axis if period is None else np.append(axis, axis[0] + period)
    degree = 3 if len(axis) >= FEWEST else min(1, len(axis) - 1)
    return nodes, degree, "periodic" if period is not None and degree == 3 else None


def _coefficients(
    axis: NDArray[np.float64], period: float | None, values: NDArray[np.float64], number: int
) -> NDArray[np.float64]:
    """Values along an axis as coefficients of its B-splines."""
    from scipy.interpolate import make_interp_spline

    nodes, degree, ends = _knots(axis, period)
    first = np.moveaxis(values, number, 0)
    closed = first if period is None else np.concatenate([first, first[:1]])
    if degree == 0:
        return values
    spline = make_interp_spline(nodes, closed, degree, bc_type=ends, axis=0)
    return np.moveaxis(np.asarray(spline.c), 0, number)


def _axis_basis(
    axis: NDArray[np.float64], period: float | None, places: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """The B-splines that are not zero at each place (Q, degree + 1), their values, and how many there are in all."""
    from scipy.interpolate import BSpline, make_interp_spline

    nodes, degree, ends = _knots(axis, period)
    if degree == 0:
        return np.zeros((len(places), 1), np.int64), np.ones((len(places), 1)), 1
    shape = np.zeros(len(nodes))
    knots = make_interp_spline(nodes, shape, degree, bc_type=ends).t
    if period is not None:
        places = axis[0] + np.mod(places - axis[0], period)
    matrix = BSpline.design_matrix(places, knots, degree, extrapolate=True)
    index = np.asarray(matrix.indices, np.int64).reshape(len(places), degree + 1)
    return index, np.asarray(matrix.data).reshape(len(places), degree + 1), matrix.shape[1]
