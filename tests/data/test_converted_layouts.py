"""Files of every layout converted to every format: the same data, as training reads them, and as plain readers do."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import ups_kit
from ups_kit import DataError, StorageError
from ups_kit.data import chunks, gridded
from ups_kit.data.conversion import convert_file, convert_task
from ups_kit.data.headers import read_tree
from ups_kit.data.layouts import config_of, layouts_task
from ups_kit.plugins import discover
from ups_kit.run import run

from .test_training_layouts import RECIPE
from .well_files import write_well

WriteLayout = Callable[..., tuple[Path, dict[str, np.ndarray]]]
LAYOUTS = (
    "burgers",
    "darcy",
    "diffusion_reaction",
    "shallow_water",
    "diffusion_sorption",
    "fluid_1d",
    "fluid_2d",
    "fluid_3d",
    "incompressible",
)
SPLITS = {"train": 6, "validation": 3, "test": 3}


def converted(source: Path, out: Path) -> dict[str, Any]:
    kind: Any = {".zarr": "zarr", ".h5": "hdf5", ".npz": "npz"}[out.suffix]
    return convert_task(lambda at: None, str(source), str(out), kind, None, as_is=False)


def built(path: Path, **keys: Any) -> Any:
    """The dataset that recognises a file, with the table that `data inspect` shows."""
    (layout,) = layouts_task(lambda at: None, str(path))
    assert layout["problems"] == []
    table = {**layout["table"], **SPLITS, **keys}
    config, problems = config_of(discover(), layout["use"], table)
    assert problems == []
    return config.build(0)


def same_data(one: Any, other: Any) -> None:
    """Fields, splits, hashes, normalisation and batches of two datasets agree to the bit."""
    assert one.fields == other.fields
    assert one.splits == other.splits
    assert one.normaliser.to_dict() == other.normaliser.to_dict()
    steps = 1 if one.fields.steady else 2
    for split in SPLITS:
        windows = np.arange(min(5, one.windows(split, steps)))
        assert one.windows(split, steps) == other.windows(split, steps)
        first, second = one.batch(split, windows, steps), other.batch(split, windows, steps)
        for name in ("states", "positions", "condition", "ids", "times"):
            assert np.array_equal(getattr(first, name), getattr(second, name)), (split, name)
        assert np.array_equal(first.inputs.values, second.inputs.values)


def well(path: Path) -> Path:
    """Fields of all orders, one that does not change in time, scalars, and an axis with walls."""
    generator = np.random.default_rng(0)
    fields = {
        "density": (0, generator.normal(size=(12, 5, 8, 4)).astype(np.float32), {}),
        "velocity": (1, generator.normal(size=(12, 5, 8, 4, 2)).astype(np.float32), {}),
        "stress": (2, generator.normal(size=(12, 5, 8, 4, 2, 2)).astype(np.float32), {}),
        "wall": (0, generator.normal(size=(8, 4)).astype(np.float32), {"sample_varying": False, "time_varying": False}),
    }
    scalars = {"nu": (generator.random(12), True, False), "gamma": (1.4, False, False)}
    return write_well(path, fields, (8, 4), 5, 12, scalars, (True, False))


@pytest.mark.parametrize("ending", ["zarr", "h5"])
@pytest.mark.parametrize("layout", [*LAYOUTS, "well"])
def test_any_layout_converts_to_the_same_data(
    write_layout: WriteLayout, tmp_path: Path, layout: str, ending: str
) -> None:
    source = well(tmp_path / "waves.hdf5") if layout == "well" else write_layout(layout)[0]
    first, second = tmp_path / f"new.{ending}", tmp_path / f"back.{'h5' if ending == 'zarr' else 'zarr'}"
    done = converted(source, first)
    assert done["use"] == {"zarr": "grid_zarr", "h5": "pdebench"}[ending]
    original, periodic = built(source), {"periodic": True} if layout == "burgers" else {}
    same_data(original, built(first))
    converted(first, second)
    same_data(original, built(second))
    if layout == "burgers":  # the number that is a parameter where the recipe says so, and not else
        for path in (source, first, second):
            assert built(path, conditions=["Nu"], **periodic).conditions[:, 1].tolist() == [0.01] * 12


def test_what_stands_in_a_converted_store(tmp_path: Path) -> None:
    source = well(tmp_path / "waves.hdf5")
    done = converted(source, tmp_path / "new.zarr")
    group: Any = zarr.open_group(tmp_path / "new.zarr", mode="r")
    with h5py.File(source) as file:
        values = {"density": file["t0_fields/density"][()][..., None], "velocity": file["t1_fields/velocity"][()]}
        values["stress"] = file["t2_fields/stress"][()].reshape(12, 5, 8, 4, 4)
        for name, expected in values.items():
            assert np.array_equal(group[f"fields/{name}"][...], expected)
        wall = np.broadcast_to(file["t0_fields/wall"][()][..., None], (12, 8, 4, 1))
        assert np.array_equal(group["statics/wall"][...], wall)
        assert np.array_equal(group["time"][...], file["dimensions/time"][()])
        assert np.array_equal(group["coords/y"][...], file["dimensions/y"][()])
        assert np.array_equal(group["parameters/nu"][...], file["scalars/nu"][()])
    assert group["parameters/gamma"][...].tolist() == pytest.approx([1.4] * 12)
    assert group.attrs["periodic"] == [True, False]
    assert (done["arrays"], done["values"]) == (4, 12 * 5 * 32 * 7 + 12 * 32)


def test_units_and_the_simulator_go_along(tmp_path: Path, write_layout: WriteLayout) -> None:
    source, _ = write_layout("darcy")
    with h5py.File(source, "r+") as file:
        file["tensor"].attrs["units"], file["nu"].attrs["unit"] = "m", "m2/s"
        file.attrs["simulated_by"] = json.dumps({"simulator": "Nobody"})
    for name in ("new.zarr", "again.h5"):
        out = tmp_path / name
        converted(source, out)
        fields = built(out).fields
        assert [each.unit for each in (*fields.targets, *fields.statics)] == ["m", "m2/s"]
        assert json.loads(read_tree(out).attributes[""]["simulated_by"]) == {"simulator": "Nobody"}
        source = out


def test_an_archive_holds_every_value(tmp_path: Path) -> None:
    source = well(tmp_path / "waves.hdf5")
    done = converted(source, tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz", allow_pickle=False) as archive, h5py.File(source) as file:
        assert sorted(archive) == ["density", "gamma", "nu", "stress", "time", "velocity", "wall", "x", "y"]
        assert np.array_equal(archive["velocity"], file["t1_fields/velocity"][()])
        assert np.array_equal(archive["nu"], file["scalars/nu"][()])
        assert archive["wall"].shape == (12, 8, 4, 1)
    assert "units" in done["notes"][-1]


def test_a_run_on_a_converted_store_ends_where_one_on_the_source_does(
    write_layout: WriteLayout, tmp_path: Path
) -> None:
    source, _ = write_layout("fluid_1d")
    converted(source, tmp_path / "new.zarr")
    ends = []
    for use, path in (("pdebench", source), ("grid_zarr", tmp_path / "new.zarr")):
        recipe = tmp_path / f"{use}.toml"
        text = RECIPE.format(path=path, keys="").replace('use = "pdebench"', f'use = "{use}"')
        recipe.write_text(text.replace('name = "layout"', f'name = "{use}"'))
        ends.append(run(ups_kit.read_recipe(recipe).recipe).summary["metrics"])
    assert ends[0] == ends[1]


def test_float64_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.h5"
    with h5py.File(source, "w") as file:
        file["tensor"] = np.random.default_rng(0).random((4, 3, 8))
        file["x-coordinate"], file["t-coordinate"] = np.arange(8) / 8, np.arange(3.0)
    assert "are written as float32" in converted(source, tmp_path / "a.zarr")["notes"][0]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB through blocks of 1 MB and shards of 2 MB; compared afterwards."""
    source = tmp_path / "a.h5"
    with h5py.File(source, "w") as file:
        for name in ("Vx", "density"):
            array = file.create_dataset(name, (8, 64, 128, 128), "f4")
            for sample in range(8):
                array[sample] = np.random.default_rng(sample).random((64, 128, 128), np.float32)
        file["x-coordinate"] = file["y-coordinate"] = np.arange(128) / 128
        file["t-coordinate"] = np.arange(64.0)
    monkeypatch.setattr(gridded, "BLOCK_VALUES", 2**18)
    monkeypatch.setattr("ups_kit.data.grid_store.SHARD_BYTES", 2**21)
    monkeypatch.setattr(chunks, "_PROCESS", [chunks._Process(cache=chunks.ChunkCache(2**22))])
    converted(source, tmp_path / "warm.npz")
    for ending in ("zarr", "h5", "npz"):
        tracemalloc.start()
        converted(source, tmp_path / f"new.{ending}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 2**20, (ending, peak)


def test_a_value_that_does_not_come_back_is_told(
    write_layout: WriteLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = write_layout("fluid_1d")

    def damaging(path: Path) -> None:
        if path.suffix == ".h5":
            with h5py.File(path, "r+") as file:
                file["pressure"][7, 3, 2] += 1
        elif path.suffix == ".npz":
            content = bytearray(path.read_bytes())
            place = content.rindex(b"\x93NUMPY")
            content[place + 300] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(gridded, "sync_all", damaging)
    with pytest.raises(StorageError, match=r"array 'pressure' \[0:12.*differs from what was written"):
        converted(source, tmp_path / "new.h5")
    with pytest.raises(StorageError, match=r"differs from what was written"):
        converted(source, tmp_path / "new.npz")

    def shifted(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["t-coordinate"][...] += 0.5

    monkeypatch.setattr(gridded, "sync_all", shifted)
    with pytest.raises(StorageError, match="the times that were read again differ"):
        converted(source, tmp_path / "other.h5")


def test_what_a_format_cannot_hold_is_refused(write_layout: WriteLayout, tmp_path: Path) -> None:
    source, _ = write_layout("darcy")
    with h5py.File(source, "r+") as file:
        file["x"] = np.arange(12.0)  # a parameter with the name of an axis
    with pytest.raises(DataError, match="two arrays would be called 'x'"):
        converted(source, tmp_path / "new.npz")
    converted(source, tmp_path / "new.zarr")
    assert list(built(tmp_path / "new.zarr").fields.conditions) == ["dt", "x"]


def test_a_known_file_with_a_fault_is_told_and_copied_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "a.h5"
    with h5py.File(source, "w") as file:
        file["tensor"] = np.zeros((4, 3, 8), np.float32)
        file["x-coordinate"], file["t-coordinate"] = np.arange(8.0), np.array([0.0, 2.0, 1.0])
    with pytest.raises(DataError, match=r"'t-coordinate' does not rise.*`--as-is` copies"):
        convert_file(source, tmp_path / "new.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    done = convert_file(source, tmp_path / "new.zarr", as_is=True)
    assert done["arrays"] == 3
    assert "use" not in done
