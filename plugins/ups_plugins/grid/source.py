"""What every format of trajectories on regular grids is read through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from ups_kit import Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AXES = ("x", "y", "z")


@frozen(eq=False)
class Header:
    """What the headers of one file, or store, say of its trajectories. Coordinates and parameters are small; kept."""

    path: Path
    trajectories: int
    times: NDArray[np.float64]  # (frames,), one entry where the data are steady
    axes: tuple[NDArray[np.float64], ...]  # coordinates along each axis, evenly spaced
    targets: tuple[Field, ...]
    statics: tuple[Field, ...] = ()
    parameters: Mapping[str, NDArray[np.float64]] = field(factory=dict)  # (trajectories,) each: known to be parameters
    steady: bool = False
    periodic: tuple[bool, ...] | None = None  # where the file, or its layout, says so
    attributes: Mapping[str, NDArray[np.float64]] = field(factory=dict)  # (trajectories,) each: parameters if named so

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    @property
    def target_channels(self) -> int:
        return sum(field.channels for field in self.targets)

    @property
    def static_channels(self) -> int:
        return sum(field.channels for field in self.statics)


class Source(Protocol):
    """One file's trajectories, for any number of readers at once. Channels are those of the targets, then the statics'.

    Nothing but the header is kept in memory; each process opens its own handles.
    """

    @property
    def header(self) -> Header: ...

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Target frames: `samples` (B,), `frames` (B, F), evenly spaced along F; returns (B, F, *grid, C)."""
        ...

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """The same at some points alone: `points` (B, Q), numbers in the row-major grid; returns (B, F, Q, C)."""
        ...

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """All values of a slice of frames of some samples, (S, frames, *grid, C)."""
        ...

    def statics(self, samples: NDArray[np.integer]) -> NDArray[np.float32]:
        """(S, *grid, static channels)."""
        ...
