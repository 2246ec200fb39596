"""Interpolation between scattered points: as good as it gets without knowing more of the fields."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = {1: 6, 2: 21, 3: 45}  # of a place, by dimension: about twice the terms of a quadratic, and more
DEGREE = 2
BLOCK = 4096  # places whose equations are solved at a time


def scattered_matrix(
    points: NDArray[np.floating], places: NDArray[np.floating], periods: Sequence[float | None]
) -> Any:
    """The sparse matrix (Q, N) from values at points (N, D) to values at places (Q, D).

    Around each place, cubic radial functions r³ and a quadratic through its nearest points (polyharmonic splines,
    Duchon 1977; the same as scipy's `RBFInterpolator(kernel="cubic", degree=2, neighbors=…)`): exact for quadratics,
    of third order in the points' distance. Across the seam of an axis with a period the points go on. Of fewer points
    than a quadratic needs, the polynomial is linear or constant.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    sources, targets = np.asarray(points, np.float64), np.asarray(places, np.float64)
    box = np.asarray([0.0 if period is None else period for period in periods])
    low = np.where(box > 0, sources.min(0), 0.0)
    wrapped = [_within(each - low, box) for each in (sources, targets)]
    count = min(NEIGHBOURS[len(box)], len(sources))
    tree = cKDTree(wrapped[0], boxsize=box)
    rows, columns = [], []
    for first in range(0, len(targets), BLOCK):
        some = wrapped[1][first : first + BLOCK]
        _, near = tree.query(some, k=np.arange(1, count + 1))
        away = wrapped[0][near] - some[:, None]
        away -= np.where(box > 0, np.round(away / np.where(box > 0, box, 1.0)) * box, 0.0)
        rows.append(_weights(away))
        columns.append(near)
    starts = np.arange(len(targets) + 1) * count
    values, index = np.concatenate(rows).ravel(), np.concatenate(columns).ravel()
    return csr_array((values, index, starts), shape=(len(targets), len(sources)))


def _within(places: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places brought into the box along its periodic axes."""
    inside = np.mod(places, np.where(box > 0, box, 1.0))
    inside = np.where(inside >= box, 0.0, inside)  # of rounding
    return np.where(box > 0, inside, places)


def _weights(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each neighbour's value counts at the place in their middle: (Q, K) from their offsets (Q, K, D)."""
    scale = np.linalg.norm(away, axis=-1).max(-1)[:, None, None]
    away = away / np.where(scale > 0, scale, 1.0)
    total, count, dims = away.shape
    powers = list(_powers(dims, _degree(count, dims)))
    terms = np.stack([np.prod(away ** np.asarray(power), -1) for power in powers], -1)  # (Q, K, terms)
    apart = np.linalg.norm(away[:, :, None] - away[:, None], axis=-1) ** 3
    size = count + len(powers)
    matrix = np.zeros((total, size, size))
    matrix[:, :count, :count] = apart
    matrix[:, :count, count:] = terms
    matrix[:, count:, :count] = terms.transpose(0, 2, 1)
    right = np.zeros((total, size, 1))
    right[:, :count, 0] = np.linalg.norm(away, axis=-1) ** 3
    right[:, count, 0] = 1.0  # the constant: every other term is zero at the place itself
    return _solved(matrix, right)[:, :count, 0]


def _degree(count: int, dims: int) -> int:
    """The highest degree that so many points can carry."""
    return max((d for d in range(DEGREE + 1) if math.comb(d + dims, dims) <= count), default=0)


def _powers(dims: int, degree: int) -> Iterator[tuple[int, ...]]:
    """Exponents of all monomials up to a degree, the constant first."""
    yield from sorted(
        (power for power in itertools.product(range(degree + 1), repeat=dims) if sum(power) <= degree), key=sum
    )


def _solved(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solutions; of the smallest norm where neighbours stand on a line and do not determine a polynomial."""
    try:
        found: NDArray[np.float64] = np.asarray(np.linalg.solve(matrix, right), np.float64)
        residual = np.abs(matrix @ found - right).max((1, 2))
        poor = ~(residual < 1e-6) | ~(np.abs(found).max((1, 2)) < 1e3)
    except np.linalg.LinAlgError:
        found, poor = np.zeros_like(right), np.ones(len(matrix), bool)
    if poor.any():
        found[poor] = np.linalg.pinv(matrix[poor], rcond=1e-10) @ right[poor]
    return found
