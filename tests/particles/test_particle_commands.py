"""`upskit data …` on particles: inspect, validate, stats, convert there and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from ups_kit.cli import main
from ups_kit.data.zarr_store import ZarrStore
from ups_plugins.particles.formats import LagrangeBenchConfig, ParticleZarrConfig


class Told(NamedTuple):
    exit_code: int
    output: str


Upskit = Callable[..., Told]


@pytest.fixture
def upskit(capfd: pytest.CaptureFixture[str]) -> Upskit:
    """Call `upskit data` in this process."""

    def call(*arguments: Any) -> Told:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", *map(str, arguments)])
        captured = capfd.readouterr()
        return Told(int(ended.value.code or 0), captured.out + captured.err)

    return call


def test_a_folder_is_looked_at_as_one(files: ModuleType, tmp_path: Path, upskit: Upskit) -> None:
    path = files.benchmark(tmp_path / "bench", (12, 10, 11))
    shown = json.loads(upskit("inspect", path, "--json").output)
    assert [layout["use"] for layout in shown["layouts"]] == ["lagrangebench"]
    assert shown["layouts"][0]["table"] == {"path": str(path)}
    assert "train.h5/00002/position" in shown["arrays"]
    checked = upskit("validate", path)
    assert checked.exit_code == 0, checked.output
    assert "3 train, 2 validation, 2 test" in checked.output


def test_one_file_is_looked_at_without_splits(files: ModuleType, tmp_path: Path, upskit: Upskit) -> None:
    path = files.benchmark(tmp_path / "bench", (12, 10, 11)) / "test.h5"
    checked = upskit("validate", path)
    assert checked.exit_code == 0, checked.output
    assert "all 616 values finite" in checked.output  # (12 + 10) particles, 14 velocities, 2 axes


def test_lagrangebench_becomes_a_store(files: ModuleType, tmp_path: Path, upskit: Upskit) -> None:
    path, out = files.benchmark(tmp_path / "bench", (12, 10, 11)), tmp_path / "bench.zarr"
    done = upskit("convert", path, "--out", out)
    assert done.exit_code == 0, done.output
    assert "the dataset 'particle_zarr' reads it" in done.output
    before = LagrangeBenchConfig(path=path).build(0)
    after = ParticleZarrConfig(path=out, validation=2, test=2).build(0)
    assert dict(before.splits.ids) == dict(after.splits.ids)
    assert before.fields == after.fields
    torch.testing.assert_close(before.trajectories("test"), after.trajectories("test"), atol=0, rtol=0)


def test_a_store_is_copied_with_all_that_is_in_it(files: ModuleType, tmp_path: Path, upskit: Upskit) -> None:
    table = (np.arange(21), np.arange(20)[::-1].copy(), 0.1)
    path, out = files.store(tmp_path, samples=2, neighbours=table), tmp_path / "copy.zarr"
    done = upskit("convert", path, "--out", out)
    assert done.exit_code == 0, done.output
    stores = [ZarrStore.open(place) for place in (path, out)]
    assert stores[0].attributes == stores[1].attributes
    for name in ("positions", "ids", "velocities", "fields/density", "statics/mass", "neighbours/indices"):
        one, other = (store.array(f"sample_00001/{name}").values() for store in stores)
        np.testing.assert_array_equal(one, other)
    assert stores[1].document("sample_00001/neighbours")["attributes"] == {"radius": 0.1}


def test_what_cannot_be_read_is_told_without_a_traceback(files: ModuleType, tmp_path: Path, upskit: Upskit) -> None:
    path = files.benchmark(tmp_path / "bench", (12, 10, 11))
    (path / "train.h5").write_bytes((path / "train.h5").read_bytes()[:3000])
    for verb, *options in (("inspect",), ("validate",), ("stats",), ("convert", "--out", tmp_path / "x.zarr")):
        done = upskit(verb, path, *options)
        assert done.exit_code == 3, done.output
        assert "Traceback" not in done.output
        assert "train.h5" in done.output
    assert not (tmp_path / "x.zarr").exists()


def test_a_simulated_store_is_checked_without_an_audit(tmp_path: Path, upskit: Upskit) -> None:
    path, keys = tmp_path / "tgv.zarr", ("trajectories=2", "particles=8", "frames=3", "duration=0.01", "support=2.0")
    wrong = upskit("make", "taylor_green_sph2d", "--out", tmp_path / "tgv.h5")
    assert wrong.exit_code == 2
    assert "tgv.zarr" in wrong.output
    made = upskit("make", "taylor_green_sph2d", "--out", path, *(f"--set={key}" for key in keys))
    assert made.exit_code == 0, made.output
    checked = upskit("check", path)
    assert checked.exit_code == 0, checked.output
    assert "0 pairs of equal" in checked.output
    assert "'taylor_green_sph2d', which made it, has no audit for its equation" in checked.output
    for name in ("positions", "velocities"):
        shutil.copytree(path / "sample_00000" / name, path / "sample_00001" / name, dirs_exist_ok=True)
    twins = json.loads(upskit("check", path, "--json").output)["twins"]
    assert [twin["distance"] for twin in twins] == [0]
