"""Sources whose fields are whole arrays [trajectory, time, x, …] of an HDF5 file, one for each field or vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit.data.hdf5 import StoredArray, as_float32

from .source import Header


@frozen(eq=False)
class Stack:
    """Arrays of one header, whose channels stand side by side: those without a channel axis have one channel."""

    arrays: tuple[StoredArray, ...]
    channels: tuple[int, ...]  # of each array

    def joined(self, shape: tuple[int, ...], read: Any) -> NDArray[np.float32]:
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
        return self.targets.joined(shape, lambda array: _at_points(array, dims, samples, frames, points))

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


def _at_points(
    array: StoredArray,
    dims: int,
    samples: NDArray[np.integer],
    frames: NDArray[np.integer],
    points: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Frames (B, F) of samples at points (B, Q), (B, F, Q, …): of a mapped array alone these are read."""
    mapped = array.mapped()
    if mapped is None:
        whole = array.gather(samples, frames)
        values = whole.reshape(*frames.shape, -1, *whole.shape[2 + dims :])
        return values[np.arange(len(samples))[:, None, None], np.arange(frames.shape[1])[:, None], points[:, None]]
    flat = mapped.reshape(*array.shape[:2], -1, *array.shape[2 + dims :])
    chosen: NDArray[Any] = flat[samples[:, None, None], frames[:, :, None], points[:, None, :]]
    return as_float32(chosen)
