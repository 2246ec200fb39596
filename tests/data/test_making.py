"""Two runs that want one file make it once."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from attrs import field, frozen

from ups_kit import FieldSpec, StorageError
from ups_kit.data.making import make_if_missing
from ups_kit.interfaces import Simulator


@frozen
class Slow:
    """Takes a while, and counts how often it is asked."""

    written: list[Path] = field(factory=list)

    def describe(self) -> FieldSpec:
        raise AssertionError("nobody asks")

    def build(self) -> Simulator:
        return self

    def write(self, path: Path, report: Callable[[int, int], None]) -> None:
        self.written.append(path)
        time.sleep(0.2)
        with h5py.File(path, "w") as file:
            file["tensor"] = 1.0


def test_made_once(tmp_path: Path) -> None:
    slow, path = Slow(), tmp_path / "data.h5"
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda _: make_if_missing(path, slow), range(3)):
            pass
    assert len(slow.written) == 1
    assert slow.written[0] != path
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.h5"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(StorageError, match=r"occupied/data\.h5: could not be made: .*; choose another dataset\.path"):
        make_if_missing(tmp_path / "occupied" / "data.h5", Slow())


@frozen
class Large(Slow):
    """Writes more than the disk takes."""

    def write(self, path: Path, report: Callable[[int, int], None]) -> None:
        with h5py.File(path, "w") as file:
            file["tensor"] = np.ones(200_000)


@pytest.mark.parametrize("limit", [0, 50_000, 1_000_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError, match=r"data.h5: could not be made: File too large; choose another"):
            make_if_missing(tmp_path / "data.h5", Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in tmp_path.iterdir()} <= {".data.h5.lock"}
