"""What all simulators promise: the public layout, a pure function of seed and number, and the fields they describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve

from ups_kit import DataError
from ups_kit.data.making import make
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.simulators import ups_kit_components
from ups_plugins.simulators.config import (
    Advection1DConfig,
    Burgers1DConfig,
    Darcy2DConfig,
    DiffusionReaction1DConfig,
    DiffusionReaction2DConfig,
    KdV1DConfig,
    KS1DConfig,
    NavierStokes2DConfig,
    ShallowWater2DConfig,
)

FEW: dict[str, Any] = {"trajectories": 6, "frames": 3, "device": "cpu"}
SMALL: dict[str, Any] = {
    "advection1d": Advection1DConfig(points=16, **FEW),
    "burgers1d": Burgers1DConfig(points=16, refinement=2, **FEW),
    "diffusion_reaction1d": DiffusionReaction1DConfig(points=16, **FEW),
    "kdv1d": KdV1DConfig(points=32, duration=1.0, **FEW),
    "ks1d": KS1DConfig(points=64, duration=1.0, warmup=1.0, **FEW),
    "darcy2d": Darcy2DConfig(trajectories=6, points=8, device="cpu"),
    "darcy2d, drawn": Darcy2DConfig(trajectories=6, points=8, beta=(0.1, 10.0), device="cpu"),
    "diffusion_reaction2d": DiffusionReaction2DConfig(points=8, duration=0.1, k=(1e-3, 1e-2), **FEW),
    "shallow_water2d": ShallowWater2DConfig(points=8, duration=0.1, **FEW),
    "navier_stokes2d": NavierStokes2DConfig(points=16, duration=0.1, **FEW),
    "navier_stokes2d, forced": NavierStokes2DConfig(
        points=16, duration=0.1, forcing="kolmogorov", waves=2, seed=5, **FEW
    ),
    "navier_stokes2d, vorticity": NavierStokes2DConfig(points=16, duration=0.1, store="vorticity", **FEW),
}


def solved(config: Any, start: int, stop: int) -> dict[str, np.ndarray]:
    return dict(config.build().solve(start, stop, lambda share: None))


def test_every_simulator_is_here() -> None:
    assert {name.split(",")[0] for name in SMALL} == set(ups_kit_components()["simulator"])


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_pure_function_of_seed_and_number(config: Any) -> None:
    some, more = solved(config, 2, 5), solved(evolve(config, trajectories=100), 0, 6)
    other = solved(evolve(config, seed=1), 2, 5)
    for name, values in some.items():
        np.testing.assert_array_equal(values, more[name][2:5], err_msg=name)
    field = next(name for name in ("tensor", "data", "velocity") if name in some)
    assert np.abs(some[field] - other[field]).max() > 0.01
    assert np.abs(some[field][0] - some[field][1]).max() > 0.01


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_describes_what_it_writes(config: Any, tmp_path: Path) -> None:
    path, counts = tmp_path / "made.h5", {"train": 4, "validation": 1, "test": 1}
    dataset = PDEBenchConfig(path=path, simulate=config, **counts)
    before = dataset.describe()
    assert not path.exists()
    make(path, config)
    assert dataset.describe() == before
    assert abs(path.stat().st_size - config.build().bytes) < 2**17
    built = dataset.build(0)
    assert built.fields == before
    assert before.history == (0 if "Darcy" in type(config).__name__ else 1)
    with h5py.File(path) as file:
        record = json.loads(file.attrs["simulated_by"])
    assert record["simulator"] == type(config).__name__
    assert "device" not in record


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_a_gpu_gives_the_same_numbers(config: Any) -> None:
    cpu, gpu = solved(config, 0, 6), solved(evolve(config, device="cuda"), 0, 6)
    for name, values in cpu.items():
        np.testing.assert_allclose(gpu[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def written(config: Any, path: Path) -> h5py.File:
    make(path, config)
    return h5py.File(path)


def test_layout_of_trajectories_as_one_tensor(tmp_path: Path) -> None:
    with written(evolve(SMALL["kdv1d"], length=8.0), tmp_path / "a.h5") as file:
        assert set(file) == {"tensor", "x-coordinate", "t-coordinate", "delta"}
        assert (file["tensor"].shape, file["tensor"].dtype, file["tensor"].chunks) == ((6, 3, 32), np.float32, None)
        np.testing.assert_allclose(file["x-coordinate"], (np.arange(32) + 0.5) / 4)
        np.testing.assert_allclose(file["t-coordinate"], [0, 0.5, 1, 1.5])
        assert file["delta"].shape == (6,)


def test_layout_of_groups(tmp_path: Path) -> None:
    with written(SMALL["diffusion_reaction2d"], tmp_path / "a.h5") as file:
        assert list(file) == [f"{number:04d}" for number in range(6)]
        group = file["0003"]
        assert (group["data"].shape, group["data"].dtype) == ((3, 8, 8, 2), np.float32)
        np.testing.assert_allclose(group["grid/y"], -1 + (np.arange(8) + 0.5) / 4, rtol=1e-6)
        np.testing.assert_allclose(group["grid/t"], [0, 0.05, 0.1])
        lines = dict(line.split(": ") for line in group.attrs["config"].splitlines())
        assert (float(lines["Du"]), float(lines["Dv"]), int(lines["seed"])) == (1e-3, 5e-3, 3)
        assert float(lines["k"]) == group.attrs["k"]
        assert 1e-3 < group.attrs["k"] < 1e-2
    with written(SMALL["shallow_water2d"], tmp_path / "b.h5") as file:
        assert file["0005/data"].shape == (3, 8, 8, 1)
        assert 0.3 < file["0005"].attrs["radius"] < 0.7
        np.testing.assert_allclose(file["0000/grid/x"], -2.5 + 5 * (np.arange(8) + 0.5) / 8, rtol=1e-6)


def test_layout_of_darcy_flow(tmp_path: Path) -> None:
    with written(SMALL["darcy2d"], tmp_path / "a.h5") as file:
        assert (file["tensor"].shape, file["nu"].shape) == ((6, 1, 8, 8), (6, 8, 8))
        assert file.attrs["beta"] == 1.0
        assert "beta" not in file
        assert set(np.unique(file["nu"])) == {np.float32(0.1), np.float32(1.0)}
    with written(SMALL["darcy2d, drawn"], tmp_path / "b.h5") as file:
        assert file["beta"].shape == (6,)
        assert "beta" not in file.attrs


def test_layout_of_incompressible_flow(tmp_path: Path) -> None:
    with written(SMALL["navier_stokes2d, forced"], tmp_path / "a.h5") as file:
        assert (file["velocity"].shape, file["force"].shape) == ((6, 3, 16, 16, 2), (6, 16, 16, 2))
        assert (file["t"].shape, file["nu"].shape) == ((6, 3), (6,))
        np.testing.assert_allclose(file["t"][4], [0, 0.05, 0.1])
        force = np.asarray(file["force"])
        np.testing.assert_allclose(np.sqrt((force**2).sum(-1).mean((1, 2))), 2 / np.sqrt(2), rtol=1e-5)
        assert ((force != 0).any((1, 2)).sum(1) == 1).all()  # along x or along y
    with written(SMALL["navier_stokes2d, vorticity"], tmp_path / "b.h5") as file:
        assert set(file) == {"tensor", "nu", "x-coordinate", "y-coordinate", "t-coordinate"}


@pytest.mark.parametrize(
    ("config", "name", "logarithmic"),
    [
        (evolve(SMALL["advection1d"], beta=(-1.0, 3.0)), "beta", False),
        (evolve(SMALL["darcy2d"], beta=(0.01, 100.0)), "beta", True),
        (evolve(SMALL["navier_stokes2d"], nu=(1e-4, 1e-2), duration=0.01), "nu", True),
        (evolve(SMALL["shallow_water2d"], radius=(0.3, 0.7), duration=0.01), "radius", False),
    ],
    ids=["advection1d", "darcy2d", "navier_stokes2d", "shallow_water2d"],
)
def test_parameters_are_drawn_evenly(config: Any, name: str, logarithmic: bool) -> None:
    drawn, bounds = solved(config, 0, 300)[name], np.array(getattr(config, name))
    low, high = np.log(bounds) if logarithmic else bounds
    places = ((np.log(drawn) if logarithmic else drawn) - low) / (high - low)
    assert 0 <= places.min() < places.max() <= 1
    assert abs(places.mean() - 0.5) < 0.05
    assert abs(places.std() - 1 / np.sqrt(12)) < 0.02
    one = solved(evolve(config, **{name: 0.5}), 0, 2)
    np.testing.assert_array_equal(one[name], 0.5)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (Advection1DConfig, "beta", (2.0, 1.0)),
        (Advection1DConfig, "beta", float("nan")),
        (Darcy2DConfig, "beta", 0.0),
        (DiffusionReaction1DConfig, "rho", (-1.0, 1.0)),
        (NavierStokes2DConfig, "nu", (0.0, 1.0)),
        (NavierStokes2DConfig, "step", 0.0),
        (ShallowWater2DConfig, "points", 31),
        (KS1DConfig, "step", float("inf")),
    ],
)
def test_impossible_settings_are_refused(config: Any, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        config(**{key: value})


def test_a_flow_that_blows_up_leaves_no_file(tmp_path: Path) -> None:
    config = evolve(SMALL["navier_stokes2d"], duration=100.0, nu=1e-6, step=50.0)
    with pytest.raises(DataError, match=r"'velocity' of trajectory \d does not stay finite .* smaller time step"):
        make(tmp_path / "a.h5", config)
    assert not (tmp_path / "a.h5").exists()
