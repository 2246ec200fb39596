"""A file of trajectories as a whole, without splits: samples of it, and initial conditions that stand twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .guard import Sign
from .sample import Sample

if TYPE_CHECKING:
    from ..interfaces import GridFile
    from .points.source import PointSource

BATCH = 16  # trajectories that are read at a time
PROJECTIONS = 32  # numbers that stand for an initial condition where near ones are looked for
BLOCK = 2**16  # values that are projected at a time
EXACT = 1e-12  # equal rows of two products of matrices may differ by so much
NEAR = 1e-3  # of its size: initial conditions nearer than this are told of


def samples_of(grid: GridFile, path: Path, count: int) -> list[Sample]:
    """So many trajectories, spread over the file, in physical units. Raises DataError."""
    numbers = np.linspace(0, grid.header.trajectories - 1, min(count, grid.header.trajectories))
    return [_sample(grid, path, int(number)) for number in np.unique(numbers.astype(np.int64))]


def _sample(grid: GridFile, path: Path, number: int) -> Sample:
    header, one = grid.header, slice(number, number + 1)
    places = np.stack(np.meshgrid(*header.axes, indexing="ij"), -1).reshape(-1, len(header.axes))
    frames = len(header.times)
    return Sample(
        source=f"{path}, sample {number}",
        kind="grid",
        coordinates=places,
        fields={
            each.name: grid.rows(each.name, one, slice(0, frames)).reshape(frames, len(places), -1)
            for each in header.targets
        },
        statics={each.name: grid.static(each.name, one).reshape(len(places), -1) for each in header.statics},
        times=header.times,
        steady=header.steady,
        grid=tuple(len(axis) for axis in header.axes),
        parameters={name: float(values[number]) for name, values in header.parameters.items()},
    )


def twins_of(grid: GridFile, sign: Sign) -> list[dict[str, Any]]:
    """Pairs of a file's trajectories whose initial conditions are equal or near; values that are not finite are left
    out. Each field counts in its own deviations, as where it is normalised."""
    points = np.concatenate([_normalised(blocks) for blocks in _blocks(grid, sign)], 1)
    numbers = np.flatnonzero(np.isfinite(points).all(1)).tolist()
    return pairs_of(numbers, ["file"] * len(numbers), points[numbers])


def twins_of_points(source: PointSource, sign: Sign) -> list[dict[str, Any]]:
    """The same of trajectories on points of their own: places, first values and what is given, point by point."""
    first, numbers, moments, sketches = np.zeros(1, np.int64), [], [], []

    def start(number: int) -> NDArray[np.float32]:
        sign(f"initial condition {number}")
        places, values = source.positions(number, first), source.values(number, first)[0]
        return np.concatenate([places.reshape(len(values), -1), values, source.given(number)], 1)

    for number in range(len(source.counts)):
        points = start(number).astype(np.float64)
        if np.isfinite(points).all():
            numbers.append(number)
            moments.append(np.stack([np.full(points.shape[1], len(points)), points.sum(0), np.square(points).sum(0)]))
    if len(numbers) < 2:
        return []
    count, total, squares = np.sum(moments, 0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    deviation[deviation == 0] = 1.0
    for number in numbers:
        sketches.append(sketch(((start(number) - mean) / deviation).astype(np.float32).reshape(1, -1))[0])
    return pairs_of(numbers, ["file"] * len(numbers), np.stack(sketches))


def _blocks(grid: GridFile, sign: Sign) -> Iterator[Iterator[NDArray[np.float32]]]:
    """What trajectories start from, a field after the other, (B, values) at a time."""
    header = grid.header
    starts = [slice(n, min(n + BATCH, header.trajectories)) for n in range(0, header.trajectories, BATCH)]

    def field(name: str, static: bool) -> Iterator[NDArray[np.float32]]:
        for some in starts:
            sign(f"{name}, initial condition {some.start}")
            values = grid.static(name, some) if static else grid.rows(name, some, slice(0, 1))
            yield values.reshape(len(values), -1)

    for each in () if header.steady else header.targets:
        yield field(each.name, static=False)
    for each in header.statics:
        yield field(each.name, static=True)


def _normalised(blocks: Iterator[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Projections of a field with mean 0 and deviation 1, from one pass: they are linear."""
    sketches, moments = [], np.zeros(3)
    for block in blocks:
        values = block[np.isfinite(block).all(1)].astype(np.float64)
        moments += (values.size, values.sum(), np.square(values).sum())
        sketches.append(sketch(block))
        constant = sketch(np.ones((1, block.shape[1]), np.float32))
    mean = moments[1] / max(moments[0], 1)
    deviation = np.sqrt(max(moments[2] / max(moments[0], 1) - mean * mean, 0.0))
    return np.asarray((np.concatenate(sketches) - mean * constant) / (deviation or 1.0))


def sketch(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Random projections (B, PROJECTIONS) of values (B, n): distances are kept to a fifth or so."""
    result = np.zeros((len(values), PROJECTIONS))
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start : start + BLOCK].astype(np.float64)
        generator = np.random.default_rng([7, start])
        result += block @ generator.standard_normal((block.shape[1], PROJECTIONS))
    return np.asarray(result / np.sqrt(PROJECTIONS))


def pairs_of(ids: Sequence[int], splits: Sequence[str], sketches: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Pairs of equal or nearly equal initial conditions, by their projections (N, …)."""
    from scipy.spatial import cKDTree

    if len(ids) < 2:
        return []
    size = float(np.sqrt(np.mean(np.square(sketches).sum(1))))
    pairs = cKDTree(sketches).query_pairs(max(NEAR * size, 1e-300), output_type="ndarray")
    distances = np.linalg.norm(sketches[pairs[:, 0]] - sketches[pairs[:, 1]], axis=1) / max(size, 1e-300)
    return [
        {"ids": [ids[a], ids[b]], "splits": [splits[a], splits[b]], "distance": float(distance) * (distance > EXACT)}
        for (a, b), distance in zip(pairs.tolist(), distances, strict=True)
    ]
