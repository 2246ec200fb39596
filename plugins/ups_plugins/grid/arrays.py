"""Sources whose fields are whole arrays [trajectory, time, x, …] of a file or store, one for each field or vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import Field

from .source import Header, Source


class Readable(Protocol):
    """A field [trajectory, time, x, …], or a static field [trajectory, x, …]."""

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]: ...

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer], axes: int
    ) -> NDArray[np.float32]: ...

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]: ...


class FieldArray(Readable, Protocol):
    """A stored array, in HDF5 or Zarr, with whatever axes it has."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def entries(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Entries of an array of one axis."""
        ...


@frozen(eq=False)
class Stack:
    """Arrays of one header, whose channels stand side by side: those without a channel axis have one channel."""

    arrays: tuple[Readable, ...]
    channels: tuple[int, ...]  # of each array

    def joined(self, shape: tuple[int, ...], read: Callable[[Readable], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `read(array)` gives for each of them, of this shape without channels, along a last axis."""
        if len(self.arrays) == 1:
            return np.reshape(read(self.arrays[0]), (*shape, self.channels[0]))
        result = np.empty((*shape, sum(self.channels)), np.float32)
        first = 0
        for array, count in zip(self.arrays, self.channels, strict=True):
            result[..., first : first + count] = np.reshape(read(array), (*shape, count))
            first += count
        return result


@frozen(eq=False)
class ArraySource:
    """A `Source` of stacked arrays."""

    header: Header
    targets: Stack
    given: Stack  # static fields, [trajectory, x, …]

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Target frames, (B, F, *grid, C)."""
        shape = (*frames.shape, *self.header.grid)
        return self.targets.joined(shape, lambda array: array.gather(samples, frames))

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Target frames at some points, (B, F, Q, C)."""
        shape = (*frames.shape, points.shape[1])
        dims = len(self.header.grid)
        return self.targets.joined(shape, lambda array: array.gather_points(samples, frames, points, dims))

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """A slice of frames of some samples, (S, frames, *grid, C)."""
        count = len(range(*frames.indices(len(self.header.times))))
        shape = (len(samples), count, *self.header.grid)
        return self.targets.joined(shape, lambda array: array.rows(samples, frames))

    def statics(self, samples: NDArray[np.integer]) -> NDArray[np.float32]:
        """Static fields, (S, *grid, static channels)."""
        shape = (len(samples), *self.header.grid)
        if not self.given.arrays:
            return np.empty((*shape, 0), np.float32)
        # the second axis of a static array is its first of the grid
        return self.given.joined(shape, lambda array: array.rows(samples, slice(None)))


@frozen(eq=False)
class FieldsOf:
    """A source read field by field, as it is written to another layout: a `GridFile`."""

    source: Source

    @property
    def header(self) -> Header:
        return self.source.header

    def rows(self, name: str, samples: slice, frames: slice) -> NDArray[np.float32]:
        """A target field, (S, F, *grid, channels)."""
        header, source = self.header, self.source
        numbers = np.arange(header.trajectories)[samples]
        count = len(range(*frames.indices(len(header.times))))
        place, channels = _place(header.targets, name)
        if isinstance(source, ArraySource):  # the other fields stay unread
            values = source.targets.arrays[place].rows(numbers, frames)
        else:
            values = source.rows(numbers, frames)[..., channels]
        return np.reshape(values, (len(numbers), count, *header.grid, channels.stop - channels.start))

    def static(self, name: str, samples: slice) -> NDArray[np.float32]:
        """A static field, (S, *grid, channels)."""
        channels = _place(self.header.statics, name)[1]
        return self.source.statics(np.arange(self.header.trajectories)[samples])[..., channels]


def _place(fields: tuple[Field, ...], name: str) -> tuple[int, slice]:
    """The number of a field, and its channels among those of all."""
    number = [each.name for each in fields].index(name)
    first = sum(each.channels for each in fields[:number])
    return number, slice(first, first + fields[number].channels)


@frozen(eq=False)
class Spread:
    """An array that is stored without some of the axes [trajectory, time, x, …] and is the same along these.

    What it says of a trajectory, a frame or a point is repeated where it is read. `dims` says which of the grid's axes
    are stored, in full or with one entry; further axes are components.
    """

    array: FieldArray
    by_sample: bool
    by_frame: bool
    dims: tuple[bool, ...]
    grid: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.array.shape

    @property
    def components(self) -> int:
        """Values at each point."""
        lead = self.by_sample + self.by_frame + sum(self.dims)
        return math.prod(self.array.shape[lead:])

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Frames (B, F) of trajectories (B,), (B, F, *grid, components)."""
        if self.by_sample and self.by_frame:
            values = self.array.gather(samples, frames)
        elif self.by_sample:
            values = self._entries(samples)[:, None]
        elif self.by_frame:
            flat = self._entries(np.asarray(frames).ravel())
            values = flat.reshape(*frames.shape, *flat.shape[1:])
        else:
            values = self._entries(None)[None, None]
        return self._repeated(values, frames.shape)

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer], axes: int
    ) -> NDArray[np.float32]:
        """The same at points (B, Q) alone, (B, F, Q, components)."""
        if self.by_sample and self.by_frame and self.array.shape[2 : 2 + axes] == self.grid:
            found = self.array.gather_points(samples, frames, points, axes)
            return found.reshape(*found.shape[:3], self.components)
        flat = self.gather(samples, frames).reshape(*frames.shape, -1, self.components)
        rows = np.arange(len(samples))[:, None, None], np.arange(frames.shape[1])[:, None]
        values: NDArray[np.float32] = flat[(*rows, points[:, None])]
        return values

    def rows(self, samples: NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """Frames of trajectories, (S, frames, *grid, components); of an array without time, (S, *grid, components)."""
        samples = np.asarray(samples)
        if not self.by_frame:
            return self.gather(samples, np.zeros((len(samples), 1), np.intp))[:, 0]
        numbers = np.arange(self.array.shape[self.by_sample])[frames]
        return self.gather(samples, np.broadcast_to(numbers, (len(samples), len(numbers))))

    def _entries(self, numbers: NDArray[np.integer] | None) -> NDArray[np.float32]:
        """Entries along the first axis; None: all of them."""
        wanted = np.arange(self.array.shape[0]) if numbers is None else np.asarray(numbers)
        if len(self.array.shape) == 1:
            return self.array.entries(wanted)
        return self.array.rows(wanted, slice(None))

    def _repeated(self, values: NDArray[np.float32], lead: tuple[int, ...]) -> NDArray[np.float32]:
        sizes = iter(values.shape[2:])
        grid = [next(sizes) if stored else 1 for stored in self.dims]
        full = values.reshape(*values.shape[:2], *grid, self.components)
        repeated: NDArray[np.float32] = np.broadcast_to(full, (*lead, *self.grid, self.components))
        return repeated
