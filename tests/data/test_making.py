"""A file that is made: once, whole, and after a kill from where it stood."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from attrs import evolve, field, frozen

from ups_kit import DataError, FieldSpec, StorageError
from ups_kit.data import making
from ups_kit.data.making import make, make_if_missing
from ups_kit.folder import held
from ups_kit.interfaces import Simulator


@frozen
class Slow:
    """Squares, five at a time; keeps a log of what it was asked to solve."""

    trajectories: int = 12
    part: int = 5
    bytes: int = 1000
    offset: float = 0.0
    pause: float = 0.0
    device: str = "cpu"

    def describe(self) -> FieldSpec:
        raise AssertionError("nobody asks")

    def build(self) -> Simulator:
        return self

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        SOLVED.append((start, stop))
        time.sleep(self.pause)
        report(0.5)
        return {"tensor": self.offset + np.arange(start, stop, dtype=np.float64)[:, None] ** [1, 2]}

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        WRITTEN.append(path)
        with h5py.File(path, "w") as file:
            file["tensor"] = np.concatenate([part["tensor"] for part in parts])


SOLVED: list[tuple[int, int]] = []
WRITTEN: list[Path] = []


@pytest.fixture(autouse=True)
def fresh_logs() -> None:
    SOLVED.clear()
    WRITTEN.clear()


def tensor(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file["tensor"])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_made_once(tmp_path: Path) -> None:
    slow, path = Slow(pause=0.1), tmp_path / "data.h5"
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda _: make_if_missing(path, slow), range(3)):
            pass
    assert SOLVED == [(0, 5), (5, 10), (10, 12)]
    assert len(WRITTEN) == 1
    assert WRITTEN[0] != path
    assert names(tmp_path) == ["data.h5"]
    np.testing.assert_array_equal(tensor(path), np.arange(12.0)[:, None] ** [1, 2])


@frozen
class Interrupted(Slow):
    """Is stopped in its last part."""

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        if stop == self.trajectories:
            raise KeyboardInterrupt
        return super().solve(start, stop, report)


Interrupted.__qualname__ = "Slow"  # as a file says what made it


def test_goes_on_with_the_parts_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with pytest.raises(KeyboardInterrupt):
        make_if_missing(path, Interrupted())
    assert not path.exists()
    assert names(tmp_path / ".data.h5.parts") == ["00000000-00000005.npz", "00000005-00000010.npz", "config.json"]
    make_if_missing(path, Slow(device="cuda"))
    assert SOLVED == [(0, 5), (5, 10), (10, 12)]
    np.testing.assert_array_equal(tensor(path), np.arange(12.0)[:, None] ** [1, 2])
    assert names(tmp_path) == ["data.h5"]


def test_parts_of_other_settings_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with pytest.raises(KeyboardInterrupt):
        make_if_missing(path, Interrupted(offset=1.0))
    make_if_missing(path, Slow())
    assert SOLVED == [(0, 5), (5, 10), (0, 5), (5, 10), (10, 12)]
    np.testing.assert_array_equal(tensor(path), np.arange(12.0)[:, None] ** [1, 2])


def cut(part: Path) -> None:
    os.truncate(part, part.stat().st_size // 2)


def flip(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)


def swap(part: Path) -> None:
    part.write_bytes((part.parent / "00000000-00000005.npz").read_bytes()[:0])


def shorten(part: Path) -> None:
    np.savez(part, tensor=np.zeros((3, 2)))


def pickled(part: Path) -> None:
    np.savez(part, tensor=np.array([{}] * 5, dtype=object))


@pytest.mark.parametrize("damage", [cut, flip, swap, shorten, pickled])
def test_a_damaged_part_is_solved_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "data.h5"
    with pytest.raises(KeyboardInterrupt):
        make_if_missing(path, Interrupted())
    damage(tmp_path / ".data.h5.parts" / "00000005-00000010.npz")
    make_if_missing(path, Slow())
    assert SOLVED == [(0, 5), (5, 10), (5, 10), (10, 12)]
    np.testing.assert_array_equal(tensor(path), np.arange(12.0)[:, None] ** [1, 2])


KILLED = """
import sys
from pathlib import Path
from ups_kit.data.making import make
from ups_plugins.simulators import burgers1d
from ups_plugins.simulators.config import Burgers1DConfig

burgers1d.PART = 4
make(Path(sys.argv[1]), Burgers1DConfig(
    trajectories=24, points=16, frames=21, epsilon=0.01, refinement=int(sys.argv[2]), device="cpu"))
"""


def start(path: Path, refinement: int = 32) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", KILLED, str(path), str(refinement)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_killed_and_made_again_to_the_same_bytes(tmp_path: Path) -> None:
    path, whole = tmp_path / "data.h5", tmp_path / "whole.h5"
    process = start(path)
    parts = tmp_path / ".data.h5.parts"
    deadline = time.monotonic() + 60
    while not list(parts.glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    kept = {part.name: part.stat().st_mtime_ns for part in parts.glob("*.npz")}
    assert 1 <= len(kept) < 6
    again, other = start(path), start(whole)
    assert again.wait() == other.wait() == 0, (again.stderr, other.stderr)
    assert path.read_bytes() == whole.read_bytes()
    assert f"making data.h5: {24} of 24".encode() in (again.stderr.read() if again.stderr else b"")
    assert names(tmp_path) == ["data.h5", "whole.h5"]


@frozen
class Steps(Slow):
    """Is killed (by an exception that nothing catches) while the file is written."""

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt


Steps.__qualname__ = "Slow"


def test_interrupted_while_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with pytest.raises(KeyboardInterrupt):
        make_if_missing(path, Steps())
    assert not path.exists()
    make_if_missing(path, Slow())
    assert SOLVED == [(0, 5), (5, 10), (10, 12)]
    assert names(tmp_path) == ["data.h5"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    path.write_text("precious")
    with pytest.raises(StorageError, match=r"data\.h5: is there already, and nothing is overwritten; remove it, or"):
        make(path, Slow())
    assert (path.read_text(), SOLVED) == ("precious", [])
    make(tmp_path / "other.h5", Slow())
    assert len(tensor(tmp_path / "other.h5")) == 12


def test_foreign_files_in_the_parts_folder_stay(tmp_path: Path) -> None:
    (tmp_path / ".data.h5.parts").mkdir()
    (tmp_path / ".data.h5.parts" / "notes.txt").write_text("mine")
    make(tmp_path / "data.h5", Slow())
    assert (tmp_path / ".data.h5.parts" / "notes.txt").read_text() == "mine"
    assert names(tmp_path / ".data.h5.parts") == ["notes.txt"]


@frozen
class Diverging(Slow):
    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        values = np.ones((stop - start, 2))
        values[np.arange(start, stop) == 7, 1] = np.nan
        return {"tensor": values}


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'tensor' of trajectory 7 does not stay finite .*; take a smaller time step"):
        make(tmp_path / "data.h5", Diverging())
    assert not (tmp_path / "data.h5").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(StorageError, match=r"occupied/data\.h5: could not be made: .*; choose another dataset\.path"):
        make_if_missing(tmp_path / "occupied" / "data.h5", Slow())


def test_a_full_disk_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 5 * 2**20})())
    with pytest.raises(StorageError, match=r"needs 6 MiB while it is made, and .* has 5 MiB free"):
        make(tmp_path / "b.h5", evolve(Slow(), bytes=3 * 2**20))
    assert SOLVED == []
    assert names(tmp_path) == []


def test_more_than_any_disk_takes_is_refused_at_once(tmp_path: Path) -> None:
    """Not after a list of its parts was made, which alone would fill the memory."""
    with pytest.raises(StorageError, match=r"needs \d+ MiB while it is made"):
        make(tmp_path / "b.h5", evolve(Slow(), trajectories=10**15, bytes=10**18))
    assert names(tmp_path) == []


def test_a_lock_is_held_by_one_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    inside, most = [], []

    def hold(number: int) -> None:
        with held(path):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.001)
            inside.remove(number)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(hold, range(200)))
    assert most == [1] * 200
    assert names(tmp_path) == []
    with held(path), pytest.raises(BlockingIOError), held(path, wait=False):
        pass
    with pytest.raises(ValueError, match="on the way"), held(path):
        raise ValueError("on the way")
    assert names(tmp_path) == []


@frozen
class Large(Slow):
    """Writes more than the disk takes."""

    large: int = field(default=200_000)

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        with h5py.File(path, "w") as file:
            file["tensor"] = np.ones(self.large)


@pytest.mark.parametrize("limit", [0, 50_000, 1_000_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError, match=r"data.h5: could not be made: File too large; choose another"):
            make_if_missing(tmp_path / "data.h5", Large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert set(names(tmp_path)) <= {".data.h5.parts"}
    make_if_missing(tmp_path / "data.h5", Large())
    assert names(tmp_path) == ["data.h5"]
