"""One sample of any kind of data (grid, mesh, particles; steady or in time), in physical units, checked when made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ..errors import DataError

if TYPE_CHECKING:
    from .splits import Splits

Kind = Literal["grid", "mesh", "particles"]
FLOATS = ("float32", "float64")
SIMPLE = (bool, int, float, str)


@frozen(eq=False, kw_only=True)
class Sample:
    """One trajectory, or one steady solution, with all that is known of it.

    | symbol | meaning |
    | --- | --- |
    | N | points |
    | D | space dimensions, 1 to 3 |
    | F | frames; 1 where the data are steady |
    | C | channels of a field |

    `source` says where it comes from ("data/burgers.h5, sample 7") and begins every message. Raises DataError, which
    lists everything that is wrong: with file, sample, object, what was expected and what was got.
    """

    source: str
    kind: Kind
    coordinates: NDArray[Any]  # (N, D), or (F, N, D) where the points move
    fields: Mapping[str, NDArray[Any]]  # (F, N, C) each: what evolves, or the answer where the data are steady
    times: NDArray[Any]  # (F,), rising
    steady: bool = False
    grid: tuple[int, ...] | None = None  # points along each axis, row-major, of a regular grid
    connectivity: NDArray[Any] | None = None  # (cells, corners), numbers of points
    statics: Mapping[str, NDArray[Any]] = field(factory=dict)  # (N, C) each: given at every point, without change
    units: Mapping[str, str] = field(
        factory=dict
    )  # by name of field, static, parameter, axis, "time"; "1" if not given
    boundary: Mapping[str, str] = field(factory=dict)  # what holds where: {"x": "periodic"}, {"inlet": "dirichlet"}
    parameters: Mapping[str, float] = field(factory=dict)  # of the equation
    geometry: Mapping[str, NDArray[Any]] = field(factory=dict)  # (N,) or (N, …): distance to the wall, normals, markers
    metadata: Mapping[str, bool | int | float | str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            more = f" ({len(problems)} problems)" if len(problems) > 1 else ""
            raise DataError(f"{self.source}{more}: " + "; ".join(problems))

    @property
    def points(self) -> int:
        return int(self.coordinates.shape[-2])

    @property
    def space_dims(self) -> int:
        return int(self.coordinates.shape[-1])

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def dt(self) -> float | None:
        """The time between two frames; None where there is one frame, or the steps differ."""
        steps = np.diff(np.asarray(self.times, np.float64))
        even = len(steps) > 0 and float(np.ptp(steps)) <= 1e-3 * float(steps.mean())
        return float(steps.mean()) if even else None

    def unit(self, name: str) -> str:
        """The unit of a field, static, parameter, axis, or of "time"."""
        return self.units.get(name, "1")


@runtime_checkable
class GivesSamples(Protocol):
    """A dataset whose trajectories can be had as samples, one by one."""

    @property
    def splits(self) -> Splits: ...

    def sample(self, split: str, number: int) -> Sample:
        """The trajectory with this number in a split, in physical units. Raises IndexError, and DataError."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------
def _problems(sample: Sample) -> Iterator[str]:
    if sample.kind not in ("grid", "mesh", "particles"):
        yield f"kind is {sample.kind!r}; expected 'grid', 'mesh' or 'particles'"
    broken = list(_time_problems(sample))
    broken += _coordinate_problems(sample)
    yield from broken
    if broken:
        return  # whose lengths the rest is held against
    yield from _field_problems(sample)
    yield from _cell_problems(sample)
    yield from _name_problems(sample)


def _time_problems(sample: Sample) -> Iterator[str]:
    times = sample.times
    yield from _number_problems("times", times, (None,))
    if getattr(times, "ndim", 0) != 1 or times.dtype.name not in FLOATS:
        return
    if len(times) == 0:
        yield "times is empty; expected one entry for each frame"
    steps = np.diff(times)
    if (steps <= 0).any():
        first = int(np.argmax(steps <= 0))
        yield f"times does not rise: entries {first} and {first + 1} are {times[first]:g} and {times[first + 1]:g}"
    if sample.steady and len(times) != 1:
        yield f"steady data have one frame, got {len(times)}"


def _coordinate_problems(sample: Sample) -> Iterator[str]:
    places = sample.coordinates
    ndim = getattr(places, "ndim", 0)
    if ndim not in (2, 3):
        shape = list(getattr(places, "shape", ()))
        yield f"coordinates has the shape {shape}; expected (points, dims) or (frames, points, dims)"
        return
    yield from _number_problems("coordinates", places, (None,) * ndim if ndim == 2 else (len(sample.times), None, None))
    if not 1 <= places.shape[-1] <= 3:
        yield f"coordinates has {places.shape[-1]} dimensions; expected 1 to 3"
    if places.shape[-2] == 0:
        yield "coordinates has no points"
    if sample.grid is not None and math.prod(sample.grid) != places.shape[-2]:
        size = " x ".join(map(str, sample.grid))
        yield f"grid {size} has {math.prod(sample.grid)} points, and coordinates has {places.shape[-2]}"
    if (sample.kind == "grid") != (sample.grid is not None):
        yield f"kind is '{sample.kind}' and grid is {sample.grid}; grids alone have numbers of points along each axis"


def _field_problems(sample: Sample) -> Iterator[str]:
    frames, points = len(sample.times), sample.points
    if not sample.fields:
        yield "there are no fields; expected at least one"
    for name, values in sample.fields.items():
        yield from _number_problems(f"field '{name}'", values, (frames, points, None))
    for name, values in sample.statics.items():
        yield from _number_problems(f"static '{name}'", values, (points, None))
    for name, values in sample.geometry.items():
        if np.ndim(values) == 0 or len(values) != points:
            yield f"geometry '{name}' has the shape {list(np.shape(values))}; expected {points} along its first axis"
        elif values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"geometry '{name}' holds {int((~np.isfinite(values)).sum())} values that are not finite"
    for name in sorted(set(sample.fields) & set(sample.statics)):
        yield f"'{name}' is a field and a static; give one of them another name"


def _number_problems(what: str, values: Any, shape: tuple[int | None, ...]) -> Iterator[str]:
    """Type, shape (None: any length) and finite values of an array."""
    if not isinstance(values, np.ndarray):
        yield f"{what} is {type(values).__name__}; expected a NumPy array"
        return
    if values.dtype.name not in FLOATS:
        yield f"{what} holds values of type {values.dtype}; expected {' or '.join(FLOATS)}"
        return
    fits = values.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        yield f"{what} has the shape {list(values.shape)}; expected [{wanted}]"
        return
    finite = np.isfinite(values)
    if not finite.all():
        place = ", ".join(map(str, np.argwhere(~finite)[0]))
        yield f"{what} holds {int((~finite).sum())} values that are not finite, the first at [{place}]"


def _cell_problems(sample: Sample) -> Iterator[str]:
    cells = sample.connectivity
    if cells is None:
        if sample.kind == "mesh":
            yield "connectivity is missing; a mesh has cells (cells, corners)"
        return
    if not isinstance(cells, np.ndarray) or cells.ndim != 2 or cells.dtype.kind not in "iu":
        shape, kind = list(np.shape(cells)), getattr(cells, "dtype", type(cells).__name__)
        yield f"connectivity has the shape {shape} and type {kind}; expected whole numbers (cells, corners)"
        return
    outside = (cells < 0) | (cells >= sample.points)
    if outside.any():
        cell, corner = (int(index) for index in np.argwhere(outside)[0])
        yield (
            f"connectivity: {int(outside.sum())} indices are not in 0 … {sample.points - 1}, the first being "
            f"{int(cells[cell, corner])} at cell {cell}, corner {corner}"
        )


def _name_problems(sample: Sample) -> Iterator[str]:
    for name, value in sample.parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            yield f"parameter '{name}' is {value!r}; expected a finite number"
    for name, entry in sample.metadata.items():
        if not isinstance(entry, SIMPLE):
            yield f"metadata '{name}' is {type(entry).__name__}; expected text, a number, true or false"
    known = {*sample.fields, *sample.statics, *sample.parameters, *sample.geometry, "time", "x", "y", "z"}
    for name in sample.units:
        if name not in known:
            yield f"a unit is given for '{name}', which is not there (known: {', '.join(sorted(known))})"
