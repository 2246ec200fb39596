"""Reading arrays by memory map and through h5py: the same numbers."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.data.hdf5 import StoredArray, find_array, opened

VALUES = np.random.default_rng(0).normal(size=(9, 12, 20))
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": (2, 5, 20)},
    "compressed": {"chunks": (1, 12, 20), "compression": "gzip", "shuffle": True},
    "big endian": {"dtype": ">f8"},
}


def stored(path: Path, name: str = "tensor") -> StoredArray:
    with opened(path) as file:
        return StoredArray.of(find_array(file, name))


def written(path: Path, userblock: int = 0, **options: Any) -> Path:
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["something_before"] = np.arange(77)
        file.create_dataset("tensor", data=VALUES, **{"dtype": "f4"} | options)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gather_and_rows_equal_h5py(tmp_path: Path, layout: str) -> None:
    array = stored(written(tmp_path / "a.h5", **LAYOUTS[layout]))
    assert (array.offset is None) == (layout in ("chunked", "compressed"))
    with h5py.File(tmp_path / "a.h5") as file:
        truth = file["tensor"][()].astype(np.float32)
    samples = np.array([3, 0, 8, 3])
    frames = np.array([[0, 2, 4], [7, 9, 11], [1, 3, 5], [0, 2, 4]])
    found = array.gather(samples, frames)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, truth[samples[:, None], frames])
    np.testing.assert_array_equal(array.rows([8, 1, 4], slice(1, None, 3)), truth[[8, 1, 4], 1::3])


def test_offset_counts_the_user_block(tmp_path: Path) -> None:
    array = stored(written(tmp_path / "a.h5", userblock=1024))
    np.testing.assert_array_equal(array.rows(range(9), slice(None)), VALUES.astype(np.float32))


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_readers_in_other_processes_open_their_own(tmp_path: Path, layout: str) -> None:
    array = stored(written(tmp_path / "a.h5", **LAYOUTS[layout]))
    array.rows([0], slice(None))
    (tmp_path / "array.pickle").write_bytes(pickle.dumps(array))
    code = (
        "import pickle, sys, pathlib\n"
        "array = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(repr(float(array.rows([5], slice(None)).sum(dtype='f8'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "array.pickle")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(float(VALUES[5].astype(np.float32).sum(dtype="f8")), rel=1e-9)


def test_mapped_values_are_read_only(tmp_path: Path) -> None:
    array = stored(written(tmp_path / "a.h5"))
    with pytest.raises(ValueError, match="read-only"):
        array._contiguous()[0, 0, 0] = 1


def test_uneven_frames_are_refused_where_they_are_not_mapped(tmp_path: Path) -> None:
    array = stored(written(tmp_path / "a.h5", **LAYOUTS["chunked"]))
    with pytest.raises(ValueError, match="evenly spaced"):
        array.gather(np.array([0]), np.array([[0, 1, 3]]))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4096)


def replaced(path: Path) -> None:
    other = written(path.with_name("b.h5"), dtype="f8")
    path.write_bytes(other.read_bytes())


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\1" * 8)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
@pytest.mark.parametrize("change", [cut, replaced, written_to, removed], ids=lambda change: change.__name__)
def test_f32_a_file_that_changes_while_it_is_in_use(
    tmp_path: Path, layout: str, change: Callable[[Path], None]
) -> None:
    path = written(tmp_path / "a.h5", **LAYOUTS[layout])
    array = stored(path)
    sent = pickle.loads(pickle.dumps(array))  # as to a data worker, which opens the file by itself
    frames = np.array([[0, 1], [3, 4]])
    array.gather(np.array([2, 5]), frames)
    change(path)
    for reader in (array, sent):
        with pytest.raises(DataError, match=re.escape(str(path))) as told:
            reader.gather(np.array([7, 4]), frames)
        assert "'tensor', samples 7, 4" in str(told.value)
        assert "resume" in str(told.value)
        with pytest.raises(DataError, match="samples 6"):
            reader.rows([6], slice(None))
