"""What a data file holds, as its headers say it: arrays, shapes, types, attributes. No values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

INNER_LINK = "link inside the file"  # of `ArrayInfo.elsewhere`
Format = Literal["hdf5", "zarr", "npz", "npy", "folder"]  # folder: HDF5 files beside one with JSON about them


@frozen
class ArrayInfo:
    """One array's header."""

    shape: tuple[int, ...]
    dtype: str  # as numpy writes it: "<f4"
    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    filters: tuple[str, ...] = ()
    elsewhere: str = ""  # where the values lie if not in this file: "external", "virtual", "link to …"
    attributes: Mapping[str, Any] = field(factory=dict)


@frozen
class FileTree:
    """A file's arrays by path ("group/name"), and the attributes of its root and groups ("" is the root).

    Of a folder of files, the name of the file stands before: "train.h5/group/name".
    """

    path: Path
    format: Format
    arrays: Mapping[str, ArrayInfo]
    attributes: Mapping[str, Mapping[str, Any]] = field(factory=dict)
