"""Particles for the model: at its time step, in their box, each with the velocity with which it came to its place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.interfaces import Layout

from .checks import problem_of
from .stored import Opened, Stored

VELOCITY, TYPE, KINEMATIC = "velocity", "type", "kinematic"
CUT = ("validation", "test")  # splits whose trajectories may be cut into pieces
SHOWN = 8  # trajectories that a message names


@frozen
class Piece:
    """A trajectory of the model: the frames of a stored one from `first` on, every `stride`-th, `length` of them.

    Its frame j is the stored frame first + (j + 1) * stride: the one at `first` serves the first velocity alone.
    """

    owner: int
    first: int
    length: int


@frozen(eq=False, slots=False)
class ParticleSource:
    """A `PointSource` of moving points: targets are the velocity and the chosen fields, statics what does not change.

    v_{t+1} = (x_{t+1} - x_t) / dt, by the shortest way in a periodic box, dt being the model's time step.
    """

    opened: Opened
    pieces: tuple[Piece, ...]
    stride: int
    types: int  # categories of the one-hot static
    wrap: bool

    @property
    def layout(self) -> Layout:
        return "particles"

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        return self.opened.box.domain

    @property
    def periodic(self) -> tuple[bool, ...]:
        return self.opened.box.periodic

    @property
    def dt(self) -> float:
        """Of the model."""
        return self.opened.dt * self.stride

    @property
    def moves_with(self) -> str:
        return VELOCITY

    @property
    def fingerprint(self) -> str:
        return self.opened.fingerprint

    @cached_property
    def targets(self) -> tuple[Field, ...]:
        length, time = self.opened.unit, self.opened.time_unit
        unit = "1" if (length, time) == ("1", "1") else f"{length}/{time}"
        return (Field(VELOCITY, self.opened.box.dims, unit), *self.opened.fields)

    @cached_property
    def statics(self) -> tuple[Field, ...]:
        """The type as one number of 0 or 1 for each, where there are several; `kinematic` where some move as given."""
        kinds = (Field(TYPE, self.types),) if self.types > 1 else ()
        walls = (Field(KINEMATIC),) if self.has_kinematic else ()
        return (*kinds, *walls, *self.opened.statics)

    @cached_property
    def has_kinematic(self) -> bool:
        """Whether there are particles of a kinematic type."""
        kinds = self.opened.kinematic
        return any(bool(np.isin(each.types, kinds).any()) for each in self.opened.trajectories)

    @property
    def flags(self) -> tuple[str, ...]:
        """Statics of zeros and ones."""
        return (TYPE, KINEMATIC)

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """Parameters that every trajectory has."""
        first, *others = self.opened.trajectories
        return tuple(name for name in first.parameters if all(name in each.parameters for each in others))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        return np.array([self._owner(number).count for number in range(len(self.pieces))], np.int64)

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        return np.array([piece.length for piece in self.pieces], np.int64)

    @cached_property
    def parameters(self) -> NDArray[np.float64]:
        rows = [
            [self._owner(number).parameters[name] for name in self.conditions] for number in range(len(self.pieces))
        ]
        return np.array(rows, np.float64).reshape(len(rows), len(self.conditions))

    def times(self, number: int) -> NDArray[np.float64]:
        """When the frames are, (frames,)."""
        frames = np.arange(self.pieces[number].length)
        return np.asarray(self._owner(number).start + self._stored(number, frames) * self.opened.dt, np.float64)

    def positions(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Places in the box, (F, N, D)."""
        return self.opened.box.wrapped(self._owner(number).positions.frames(self._stored(number, frames)))

    def values(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Velocities and the further fields, (F, N, C)."""
        stored, own = self._stored(number, frames), self._owner(number)
        needed, places = np.unique(np.concatenate([stored - self.stride, stored]), return_inverse=True)
        held = own.positions.frames(needed).astype(np.float64)
        before, after = np.split(places.reshape(-1), 2)
        with np.errstate(over="ignore", invalid="ignore"):  # of values that are not finite, which are told of
            velocity = (self.opened.box.nearest(held[after] - held[before]) / self.dt).astype(np.float32)
        return np.concatenate([velocity, *(each.frames(stored) for each in own.fields)], -1)

    def given(self, number: int) -> NDArray[np.float32]:
        """Statics, (N, channels)."""
        own, parts = self._owner(number), []
        if self.types > 1:
            parts.append(np.eye(self.types, dtype=np.float32)[own.types])
        if self.has_kinematic:
            parts.append(np.isin(own.types, self.opened.kinematic).astype(np.float32)[:, None])
        if own.statics is not None:
            parts.append(own.statics())
        return np.concatenate(parts, 1) if parts else np.empty((own.count, 0), np.float32)

    def weights(self, number: int) -> NDArray[np.float32] | None:
        return None

    def cells(self, number: int) -> NDArray[np.int64] | None:
        return None

    def where(self, number: int) -> str:
        piece = self.pieces[number]
        whole = sum(each.owner == piece.owner for each in self.pieces) == 1
        return self._owner(number).where + ("" if whole else f", frames from {piece.first} on")

    def split_of(self, number: int) -> str | None:
        return self._owner(number).split

    def problem(self, number: int) -> str | None:
        """What is wrong with a trajectory: NaN, places outside of the box, ways too far, broken ids or neighbours."""
        piece, own = self.pieces[number], self._owner(number)
        found = None if own.check is None else own.check()
        stop = piece.first + piece.length * self.stride + 1
        return found or problem_of(self.opened, own, piece.first, stop, self.stride, self.wrap)

    def _owner(self, number: int) -> Stored:
        return self.opened.trajectories[self.pieces[number].owner]

    def _stored(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of stored frames."""
        piece = self.pieces[number]
        asked = np.asarray(frames, np.int64)
        if asked.size and not 0 <= asked.min() <= asked.max() < piece.length:
            raise IndexError(f"{self.where(number)}: has {piece.length} frames")
        return piece.first + (asked + 1) * self.stride


def source_of(
    opened: Opened,
    *,
    stride: int,
    first: int,
    history: int,
    types: int | None = None,
    wrap: bool = False,
    cut: int | None = None,
) -> ParticleSource:
    """The trajectories of some files at a time stride, without the frames before `first`.

    `types` is the number of categories; as many as there are where it is None. Trajectories of validation and test are
    cut into pieces of `cut` model frames. Raises DataError where there are too few frames or categories.
    """
    _check_frames(opened, stride, first, history, cut)
    _check_fluid(opened)
    found = opened.types
    if types is not None and types < found:
        raise DataError(
            f"{opened.where}: holds particles of type {found - 1}, and dataset.types = {types} has 0 … {types - 1}; "
            f"nearest: types = {found}",
            "types",
        )
    pieces: list[Piece] = []
    for number, stored in enumerate(opened.trajectories):
        length = (stored.length - 1 - first) // stride
        if cut is None or stored.split not in CUT:
            pieces.append(Piece(number, first, length))
            continue
        pieces += [Piece(number, first + k * (cut + 1) * stride, cut) for k in range((length + 1) // (cut + 1))]
    return ParticleSource(opened, tuple(pieces), stride, found if types is None else types, wrap)


def _check_fluid(opened: Opened) -> None:
    """Raise DataError where all particles of a trajectory move as given, so that none is predicted or scored."""
    for stored in opened.trajectories:
        if np.isin(stored.types, opened.kinematic).all():
            raise DataError(
                f"{stored.where}: all {stored.count} particles are of types that move as given (kinematic: "
                f"{', '.join(map(str, opened.kinematic))}); expected others, which are predicted"
            )


def _check_frames(opened: Opened, stride: int, first: int, history: int, cut: int | None) -> None:
    """Velocities need one frame more than there are of them; one velocity beyond the given ones is predicted."""
    needed = first + stride * (history + 1) + 1
    short = [stored for stored in opened.trajectories if stored.length < needed]
    if short:
        listed = ", ".join(f"{_name(stored)} ({stored.length})" for stored in short[:SHOWN])
        more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        raise DataError(
            f"{opened.where}: {len(short)} of {len(opened.trajectories)} trajectories have too few frames: {listed}"
            f"{more}; expected at least {needed} with dataset.history = {history}, time_stride = {stride} and "
            f"first_frame = {first}: a velocity lies between two frames, and one must be left to predict"
            f"{_nearest(short, stride, first, history)}"
        )
    lengths = [stored.length for stored in opened.trajectories if stored.split in CUT]
    most = (min(lengths) - 1 - first) // stride if lengths else 0
    if cut is not None and not history + 1 <= cut <= most:
        raise DataError(
            f"dataset.cut = {cut}: expected {history + 1} … {most} frames, so that a piece of a validation or test "
            "trajectory has one to predict, and none is shorter",
            "cut",
        )


def _nearest(short: Sequence[Stored], stride: int, first: int, history: int) -> str:
    """What to set lower, and how far, where that is enough."""
    least = min(stored.length for stored in short)
    if (room := (least - 1 - first) // (history + 1)) >= 1:
        return f"; nearest: time_stride = {room}"
    if (room := (least - 1 - first) // stride - 1) >= 1:
        return f"; nearest: history = {room}"
    return ""


def _name(stored: Stored) -> str:
    return stored.where.rpartition(", ")[2]
