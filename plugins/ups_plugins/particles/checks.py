"""What can be wrong with the values of a trajectory of particles: looked for once, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .box import Box
from .stored import Opened, Stored

BLOCK_VALUES = 2**21  # of positions that are looked at together
HALF = 0.5  # of a periodic box's length: a particle that moves further seems to move the other way
UNSURE = 0.45  # the same between two stored frames, where the true way is not known


def problem_of(opened: Opened, stored: Stored, first: int, stop: int, stride: int, wrap: bool) -> str | None:
    """What is wrong with the stored frames first … stop - 1, or None; the message begins with where they lie.

    `wrap`: places outside of periodic axes are right.
    """
    size = stored.count * opened.box.dims
    together = max(2, BLOCK_VALUES // max(size, 1))
    last: NDArray[np.float32] | None = None
    way = np.zeros((stored.count, opened.box.dims))  # since the last frame that the model sees
    for start in range(first, stop, together):
        numbers = np.arange(start, min(start + together, stop))
        block = stored.positions.frames(numbers)
        found = _not_finite(stored, block, start, "positions")
        for values, field in zip(stored.fields, opened.fields, strict=True):
            found = found or _not_finite(stored, values.frames(numbers), start, field.name)
        if found is not None:
            return found
        found = _outside(opened.box, stored, block, start, wrap)
        if found is None:
            moved = block if last is None else np.concatenate([last, block])
            found, way = _far(opened.box, stored, moved, int(numbers[-1]) - len(moved) + 1, first, stride, way)
        if found is not None:
            return found
        last = block[-1:]
    return None


def _not_finite(stored: Stored, values: NDArray[np.float32], start: int, name: str) -> str | None:
    finite = np.isfinite(values)
    if finite.all():
        return None
    bad = np.asarray(~finite.all(-1))
    frame = int(np.argmax(bad.any(1)))
    particles = np.flatnonzero(bad[frame])
    more = int(bad.any(1).sum()) - 1
    others = f" (and in {more} more of the {len(values)} frames from {start} on)" if more else ""
    return (
        f"{stored.where}: frame {start + frame}: '{name}' of {len(particles)} of {stored.count} particles is NaN or "
        f"infinite, the first being particle {particles[0]}{others}; expected finite values, and the same particles in "
        "all frames of a trajectory"
    )


def _outside(box: Box, stored: Stored, block: NDArray[np.float32], start: int, wrap: bool) -> str | None:
    away = box.outside(block, wrap)
    if not away.any():
        return None
    frame = int(np.argmax(away.any(1)))
    particles = np.flatnonzero(away[frame])
    place = ", ".join(f"{value:g}" for value in block[frame, particles[0]])
    advice = (
        "mend the box, or, where positions on periodic axes are counted on beyond it, set dataset.wrap = true"
        if any(box.periodic) and not wrap
        else "mend the box"
    )
    return (
        f"{stored.where}: frame {start + frame}: {len(particles)} of {stored.count} particles lie outside of the box "
        f"{box}, the first being particle {particles[0]} at ({place}); expected positions in it: {advice}"
    )


def _far(
    box: Box,
    stored: Stored,
    block: NDArray[np.float32],
    start: int,
    first: int,
    stride: int,
    way: NDArray[np.float64],
) -> tuple[str | None, NDArray[np.float64]]:
    """Whether some particle moves too far along a periodic axis; and the way since the model's last frame."""
    axes = np.flatnonzero(box.periodic)
    if not len(axes):
        return None, way
    length = box.length
    for frame, step in _steps(box, block, start):
        way = way + step
        for ways, limit, span in ((step, UNSURE, 1), (way, HALF, stride)):
            far = np.abs(ways) > limit * length
            if far.any() and far[:, axes].any():
                particle = int(np.argmax(far[:, axes].any(1)))
                axis = int(axes[np.argmax(far[particle, axes])])
                return _said(box, stored, frame, particle, axis, float(ways[particle, axis]), span), way
        if (frame - first) % stride == 0:
            way = np.zeros_like(way)
    return None, way


def _steps(box: Box, block: NDArray[np.float32], start: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The number of each frame but the first, and the way (N, D) to it from the one before."""
    for number in range(1, len(block)):
        yield start + number, box.nearest(block[number].astype(np.float64) - block[number - 1])


def _said(box: Box, stored: Stored, frame: int, particle: int, axis: int, way: float, stride: int) -> str:
    length = float(box.length[axis])
    advice = (
        "expected frames that are nearer in time, or a larger box"
        if stride == 1
        else f"expected less than half of it; nearest: dataset.time_stride = {_smaller(stride, abs(way) / length)}"
    )
    between = "between two stored frames" if stride == 1 else f"within dataset.time_stride = {stride} frames"
    return (
        f"{stored.where}: frame {frame}: particle {particle} moves by {abs(way) / length:.2f} of the box's length "
        f"along periodic axis {axis} {between}, so that it is not known which way it went: {advice}"
    )


def _smaller(stride: int, share: float) -> int:
    """A stride at which such a particle moves by less than half of the box."""
    return max(1, min(stride - 1, int(stride * UNSURE / share)))
