"""States of scattered points elsewhere in their domain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit.data.discretisations import mesh_nodes, triangles
from ups_kit.data.points.relaying import farthest, inside, within
from ups_kit.errors import DataError

HOLE = 0.2  # radius, in the middle of the unit square


@pytest.fixture(scope="module")
def clouds() -> Iterator[ModuleType]:
    """tests/points/clouds.py."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "points"))
    yield import_module("clouds")
    sys.path.pop(0)


@cache
def mesh(count: int, hole: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    nodes = mesh_nodes(((0.0, 1.0), (0.0, 1.0)), (False, False), count)
    if hole:
        nodes = nodes[((nodes - 0.5) ** 2).sum(1) > HOLE**2]
        turn = 2 * np.pi * np.arange(24) / 24
        nodes = np.concatenate([nodes, 0.5 + HOLE * np.stack([np.cos(turn), np.sin(turn)], -1)])
    cells = triangles(nodes)
    assert cells is not None
    middles = nodes[cells].mean(1)
    return nodes, cells[((middles - 0.5) ** 2).sum(1) > (0.98 * HOLE) ** 2] if hole else cells


@pytest.fixture(scope="module")
def make(clouds: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Datasets of waves on meshes: `make(nodes, hole)`; or of drifting points: `make(None)`."""

    @frozen(eq=False)
    class Meshes(clouds.Cloud):  # type: ignore[name-defined,misc]
        hole: bool = False

        def _begin(self, number: int) -> NDArray[np.float32]:
            return self._mesh(number)[0].astype(np.float32)

        def _mesh(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            return mesh(300 + number % 5, self.hole)

        def cells(self, number: int) -> NDArray[np.int64]:
            return self._mesh(number)[1]

        def values(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
            return wave(self._begin(number), frames, number).astype(np.float32)

    def build(kind: str) -> Any:
        every = np.arange(8, dtype=np.int64)
        folder = tmp_path_factory.mktemp(kind)
        if kind == "moving":
            return clouds.dataset(folder, clouds.cloud(8, moves=True))
        found = Meshes(every, 0 * every + 4, layout="mesh", hole=kind == "hole")
        counts = np.asarray([len(found._mesh(number)[0]) for number in every])
        return clouds.dataset(folder, Meshes(counts, found.frames, layout="mesh", hole=kind == "hole"))

    return build


def wave(places: NDArray[np.floating], frames: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    x, y = places.astype(np.float64).T
    height = np.sin(4 * x + 0.3 * frames[:, None] + number) * np.cos(3 * y)
    return np.stack([np.sin(3 * x) + 0 * height, np.cos(3 * y) + 0 * height, height], -1)


@pytest.fixture(scope="module")
def meshes(make: Any) -> Any:
    return make("mesh")


def test_fewer_nodes_of_a_mesh_are_its_own(meshes: Any) -> None:
    own, relaid = meshes.trajectories("test"), meshes.relay("test", "mesh", 150)
    held = relaid.trajectories
    assert held.values.shape == (3, 4, 150, 3)
    assert relaid.error == 0
    assert torch.equal(held.ids, own.ids)
    for row in range(3):
        away = torch.cdist(held.positions[row].double(), own.positions[row].double())
        at = away.argmin(1)
        assert float(away.gather(1, at[:, None]).max()) < 1e-6
        assert len(set(at.tolist())) == 150
        assert torch.equal(held.values[row], own.values[row][:, at])
        assert torch.equal(held.statics[row], own.statics[row][at])
        spread = torch.cdist(held.positions[row].double(), held.positions[row].double()) + torch.eye(150)
        assert float(spread.min()) > 0.5 / 150**0.5
        assert relaid.cells is not None
        assert relaid.cells[row].max() == 149


@pytest.mark.parametrize(("layout", "points"), [("mesh", 500), ("particles", 250), ("particles", 900), ("grid", 400)])
def test_places_between_nodes_are_interpolated(meshes: Any, layout: Any, points: int) -> None:
    relaid = meshes.relay("test", layout, points)
    held = relaid.trajectories
    assert held.values.shape[2] == points
    assert (relaid.grid == (20, 20)) == (layout == "grid")
    for row, number in enumerate(held.ids.tolist()):
        places = (held.positions if layout == "grid" else held.positions[row]).numpy()
        true = wave(places, np.arange(4), number)
        error = np.sqrt(((held.values[row].numpy() - true) ** 2).mean() / (true**2).mean())
        assert error < 2e-3
        assert error < relaid.error < 0.05
    again = meshes.relay("test", layout, points).trajectories
    assert torch.equal(again.values, held.values)


def test_points_are_within_a_domain_with_a_hole(make: Any) -> None:
    data = make("hole")
    for layout, points in (("particles", 400), ("mesh", 400), ("mesh", 100)):
        relaid = data.relay("test", layout, points)
        away = (relaid.trajectories.positions - 0.5).norm(dim=-1)
        assert float(away.min()) > 0.97 * HOLE
        for row, cells in enumerate(relaid.cells or ()):
            middles = relaid.trajectories.positions[row].numpy()[cells].mean(1)
            assert np.linalg.norm(middles - 0.5, axis=1).min() > 0.6 * HOLE
    with pytest.raises(DataError, match=r"cover 87\.\d % of the domain's box.*nearest: --on mesh or --on particles"):
        data.offer("test", "grid", 100)


def test_fewer_particles_are_some_of_them(make: Any) -> None:
    data = make("moving")
    own, relaid = data.trajectories("test"), data.relay("test", "particles", 10)
    few = data.relay("test", "particles", 5).trajectories.positions[:, 0]
    held = relaid.trajectories
    assert held.positions.shape == (3, own.positions.shape[1], 10, 2)
    for row in range(3):
        at = torch.cdist(held.positions[row, 0].double(), own.positions[row, 0].double()).argmin(1)
        assert len(set(at.tolist())) == 10
        assert torch.equal(held.positions[row], own.positions[row][:, at])
        assert torch.equal(held.values[row], own.values[row][:, at])
        assert {tuple(each) for each in few[row].tolist()} < {tuple(each) for each in held.positions[row, 0].tolist()}
    with pytest.raises(DataError, match=r"99 points as particles cannot be had of these data; nearest: 1\d"):
        data.offer("test", "particles", 99)
    with pytest.raises(DataError, match="these points move, and have no states elsewhere; nearest: --on particles"):
        data.offer("test", "mesh", 10)


def test_places_are_drawn_by_area_and_found_again() -> None:
    nodes, cells = mesh(200, True)
    places = within(nodes, cells, 4000, seed=3)
    assert (places[:100] == within(nodes, cells, 100, seed=3)).all()
    assert inside(nodes, cells, places).all()
    assert not inside(nodes, cells, np.asarray([[0.5, 0.5], [1.2, 0.5]])).any()
    left = (places[:, 0] < 0.5).mean()
    assert abs(left - 0.5) < 0.03
    assert (farthest(nodes, 60)[:20] == farthest(nodes, 20)).all()
