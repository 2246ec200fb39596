"""What can be said of supernodes and radii before there are any points. No torch: config classes import this."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

from ..interfaces import FieldSpec

Choice = Literal["grid", "farthest", "random"]

ROUNDED = 1 + 1e-9  # half of a length is half of it, however its ends were rounded
USUAL_DEGREE = 32  # as many neighbours may be asked for whatever the points are: fewer are heard where there are fewer
FROM_POINTS = ("farthest", "random")  # choices that take the places of supernodes from the points themselves


def lattice_shape(count: int, domain: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """The lattice of at most `count` cells over a domain, and of not much fewer, whose cells are nearest to cubes.

    Raises ValueError where count is less than 1.
    """
    if count < 1:
        raise ValueError(f"a lattice needs at least one cell, got {count}")
    lengths = [high - low for low, high in domain]
    side = (math.prod(lengths) / count) ** (1 / len(lengths))
    tries = [range(max(1, math.floor(length / side) - 2), math.ceil(length / side) + 3) for length in lengths]
    shapes = [shape for shape in itertools.product(*tries) if math.prod(shape) <= count]
    shapes.append(_strip(count, lengths))

    def strain(shape: tuple[int, ...]) -> tuple[float, tuple[int, ...]]:
        sides = [math.log(length / size) for length, size in zip(lengths, shape)]
        return math.log(count / math.prod(shape)) + (max(sides) - min(sides)) / 2, shape

    return min(shapes, key=strain)


def _strip(count: int, lengths: Sequence[float]) -> tuple[int, ...]:
    """All cells along the longest axis."""
    longest = max(range(len(lengths)), key=lambda axis: lengths[axis])
    return tuple(count if axis == longest else 1 for axis in range(len(lengths)))


def graph_problems(
    fields: FieldSpec,
    *,
    choice: Choice,
    supernodes: int | None = None,
    lattice: Sequence[int] | None = None,
    radius: float | None,
    degree: int,
) -> Iterator[tuple[str, str]]:
    """(key, message) for everything that is wrong with an encoder's keys on these data, for its `check`.

    Keys are `supernodes`, `lattice`, which goes before it, `radius` and `degree`.
    """
    most = _most_points(fields)
    if lattice is not None:
        yield from _lattice_problems(fields, choice, lattice)
    elif supernodes is None:
        yield "supernodes", "missing key; say how many supernodes there are, for example supernodes = 256"
    elif supernodes < 1:
        yield "supernodes", f"expected a whole number of at least 1, got {supernodes}"
    elif choice in FROM_POINTS and fields.fewest_points is not None and supernodes > fields.fewest_points:
        yield (
            "supernodes",
            f"{supernodes} supernodes are more than the {fields.fewest_points} points that a sample may have, and "
            f"'{choice}' takes them from the points; nearest: supernodes = {fields.fewest_points}",
        )
    elif choice not in FROM_POINTS and most is not None and supernodes > most:
        yield (
            "supernodes",
            f"{supernodes} supernodes are more than the {most} points of the largest sample; nearest: supernodes = "
            f"{most}",
        )
    if degree < 1:
        yield "degree", f"expected a whole number of at least 1, got {degree}"
    elif most is not None and degree > max(most, USUAL_DEGREE):
        yield (
            "degree",
            f"{degree} points for each supernode are more than the {most} of the largest sample; nearest: degree = "
            f"{most}",
        )
    if radius is not None:
        yield from _radius_problems(fields, radius)


def _lattice_problems(fields: FieldSpec, choice: str, lattice: Sequence[int]) -> Iterator[tuple[str, str]]:
    if choice != "grid":
        yield "lattice", f"a lattice goes with the choice 'grid'; '{choice}' takes a number, supernodes"
    if len(lattice) != fields.space_dims:
        near = list(lattice_shape(max(1, math.prod(max(1, size) for size in lattice)), fields.domain))
        yield (
            "lattice",
            f"{list(lattice)} has {len(lattice)} numbers, the data have {fields.space_dims} space dimensions; "
            f"for example: lattice = {near}",
        )
    elif min(lattice) < 1:
        yield "lattice", f"expected whole numbers of at least 1, got {list(lattice)}"
    elif (most := _most_points(fields)) is not None and math.prod(lattice) > most:
        yield (
            "lattice",
            f"{list(lattice)} is {math.prod(lattice)} supernodes, more than the {most} points of the largest sample; "
            f"nearest: lattice = {list(lattice_shape(most, fields.domain))}",
        )


def _most_points(fields: FieldSpec) -> int | None:
    """How many points the largest sample has, or None where that is not known."""
    return fields.points if fields.counts is None else fields.counts[1]


def _radius_problems(fields: FieldSpec, radius: float) -> Iterator[tuple[str, str]]:
    if not (math.isfinite(radius) and radius > 0):
        yield "radius", f"expected a positive number, got {radius:g}"
        return
    around = [axis for axis, wraps in enumerate(fields.periodic) if wraps]
    if not around:
        return
    axis = min(around, key=lambda axis: fields.extent[axis])
    length = fields.extent[axis]
    if radius > length / 2 * ROUNDED:
        yield (
            "radius",
            f"the box is too small for a radius of {radius:g}: axis {axis} is periodic and {length:g} long; "
            f"nearest: radius = {length / 2:g}",
        )
