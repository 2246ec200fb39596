"""Coordinates of HDF5 files, checked: one-dimensional, of a right length, rising in equal steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.hdf5 import find_array, shapes
from ups_kit.errors import did_you_mean

SPACING_TOLERANCE = 1e-3  # of a spacing: what coordinates in float32 are off by, and more
LISTED = 12  # arrays that a message names


def read_coordinate(
    file: h5py.File, name: str, lengths: tuple[int, ...], what: str, allow_external: bool
) -> NDArray[np.float64]:
    """A coordinate of an open file, for as many `what` ("points", "frames") as the first of `lengths` says.

    Raises DataError where it is missing or no coordinate.
    """
    path = Path(file.filename)
    if file.get(name, getlink=True) is None:
        known = shapes(file)
        listed = ", ".join(f"{other} {list(shape)}" for other, shape in [*known.items()][:LISTED])
        near = did_you_mean(name, known)
        raise DataError(f"{path}: coordinate '{name}' is missing{near} (datasets here: {listed}); expected its {what}")
    stored = find_array(file, name, allow_external)
    if stored.shape is None or stored.dtype.kind not in "fiu":
        raise DataError(f"{path}: '{name}' holds values of type {stored.dtype}; expected numbers, its {what}")
    return checked_coordinate(path, name, stored[()], lengths, what)


def checked_coordinate(
    path: Path, name: str, stored: NDArray[Any], lengths: tuple[int, ...], what: str
) -> NDArray[np.float64]:
    """The values of a coordinate: as many as the first of `lengths`; a file may hold as many as any of them."""
    values = np.asarray(stored, np.float64)
    if values.ndim != 1 or len(values) not in lengths:
        wanted = " or ".join(str(length) for length in lengths)
        raise DataError(
            f"{path}: '{name}' has the shape {list(values.shape)}; expected {wanted} values for the data's "
            f"{lengths[0]} {what}"
        )
    values = values[: lengths[0]]  # PDEBench stores one time more than there are frames
    steps = np.diff(values)
    if not np.isfinite(values).all() or (steps <= 0).any():
        first = int(np.argmax(~(steps > 0)))
        raise DataError(
            f"{path}: '{name}' does not rise: its entries {first} and {first + 1} are {values[first]:g} and "
            f"{values[first + 1]:g}; expected rising values"
        )
    if len(steps) and np.ptp(steps) > SPACING_TOLERANCE * steps.mean():
        raise DataError(
            f"{path}: '{name}' is not evenly spaced: steps of {steps.min():g} to {steps.max():g}; expected equal ones"
        )
    return values


def told_periodic(file: h5py.File, dims: int) -> tuple[bool, ...]:
    """What an attribute "periodic" of the file says of its axes; empty where it says nothing."""
    value = np.asarray(file.attrs.get("periodic", ()))
    if value.dtype.kind not in "biu" or value.shape not in ((), (dims,)):
        return ()
    return tuple(bool(each) for each in np.broadcast_to(value, (dims,)))
