"""The floor of a transfer: the true states at the reference points, through the points that the model is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ups_kit.data.scattered import scattered_matrix
from ups_kit.data.splines import GridSpline
from ups_kit.interfaces import FieldSpec
from ups_kit.metrics import nrmse

from ..truth import Truth

TRAJECTORIES, FRAMES = 16, 8  # that are looked at, where every one has points of its own


def interpolation_error(given: Truth, asked: Truth) -> float:
    """Mean nRMSE of the scored frames of `asked`, interpolated from the points of `given`.

    Cubic splines where those are a grid, cubic radial functions over the nearest points elsewhere; periodic where the
    domain is. Where every trajectory has points of its own, of some of them and, where they move, of some frames.
    """
    shared = given.positions.dim() == 2 and asked.positions.dim() == 2
    rows = range(given.samples) if shared else _spread(range(given.samples), TRAJECTORIES)
    frames = list(asked.scored) if not asked.moving else _spread(asked.scored, FRAMES)
    errors, way = [], None
    for row in rows:
        if not asked.moving:
            way = _way(given, asked, row, 0) if way is None or not shared else way
            errors.append(_error(given, asked, row, frames, way))
        else:
            every = [_error(given, asked, row, [frame], _way(given, asked, row, frame)) for frame in frames]
            errors.append(sum(every) / len(every))
    return sum(errors) / len(errors)


def _way(given: Truth, asked: Truth, row: int, frame: int) -> Any:
    """From values (F, N, C) at the real points of `given` to those at the counted points of `asked`."""
    one = slice(row, row + 1)
    start, end = given.places(one, frame)[0], asked.places(one, frame)[0]
    start = start if given.mask is None else start[given.mask[row]]
    end = end if asked.counted is None else end[asked.counted[row]]
    periods = _periods(asked.fields)
    if given.fields.grid is None:
        matrix = scattered_matrix(start.numpy(), end.numpy(), periods)
        return lambda values: np.stack([matrix @ frame for frame in values])
    shape = given.fields.grid
    lattice = start.double().numpy().reshape(*shape, -1)
    axes = [np.moveaxis(lattice[..., axis], axis, 0).reshape(size, -1)[:, 0] for axis, size in enumerate(shape)]
    spline = GridSpline.at(axes, periods, end.numpy())
    return lambda values: spline(values.reshape(len(values), *shape, -1))


def _error(given: Truth, asked: Truth, row: int, frames: list[int], way: Any) -> float:
    known = given.values[row, frames]
    known = known if given.mask is None else known[:, given.mask[row]]
    true = asked.values[row, frames]
    true = true if asked.counted is None else true[:, asked.counted[row]]
    found = torch.from_numpy(way(known.double().numpy()))
    return float(nrmse(found[None], true[None].double(), range(len(frames))).mean())


def _periods(fields: FieldSpec) -> list[float | None]:
    return [length if wraps else None for length, wraps in zip(fields.extent, fields.periodic, strict=True)]


def _spread(numbers: range, most: int) -> list[int]:
    """At most so many of the numbers, from the first to the last."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int))
    return [numbers[place] for place in places]


def same_points(one: Truth, other: Truth) -> bool:
    """Whether two truths have the same points."""
    return one.positions.shape == other.positions.shape and bool(torch.equal(one.positions, other.positions))
