"""What every format of trajectories on points is read through."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...interfaces import Field, Layout


class PointSource(Protocol):
    """One file's trajectories, in the model's frames, for any number of readers at once.

    The recipe's `first_frame` and `time_stride` are taken already, and frames that have no velocity yet are dropped:
    frame k of a trajectory is at `times(number)[k]`, `dt` after the one before. Nothing but headers is kept in memory,
    each process opens its own handles, and a source travels to other processes. Methods raise DataError that names
    file and sample for what is damaged.

    | symbol | meaning |
    | --- | --- |
    | S | trajectories |
    | F | frames that are asked for |
    | N | points of one trajectory |
    | D | space dimensions |
    | C | channels of all targets, in their order |
    """

    @property
    def layout(self) -> Layout: ...

    @property
    def targets(self) -> tuple[Field, ...]: ...

    @property
    def statics(self) -> tuple[Field, ...]: ...

    @property
    def domain(self) -> tuple[tuple[float, float], ...]: ...

    @property
    def periodic(self) -> tuple[bool, ...]: ...

    @property
    def dt(self) -> float:
        """The time between two model frames, physical; 1 where there is one frame."""
        ...

    @property
    def moves_with(self) -> str | None:
        """The target that the points move with; None: they stand still."""
        ...

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of all parameters that each trajectory has, without "dt"; the recipe may choose some."""
        ...

    @property
    def parameters(self) -> NDArray[np.float64]:
        """(S, names), columns as `conditions`."""
        ...

    @property
    def counts(self) -> NDArray[np.int64]:
        """Points of each trajectory, (S,)."""
        ...

    @property
    def frames(self) -> NDArray[np.int64]:
        """Model frames of each trajectory, (S,)."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change, or of their content."""
        ...

    def times(self, number: int) -> NDArray[np.float64]:
        """When the model frames of a trajectory are, (frames,), physical, evenly spaced."""
        ...

    def positions(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Where the points are: (N, D) where they stand, whatever the frames; (F, N, D) where they move."""
        ...

    def values(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        """Targets of these frames, (F, N, C), physical."""
        ...

    def given(self, number: int) -> NDArray[np.float32]:
        """Statics, (N, static channels), physical."""
        ...

    def weights(self, number: int) -> NDArray[np.float32] | None:
        """Area or volume of each point, (N,), or None where nobody knows."""
        ...

    def cells(self, number: int) -> NDArray[np.int64] | None:
        """Triangles between the points, (M, 3), for pictures; None where there are none."""
        ...

    def where(self, number: int) -> str:
        """File and sample, for messages."""
        ...

    def split_of(self, number: int) -> str | None:
        """ "train", "validation" or "test" where the file says so; None: the recipe's seed decides."""
        ...


@runtime_checkable
class Connects(Protocol):
    """A source whose points are joined: cells of any kind, or edges."""

    def connectivity(self, number: int) -> NDArray[np.int64] | None:
        """Numbers of points, (cells, corners)."""
        ...


@runtime_checkable
class TellsProblems(Protocol):
    """A source that looks at a trajectory as a whole: cells, boxes, and whatever is not a matter of finite fields."""

    def problem(self, number: int) -> str | None:
        """What is wrong with a trajectory, from file and sample on, or None. It is asked once, before any training."""
        ...


@runtime_checkable
class Flagged(Protocol):
    """A source with statics of zeros and ones, such as types: they are left as they are unless the recipe says else."""

    @property
    def flags(self) -> tuple[str, ...]: ...
