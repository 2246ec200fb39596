"""The Well's files and Zarr stores are trained on: a shrunken run each, from separate folders to the summary."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ups_kit
from ups_kit.data.grid_store import GridStore, write_grid_store
from ups_kit.errors import DataError
from ups_kit.run import run
from ups_plugins.grid.formats import GridZarrConfig, WellConfig

from .test_training_layouts import RECIPE
from .well_files import write_well

TRAJECTORIES, FRAMES, GRID = 6, 5, (8, 12)


def values(name: str, trajectories: int) -> NDArray[np.float32]:
    generator = np.random.default_rng([*name.encode()])
    return generator.standard_normal((trajectories, FRAMES, *GRID, 2), dtype=np.float32)


def write_as_well(folder: Path, split: str, trajectories: int) -> None:
    velocity = values(split, trajectories)
    fields = {
        "density": (0, velocity[..., 0] + 2, {}),
        "mask": (0, velocity[0, 0, ..., 1], {"sample_varying": False, "time_varying": False}),
        "velocity": (1, velocity, {}),
    }
    tilt = np.linspace(0.0, 1.0, trajectories)
    path = folder / "data" / split / "waves.hdf5"
    write_well(path, fields, GRID, FRAMES, trajectories, {"tilt": (tilt, True, False)}, (True, False))


def write_as_zarr(folder: Path, split: str, trajectories: int) -> None:
    velocity = values(split, trajectories)
    store = GridStore(
        trajectories=trajectories,
        axes={name: (np.arange(size) + 0.5) / size for name, size in zip("xy", GRID, strict=True)},
        times=0.1 * np.arange(FRAMES),
        fields={"velocity": 2},
        statics={"mask": 1},
        parameters={"tilt": np.linspace(0.0, 1.0, trajectories)},
        periodic=(True, False),
    )
    write_grid_store(
        folder / "data" / split / "waves.zarr",
        store,
        lambda kind, name, own, frames: velocity[own, frames] if kind == "fields" else velocity[own, 0, ..., :1],
    )


@pytest.mark.parametrize(("use", "ending"), [("well", "hdf5"), ("grid_zarr", "zarr")])
def test_a_shrunken_run(tmp_path: Path, use: str, ending: str) -> None:
    write = {"well": write_as_well, "grid_zarr": write_as_zarr}[use]
    for split, count in (("train", TRAJECTORIES), ("valid", 3), ("test", 3)):
        write(tmp_path, split, count)
    recipe = tmp_path / "recipe.toml"
    keys = f'validation_path = "data/valid/*.{ending}"\ntest_path = "data/test/*.{ending}"'
    text = RECIPE.format(path=f"data/train/*.{ending}", keys=keys).replace('use = "pdebench"', f'use = "{use}"')
    recipe.write_text(text)
    read = ups_kit.read_recipe(recipe, [f"run.folder={tmp_path / 'runs'}"])
    finished = run(read.recipe)
    assert math.isfinite(finished.summary["metrics"]["one_step"]["nrmse"])
    fields = read.recipe.dataset.describe()
    assert fields.conditions == ("dt", "tilt")
    assert fields.periodic == (True, False)


@pytest.mark.parametrize(("config", "ending"), [(WellConfig, "hdf5"), (GridZarrConfig, "zarr")])
def test_each_split_is_drawn_from_its_own_files(tmp_path: Path, config: type, ending: str) -> None:
    for split, count in (("train", TRAJECTORIES), ("valid", 3), ("test", 4)):
        (write_as_well if ending == "hdf5" else write_as_zarr)(tmp_path, split, count)
    paths = {
        key: tmp_path / "data" / split / f"waves.{ending}"
        for key, split in (("path", "train"), ("validation_path", "valid"), ("test_path", "test"))
    }
    dataset = config(**paths, validation=3, test=4).build(0)
    for split, folder, count in (("train", "train", TRAJECTORIES), ("validation", "valid", 3), ("test", "test", 4)):
        found = dataset.trajectories(split).values[..., -2:].numpy().reshape(-1, FRAMES, *GRID, 2)
        np.testing.assert_array_equal(found, values(folder, count))
    with pytest.raises(DataError, match="4"):
        config(**paths, validation=4, test=4).build(0)
    problems = dict(config(**paths, validation=4, test=4).check(dataset.fields, None))
    assert "waves" in problems["validation"]
