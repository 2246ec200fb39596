"""Trajectories of particles as files hold them: every stored frame, positions as they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ups_kit import Field
from ups_kit.data.hdf5 import StoredArray
from ups_kit.data.zarr_store import ZarrArray

from .box import Box


class Frames(Protocol):
    """An array (T, N, channels) of which frames are read, by any number of readers at once."""

    def frames(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Frames with these numbers, (F, N, channels). Raises DataError."""
        ...


@frozen(eq=False)
class HDF5Frames:
    """Of an HDF5 file."""

    array: StoredArray

    def frames(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.array.entries_along(numbers)


@frozen(eq=False)
class ZarrFrames:
    """Of a Zarr store."""

    array: ZarrArray

    def frames(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.array.led_by(1).gather(np.zeros(1, np.int64), numbers[None])[0]
        return found


@frozen(eq=False, kw_only=True)
class Stored:
    """One trajectory: T frames of N particles. Nothing but types and parameters is kept in memory."""

    where: str  # file and trajectory, for messages
    length: int  # T
    count: int  # N
    positions: Frames
    fields: tuple[Frames, ...] = ()
    statics: Callable[[], NDArray[np.float32]] | None = None  # (N, channels)
    types: NDArray[np.uint8]  # (N,)
    start: float = 0.0  # the time of the first frame
    check: Callable[[], str | None] | None = None  # what is wrong with what is neither place nor field
    parameters: Mapping[str, float] = field(factory=dict)
    split: str | None = None  # where the files say which split it is of


@frozen(eq=False, kw_only=True)
class Opened:
    """What one path holds: its trajectories, and what they have in common."""

    where: str
    box: Box
    dt: float  # between two stored frames
    trajectories: tuple[Stored, ...]
    fields: tuple[Field, ...] = ()
    statics: tuple[Field, ...] = ()
    type_names: tuple[str, ...] = ()
    kinematic: tuple[int, ...] = ()  # types that move as given, such as walls
    unit: str = "1"  # of positions
    time_unit: str = "1"
    fingerprint: str

    @property
    def types(self) -> int:
        """How many types there are: one more than the highest."""
        return 1 + max(int(each.types.max(initial=0)) for each in self.trajectories)
