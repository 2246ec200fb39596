"""Statistics in one pass, kept beside the data for as long as they are of these data; files that change are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.data.stamps import Stamp
from ups_kit.data.statistics import Running, cache_path, cached_pass, fingerprint
from ups_plugins.grid import kept, survey
from ups_plugins.grid.config import PDEBenchConfig

WriteFile = Callable[..., Path]
COUNTS: dict[str, Any] = {"train": 8, "validation": 2, "test": 3}


def test_running_moments_are_those_of_all_values() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(1e4, 0.1, size=300_000)
    running = Running(values.size)
    for block in np.array_split(values.reshape(-1, 100), 7):
        running.add(block)
    found = running.result()
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-14)
    assert found["std"] == pytest.approx(values.std(), rel=1e-8)  # a sum of squares would be off by percents
    assert (found["min"], found["max"], found["count"]) == (values.min(), values.max(), values.size)
    for quantile in (0.05, 0.5, 0.95):
        rank = np.searchsorted(np.sort(values), found["quantiles"][f"{quantile:g}"]) / values.size
        assert rank == pytest.approx(quantile, abs=0.005)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    running = Running(6)
    running.add(np.array([1.0, np.nan, 3.0, np.inf, -np.inf, 2.0]))
    found = running.result()
    assert (found["count"], found["not_finite"], found["mean"]) == (3, 3, 2.0)
    empty = Running(2)
    empty.add(np.array([np.nan, np.nan]))
    assert empty.result() == {"count": 0, "not_finite": 2}


def test_a_pass_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    path, calls = tmp_path / "a.bin", []
    path.write_bytes(bytes(2**20))

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"n": len(calls), "exact": 0.1 + 0.2, "nan": float("nan")}

    assert cached_pass((path,), "one", compute)["n"] == 1
    again = cached_pass((path,), "one", compute)
    assert (again["n"], again["exact"]) == (1, 0.1 + 0.2)
    assert cached_pass((path,), "two", compute)["n"] == 2
    os.utime(path, ns=(0, 5))
    assert cached_pass((path,), "one", compute)["n"] == 3
    assert cached_pass((path,), "one", compute)["n"] == 3
    cache_path(path).write_text('{"version": 1, "passes"')  # cut by hand: made anew, and not believed
    assert cached_pass((path,), "one", compute)["n"] == 4
    assert [each.name for each in sorted(tmp_path.iterdir())] == [".a.bin.stats.json", "a.bin"]


def test_a_fingerprint_sees_content_behind_an_unchanged_time(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100_000))
    os.utime(path, ns=(7, 7))
    before = fingerprint(path)
    content = bytearray(100_000)
    content[60_000] = 1
    path.write_bytes(content)
    os.utime(path, ns=(7, 7))
    assert fingerprint(path) != before
    assert fingerprint(path, "other headers") != fingerprint(path)


def test_nothing_is_kept_of_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"1")

    def compute() -> dict[str, Any]:
        path.write_bytes(b"22")
        return {}

    cached_pass((path,), "one", compute)
    assert not cache_path(path).exists()


def test_a_dataset_takes_its_pass_from_beside_the_file(write_file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "LEAST_VALUES", 1)
    path = write_file()
    first: Any = PDEBenchConfig(path=path, **COUNTS).build(0)
    record = json.loads(cache_path(path).read_text())
    assert len(record["passes"]) == 2
    with monkeypatch.context() as patched:
        patched.setattr("ups_plugins.grid.survey.moments_of", lambda *_: pytest.fail("looked through again"))
        second: Any = PDEBenchConfig(path=path, **COUNTS).build(0)
    assert second.normaliser == first.normaliser
    assert second.splits.digest == first.splits.digest
    with h5py.File(path, "r+") as file:
        file["tensor"][:] = 3 * file["tensor"][()]
    third: Any = PDEBenchConfig(path=path, **COUNTS).build(0)
    assert third.normaliser.target_std == pytest.approx([3 * first.normaliser.target_std[0]], rel=1e-5)


def test_robust_normalisation_takes_its_passes_from_beside_the_files(
    write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LEAST_VALUES", 1)
    path, other = write_file("a.h5"), write_file("b.h5", samples=14, seed=5)
    passes: list[int] = []
    halved = survey.central_half

    def counted(*given: Any) -> Any:
        passes.append(1)
        return halved(*given)

    monkeypatch.setattr(survey, "central_half", counted)

    def normaliser(count: int, **keys: Any) -> Any:
        built: Any = PDEBenchConfig(path=(path, other), normalisation="robust", **(COUNTS | keys)).build(0)
        assert len(passes) == count
        return built.normaliser

    first = normaliser(1)
    assert normaliser(1) == first  # the same to the bit, and nothing looked through
    assert normaliser(2, time_stride=2) != first
    assert normaliser(3, train=COUNTS["validation"]) != first  # other trajectories
    assert normaliser(3, train=COUNTS["validation"]) != first
    with h5py.File(other, "r+") as file:  # the second of the files: beside it lies nothing of the central half
        file["tensor"][:] = 3 * file["tensor"][()]
    assert normaliser(4).target_std != first.target_std


def test_small_files_and_foreign_values_leave_nothing_behind(write_file: WriteFile) -> None:
    path = write_file()
    PDEBenchConfig(path=path, **COUNTS).build(0)
    assert not cache_path(path).exists()


# ---------------------------------------------------------------------------------------------------------------------
# F32
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["replaced", "truncated", "written", "removed"])
def test_f32_a_file_that_changes_during_training_is_told(write_file: WriteFile, how: str) -> None:
    path = write_file()
    dataset: Any = PDEBenchConfig(path=path, **COUNTS).build(0)
    dataset.batch("train", np.arange(2), 1)
    content = path.read_bytes()
    if how == "replaced":
        other = path.with_name("other.h5")
        other.write_bytes(content)
        os.utime(other, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
        other.replace(path)
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "written":
        os.utime(path)
    else:
        path.unlink()
    with pytest.raises(DataError) as raised:
        dataset.batch("train", np.arange(2), 1)
    words = {
        "replaced": "is another file than the one that was opened",
        "truncated": f"has {len(content) // 2:,} bytes, and had {len(content):,} when it was opened",
        "written": "was written to since it was opened",
        "removed": "cannot be looked at any more",
    }
    assert str(path) in str(raised.value)
    assert words[how] in str(raised.value)


def test_a_store_is_stamped_by_its_header(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    stamp = Stamp.of(store)
    stamp.check()
    (store / "zarr.json").write_text('{"zarr_format": 3}')
    with pytest.raises(DataError, match="has 18 bytes, and had 2"):
        stamp.check()
