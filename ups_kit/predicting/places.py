"""Where a forecast is asked: `--points`, a file of positions or a grid over the domain."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ..data.memory import available_memory
from ..errors import DataError, UsageError, did_you_mean
from ..interfaces import FieldSpec
from .forecast import grid_places
from .start import plain_arrays

GRID = "grid:"
BYTES = 24  # of a coordinate, as it is made and as it is kept
TEXTS = (".csv", ".txt")
ENDINGS = (".npy", ".npz", *TEXTS)


@frozen(eq=False)
class Places:
    """Positions to decode at, and their shape where they are a grid."""

    told: str  # as it was asked
    positions: Tensor | NDArray[np.float32]  # (Q, D) or (1, Q, D)
    grid: tuple[int, ...] | None


def read_places(told: str, fields: FieldSpec) -> Places:
    """`grid:HxW`, the points of such a grid as the data's own would lie, or a file of positions (Q, D).

    Raises UsageError for words that are neither, DataError for a file that is no such thing.
    """
    if told.startswith(GRID):
        shape = grid_shape(told, fields.space_dims)
        size, free = BYTES * fields.space_dims * math.prod(shape), available_memory()
        if size > free:
            raise UsageError(
                f"--points {told}: so many points take {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free; "
                "ask for fewer of them at a time"
            )
        return Places(told, grid_places(fields, shape), shape)
    path = Path(told)
    if path.suffix not in ENDINGS:
        near = did_you_mean(told, [GRID + "x".join(["64"] * fields.space_dims)])
        sizes = "x".join("HWD"[: fields.space_dims])
        raise UsageError(f"--points {told}: expected {GRID}{sizes}, or a file ending in {', '.join(ENDINGS)}{near}")
    if not path.is_file():
        raise DataError(f"--points {told}: there is no such file")
    return Places(told, _from_file(path, fields.space_dims), None)


def grid_shape(told: str, dims: int) -> tuple[int, ...]:
    """The numbers of `grid:128x64`, one for each axis. Raises UsageError with the nearest that would do."""
    words = told.removeprefix(GRID)
    numbers = [int(word) for word in re.findall(r"\d{1,9}", words)]
    good = bool(re.fullmatch(r"\d{1,9}(x\d{1,9})*", words)) and len(numbers) == dims and min(numbers) > 0
    if not good:
        kept = [max(number, 1) for number in numbers] or [64]
        near = GRID + "x".join(str(size) for size in (kept + [kept[-1]] * dims)[:dims])
        axes = "1 axis" if dims == 1 else f"{dims} axes"
        raise UsageError(f"--points {told}: expected a number of points for each of {axes}; nearest: {near}")
    return tuple(numbers)


def _from_file(path: Path, dims: int) -> NDArray[np.float32]:
    """Positions (Q, D). Raises DataError."""
    if path.suffix in TEXTS:
        values = _from_text(path)
    else:
        arrays = plain_arrays(path)
        name = "" if path.suffix == ".npy" else "positions"
        if name not in arrays:
            listed = ", ".join(arrays) or "none"
            raise DataError(f"{path}: no array is called 'positions'{did_you_mean(name, arrays)} (arrays: {listed})")
        values = arrays[name]
    values = values[:, None] if values.ndim == 1 and dims == 1 else values
    if values.ndim != 2 or values.shape[1] != dims or not len(values):
        raise DataError(f"{path}: has the shape {list(values.shape)}; expected positions [points, {dims}]")
    return values.astype(np.float32)


def _from_text(path: Path) -> NDArray[np.float64]:
    """Numbers in lines, with commas or blanks between them; a first line of names is left out. Raises DataError."""
    try:
        lines = [
            line.split("#")[0].replace(",", " ").split() for line in path.read_text(encoding="utf-8-sig").splitlines()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
    rows: list[list[float]] = []
    for number, words in enumerate(lines, start=1):
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            if not rows and number == 1:
                continue
            raise DataError(f"{path}, line {number}: {error}; expected numbers") from error
        if row and rows and len(row) != len(rows[0]):
            raise DataError(f"{path}, line {number}: {len(row)} numbers, and {len(rows[0])} in the lines before")
        if row:
            rows.append(row)
    return np.asarray(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
