"""What can be wrong with stored ids and stored neighbours. Neighbours that a model uses are looked up anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def problem_of_ids(ids: NDArray[np.int64], where: str) -> str | None:
    """Whether an id (N,) stands twice."""
    values, first, counts = np.unique(ids, return_index=True, return_counts=True)
    twice = np.flatnonzero(counts > 1)
    if not len(twice):
        return None
    own = twice[np.argmin(first[twice])]
    places = np.flatnonzero(ids == values[own])[:2]
    return (
        f"{where}: expected every id once, got {len(twice)} ids more than once, the first being {values[own]} "
        f"(particles {places[0]} and {places[1]})"
    )


def problem_of_neighbours(
    indptr: NDArray[np.int64], indices: NDArray[np.int64], frames: int, count: int, where: str
) -> str | None:
    """Whether a table of rows is one: `indptr` of the first frame's particles or of all frames', `indices` below N."""
    if len(indptr) not in (count + 1, frames * count + 1):
        return (
            f"{where}/indptr: expected {count + 1} entries, one more than there are particles, or "
            f"{frames * count + 1} for all {frames} frames, got {len(indptr)}"
        )
    falls = np.flatnonzero(np.diff(indptr) < 0)
    if indptr[0] != 0 or len(falls):
        place = f"entry {falls[0] + 1} below entry {falls[0]}" if indptr[0] == 0 else f"{indptr[0]} as the first entry"
        return f"{where}/indptr: expected numbers that start at 0 and never fall, got {place}"
    if indptr[-1] != len(indices):
        return f"{where}/indices: expected {indptr[-1]} entries, as the last of 'indptr' says, got {len(indices)}"
    wrong = (indices < 0) | (indices >= count)
    if wrong.any():
        entry = int(np.argmax(wrong))
        row = int(np.searchsorted(indptr, entry, side="right")) - 1
        return (
            f"{where}/indices: expected numbers of the {count} particles, 0 … {count - 1}, got {int(wrong.sum())} "
            f"others, the first being {indices[entry]} as a neighbour of particle {row % count}"
        )
    return None
