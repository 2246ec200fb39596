"""Arrays of token files, read by rows: where they lie, or from memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.hdf5 import find_array, opened, shapes
from ups_kit.data.headers import file_format
from ups_kit.data.memory import available_memory
from ups_kit.data.stamps import Stamp
from ups_kit.data.zarr_store import ZarrStore, tree_of_zarr

SHARE = 0.5  # of the free memory that one array may take


@define(eq=False)
class Column:
    """One array of a file, for any number of readers at once.

    An HDF5 array in one piece is mapped, so that the system's page cache holds it; others are read whole when they are
    first asked for. Other processes are given neither, and read on their own.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None  # where the values begin, if they lie in one piece
    stamp: Stamp
    _found: NDArray[Any] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, numbers: NDArray[np.integer] | slice) -> NDArray[Any]:
        """Some rows, copied. Raises DataError where the file is not what it was when it was opened."""
        self.stamp.check()
        if self._found is None:
            self._found = self._whole() if self.offset is None else self._mapped(self.offset)
        return np.array(self._found[numbers])

    def _mapped(self, offset: int) -> NDArray[Any]:
        if not all(self.shape):
            return np.empty(self.shape, self.dtype)
        return np.asarray(np.memmap(self.path, self.dtype, "r", offset, self.shape))

    def _whole(self) -> NDArray[Any]:
        size, free = int(np.prod(self.shape)) * self.dtype.itemsize, available_memory()
        if size > SHARE * free:
            raise DataError(
                f"{self.path}: '{self.name}' is stored in chunks, has {size / 2**20:,.0f} MiB and has to be held in "
                f"memory, of which {free / 2**20:,.0f} MiB are free; store it in one piece, in an HDF5 file without "
                "chunks and compression: then it is read where it lies",
                "path",
            )
        if self.path.is_dir():
            array = ZarrStore.open(self.path).array(self.name)
            return array.box([(0, length) for length in self.shape])
        with opened(self.path) as file:
            return np.asarray(find_array(file, self.name)[()])

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.name, self.shape, self.dtype, self.offset, self.stamp)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


@frozen(eq=False)
class Contents:
    """The arrays of a file or store by name, and the attributes of its root; no value is read yet."""

    path: Path
    columns: Mapping[str, Column]
    attributes: Mapping[str, Any]


def open_contents(path: Path) -> Contents:
    """What a file (HDF5, Zarr store) holds, by its headers. Raises DataError."""
    kind = file_format(path)
    if kind == "zarr":
        tree = tree_of_zarr(path)
        stamp = Stamp.of(path)
        columns = {
            name: Column(path, name, info.shape, np.dtype(info.dtype), None, stamp)
            for name, info in tree.arrays.items()
        }
        return Contents(path, columns, tree.attributes[""])
    if kind != "hdf5":
        raise DataError(f"{path}: expected an HDF5 file or a Zarr store, got {kind}", "path")
    with opened(path) as file:
        stamp = Stamp.of(path)
        columns = {name: _column(path, file, name, stamp) for name in shapes(file)}
        return Contents(path, columns, dict(file.attrs))


def _column(path: Path, file: Any, name: str, stamp: Stamp) -> Column:
    array = file[name]
    if array.external or array.is_virtual:
        raise DataError(f"{path}: dataset '{name}' keeps its values in other files; expected them in this one", "path")
    offset = array.id.get_offset() if array.chunks is None else None
    if offset is not None and offset + array.nbytes > stamp.size:
        raise DataError(
            f"{path}: is truncated: dataset '{name}' ends at byte {offset + array.nbytes:,}, and the file has "
            f"{stamp.size:,} bytes; download or make it again",
            "path",
        )
    return Column(path, name, tuple(array.shape), array.dtype, offset, stamp)
