"""States of grids on other points: what is stored comes as it is, the rest as good as splines are."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ups_kit.data.discretisations import grid_points
from ups_kit.errors import DataError
from ups_kit.interfaces import Relays
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset

SIZE = (32, 16)


def fields(places: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two fields that are periodic in the unit square, (F, N, 2)."""
    x, y = 2 * np.pi * places.T
    first = np.sin(x - 3 * times[:, None]) * np.cos(y)
    return np.stack([first, np.cos(2 * x + times[:, None]) + 0 * y], -1)


def coefficient(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 + 0.5 * np.cos(2 * np.pi * places[:, 1]))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("relay") / "fields.h5"
    axes = [(np.arange(size) + 0.5) / size for size in SIZE]
    places, times = grid_points(axes), 0.1 * np.arange(7)
    with h5py.File(path, "w") as file:
        for sample in range(8):
            group = file.create_group(f"{sample:04d}")
            group["data"] = fields(places, times + sample).reshape(7, *SIZE, 2).astype(np.float32)
            group["grid/x"], group["grid/y"], group["grid/t"] = axes[0], axes[1], times
    return path


def dataset(path: Path, stride: int = 1, periodic: bool = True) -> GridDataset:
    keys = {"validation": 1, "test": 3, "periodic": periodic, "fields": ("a", "b")}
    return PDEBenchConfig(path=path, space_stride=stride, time_stride=2, **keys).build(0)  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_recipes_own_points_are_its_own_trajectories(stored: Path, stride: int) -> None:
    data = dataset(stored, stride)
    assert isinstance(data, Relays)
    own, relaid = data.trajectories("test", 2), data.relay("test", "grid", data.fields.points or 0, 2)
    assert relaid.grid == data.fields.grid
    assert relaid.error == 0
    assert relaid.cells is None
    for name, found in own._asdict().items():
        if isinstance(found, torch.Tensor):
            assert torch.equal(getattr(relaid.trajectories, name), found), name


def test_what_trains_at_a_stride_is_evaluated_at_the_files_full_resolution(stored: Path) -> None:
    fine, coarse = dataset(stored), dataset(stored, 4)
    relaid = coarse.relay("test", "grid", 512)
    assert relaid.grid == SIZE
    assert relaid.error == 0
    own = fine.trajectories("test")
    assert torch.equal(relaid.trajectories.values, own.values)
    assert torch.equal(relaid.trajectories.positions, own.positions)


def test_every_third_cell_centre_is_a_cell_centre_and_every_second_is_not(tmp_path: Path) -> None:
    path, centres = tmp_path / "waves.h5", (np.arange(36) + 0.5) / 36
    with h5py.File(path, "w") as file:
        file["tensor"] = np.random.default_rng(0).normal(size=(4, 3, 36)).astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = centres, np.arange(3.0)
    data = PDEBenchConfig(path=path, validation=1, test=1, periodic=True).build(0)
    for count, offset, first in ((12, 0.5, 1), (18, 0.25, 0), (72, 0.5, None)):
        offer, held = data.offer("test", "grid", count), data.relay("test", "grid", count).trajectories
        assert (offer.grid, offer.offset) == ((count,), offset)
        assert torch.allclose(held.positions[:, 0], (torch.arange(count) + offset) / count)
        if first is not None:
            assert torch.equal(held.values, data.trajectories("test").values[:, :, first :: 36 // count])


@pytest.mark.parametrize("layout", ["grid", "mesh", "particles"])
@pytest.mark.parametrize("periodic", [True, False])
def test_other_points_get_the_fields_that_are_there(stored: Path, layout: str, periodic: bool) -> None:
    data = dataset(stored, periodic=periodic)
    relaid = data.relay("test", layout, 700)  # type: ignore[arg-type]
    offer = data.offer("test", layout, 700)  # type: ignore[arg-type]
    held = relaid.trajectories
    assert held.positions.shape == (offer.points, 2)
    assert offer.grid == relaid.grid == ((37, 19) if layout == "grid" else None)
    assert held.positions.min() >= 0
    assert held.positions.max() <= 1
    true = np.stack([fields(held.positions.double().numpy(), 0.1 * np.arange(0, 7, 2) + i) for i in held.ids.tolist()])
    error = float(np.sqrt(((held.values.numpy() - true) ** 2).mean() / (true**2).mean()))
    assert error < (5e-4 if periodic else 5e-3)
    assert error < relaid.error < 0.3  # an upper bound
    assert (relaid.cells is not None) == (layout == "mesh")
    if relaid.cells is not None:
        assert len(relaid.cells) == 3
        assert relaid.cells[0].max() == offer.points - 1


def test_the_error_that_is_told_falls_with_the_resolution(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "steady.h5"
    errors = []
    for size in (16, 32, 64):
        axes = [(np.arange(size) + 0.5) / size] * 2
        places = grid_points(axes)
        with h5py.File(path, "w") as file:
            states = fields(places, np.arange(6.0))[..., 0].reshape(6, 1, size, size)
            file["tensor"] = states.astype(np.float32)
            file["nu"] = np.stack([coefficient(places).reshape(size, size)] * 6).astype(np.float32) * np.arange(1, 7)[
                :, None, None
            ].astype(np.float32)
            file["x-coordinate"], file["y-coordinate"], file["t-coordinate"] = *axes, np.zeros(1)
        data = PDEBenchConfig(path=path, validation=1, test=2, periodic=True).build(0)
        relaid = data.relay("test", "particles", 200)
        found = relaid.trajectories.statics[0, :, 0].numpy()
        true = coefficient(relaid.trajectories.positions.double().numpy()) * (int(relaid.trajectories.ids[0]) + 1)
        assert np.abs(found - true).max() < 10 * relaid.error
        errors.append(relaid.error)
    assert errors[0] / errors[1] > 10  # of fourth order
    assert errors[1] / errors[2] > 10


@pytest.mark.parametrize(
    ("layout", "points", "near"), [("grid", 3, 4), ("mesh", 2, 3), ("particles", 1 << 30, 1 << 24), ("mesh", 0, 3)]
)
def test_points_that_cannot_be_had_are_told_with_the_nearest(stored: Path, layout: str, points: int, near: int) -> None:
    with pytest.raises(
        DataError, match=f"{points} points as {layout} cannot be had of these data; nearest: {near}"
    ) as error:
        dataset(stored).offer("test", layout, points)  # type: ignore[arg-type]
    assert error.value.key == "points"
