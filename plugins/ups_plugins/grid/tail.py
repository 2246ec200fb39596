"""Trajectories without their first frames: a view of any source."""

from __future__ import annotations

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ups_kit import DataError

from .source import Header, Source


@frozen(eq=False)
class Tail:
    """A source whose frames begin at `first`; nothing before is ever read."""

    source: Source
    first: int
    header: Header

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Target frames, numbered from `first`: (B, F, *grid, C)."""
        return self.source.gather(samples, frames + self.first)

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """The same at some points alone, (B, F, Q, C)."""
        return self.source.gather_points(samples, frames + self.first, points)

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """A slice of the frames of some samples, numbered from `first`: (S, frames, *grid, C)."""
        start, stop, step = frames.indices(len(self.header.times))
        return self.source.rows(samples, slice(start + self.first, stop + self.first, step))

    def statics(self, samples: NDArray[np.integer]) -> NDArray[np.float32]:
        """(S, *grid, static channels)."""
        return self.source.statics(samples)


def without_first(source: Source, first: int) -> Source:
    """The source from frame `first` on. Raises DataError where there is no such frame."""
    header = source.header
    if not first:
        return source
    if header.steady or first >= len(header.times):
        have = "its fields are steady" if header.steady else f"has {len(header.times)} frames"
        most = 0 if header.steady else len(header.times) - 1
        message = f"{header.path}: {have}, and dataset.first_frame = {first} leaves none; expected at most {most}"
        raise DataError(message, "first_frame")
    return Tail(source, first, evolve(header, times=header.times[first:]))
