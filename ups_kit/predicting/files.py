"""Forecasts as files, whole or not at all: .npz, HDF5 and Zarr with the same arrays by the same names.

fields/NAME      (steps, points …, channels): the forecast, or the mean of its members
deviations/NAME  the members' standard deviation, where there are several
members/NAME     (members, steps, points …, channels), where they were asked for
positions        (points …, D); (steps, points, D) where the points move
times            (steps,)
parameters/NAME  numbers
provenance       JSON text: what the forecast was made of, and by what; an attribute of the root in HDF5 and Zarr
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..data.whole_stores import sync_store
from ..errors import StorageError, UsageError, did_you_mean
from ..folder import sync_folder, write_bytes

ENDINGS = (".npz", ".h5", ".hdf5", ".zarr")
PROVENANCE = "provenance"


@frozen(eq=False)
class Answer:
    """What is written: arrays by name, and what they were made of."""

    arrays: Mapping[str, NDArray[Any]]
    provenance: Mapping[str, Any]


def check_target(path: Path, overwrite: bool) -> None:
    """Say before anything is computed that a path cannot be written to. Raises UsageError, StorageError."""
    if path.suffix not in ENDINGS:
        near = did_you_mean(path.suffix, ENDINGS)
        raise UsageError(f"--out {path}: expected a name that ends in {', '.join(ENDINGS)}{near}")
    if path.exists() or path.is_symlink():
        _check_replaced(path, overwrite)
    folder = path.absolute().parent
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is a file"
        raise StorageError(f"--out {path}: {there} {why}; choose another --out")


def _check_replaced(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise StorageError(f"--out {path}: is there already; add --overwrite, or choose another --out")
    store = path.suffix == ".zarr"
    if path.is_dir() != store or (store and not (path / "zarr.json").is_file()):
        what = "a folder" if path.is_dir() else "a file"
        kind = "Zarr store" if store else "file"
        raise StorageError(f"--out {path}: is {what}, and would be replaced by a {kind}; choose another --out")


def write_answer(path: Path, answer: Answer) -> None:
    """Write an answer in the format of the path's ending, in the place of what is there. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zarr":
            _replace_store(path, answer)
        else:
            write_bytes(path, _npz(answer) if path.suffix == ".npz" else _hdf5(answer))
    except OSError as error:
        raise StorageError(f"{path}: could not be written: {error.strerror or error}; choose another --out") from error


def _npz(answer: Answer) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{PROVENANCE: np.array(json.dumps(answer.provenance))}, **answer.arrays)
    return buffer.getvalue()


def _hdf5(answer: Answer) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in answer.arrays.items():
            file[name] = values
        file.attrs[PROVENANCE] = json.dumps(answer.provenance)
    return buffer.getvalue()


def _replace_store(path: Path, answer: Answer) -> None:
    """The store is written beside and renamed; an older one makes room at the last moment."""
    import zarr

    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    old = aside.with_name(f"{aside.name}.old")
    try:
        root = zarr.create_group(aside)
        for name, values in answer.arrays.items():
            root.create_array(name, data=np.asarray(values))
        root.attrs[PROVENANCE] = json.dumps(answer.provenance)
        sync_store(aside)
        if path.exists():
            path.rename(old)
        aside.rename(path)
        sync_folder(path.parent)
    finally:
        if old.exists() and not path.exists():  # the new one could not take its place
            old.rename(path)
        for rest in (aside, old):
            shutil.rmtree(rest, ignore_errors=True)
