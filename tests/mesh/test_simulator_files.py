"""Flow past random obstacles: what is drawn, meshed and stored, and what is said of keys that do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from ups_kit import DataError
from ups_kit.data.making import make
from ups_plugins.mesh.flow.config import ObstacleFlow2DConfig
from ups_plugins.mesh.flow.meshing import INFLOW, INTERIOR, OBSTACLE, OUTFLOW, WALL, least_angles
from ups_plugins.mesh.flow.obstacles import Obstacle, Room, distance_to
from ups_plugins.mesh.flow.simulation import ObstacleFlow
from ups_plugins.mesh.flow.starting import Start, inflow

pytest.importorskip("skfem")

SMALL = ObstacleFlow2DConfig(
    trajectories=3, points=300, frames=3, duration=0.1, warmup=0.02, length=1.4, obstacles=(1, 2), radius=(0.09, 0.11)
)


def silent(share: float) -> None:
    pass


@pytest.fixture(scope="module")
def solved() -> dict[str, np.ndarray]:
    return dict(ObstacleFlow(SMALL).solve(0, 3, silent))


def test_trajectories_are_functions_of_seed_and_number(solved: dict[str, np.ndarray]) -> None:
    """Whatever others are solved beside it; another seed gives another mesh, flow and viscosity."""
    simulator = ObstacleFlow(SMALL)
    alone = simulator.trajectory(1)
    nodes, cells = solved["counts"][1]
    np.testing.assert_array_equal(solved["velocity"][1, :, :nodes], alone["velocity"])
    np.testing.assert_array_equal(solved["pressure"][1, :, :nodes], alone["pressure"])
    np.testing.assert_array_equal(solved["coords"][1, :nodes], alone["coords"])
    np.testing.assert_array_equal(solved["cells"][1, :cells], alone["cells"])
    assert not solved["velocity"][1, :, nodes:].any()
    assert len(np.unique(solved["nu"])) == 3
    other = ObstacleFlow(evolve(SMALL, seed=7)).draw(1)
    assert other.viscosity != solved["nu"][1, 0]
    # more frames later on change nothing of what was drawn
    longer = ObstacleFlow(evolve(SMALL, frames=30, trajectories=99)).draw(1)
    np.testing.assert_array_equal(longer.mesh.nodes, alone["coords"])


def test_flows_move_and_keep_their_borders(solved: dict[str, np.ndarray]) -> None:
    for place, (nodes, _) in enumerate(solved["counts"]):
        velocity, kinds = solved["velocity"][place, :, :nodes], solved["node_type"][place, :nodes]
        coords = solved["coords"][place, :nodes]
        assert np.isfinite(velocity).all()
        assert not velocity[:, (kinds == WALL) | (kinds == OBSTACLE)].any()
        given = np.broadcast_to(inflow(coords[kinds == INFLOW]), velocity[:, kinds == INFLOW].shape)
        np.testing.assert_allclose(velocity[:, kinds == INFLOW], given, atol=1e-7)
        change = np.sqrt(((velocity[-1] - velocity[0]) ** 2).mean() / (velocity[-1] ** 2).mean())
        assert 0.02 < change < 2
        assert 0.3 < np.sqrt((velocity**2).mean()) < 2


@pytest.mark.parametrize("number", range(6))
def test_meshes_are_channels_around_their_obstacles(number: int) -> None:
    """Their area is the channel's less the obstacles', angles are not sharp, borders lie where they are said to."""
    simulator = ObstacleFlow(evolve(SMALL, points=500, length=2.0, obstacles=(1, 3)))
    drawn = simulator.draw(number)
    mesh = drawn.mesh
    corners = mesh.nodes[mesh.cells]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    assert (areas > 0).all()
    ellipses = sum(np.pi * one.axes[0] * one.axes[1] for one in drawn.obstacles)
    assert areas.sum() == pytest.approx(2 - ellipses, abs=0.1 * ellipses)
    assert areas.sum() > 2 - ellipses  # polygons inside of the ellipses
    assert mesh.angles.min() > 20
    x, y = mesh.nodes.T
    away = distance_to(drawn.obstacles, mesh.nodes)
    np.testing.assert_allclose(away[mesh.kinds == OBSTACLE], 0, atol=1e-12)
    assert away[mesh.kinds != OBSTACLE].min() > 0.01
    assert (x[mesh.kinds == INFLOW] == 0).all()
    assert (x[mesh.kinds == OUTFLOW] == 2).all()
    assert np.isin(y[mesh.kinds == WALL], (0, 1)).all()
    inner = mesh.nodes[mesh.kinds == INTERIOR]
    assert ((inner > 0) & (inner < [2, 1])).all()
    assert len(np.unique(mesh.nodes, axis=0)) == len(mesh.nodes)
    assert 0.8 < len(mesh.nodes) / 500 < 1.2


def test_obstacles_keep_their_gaps() -> None:
    room = Room(2.0, 0.15, 0.2, 0.5)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    for seed in range(20):
        found = room.draw(3, (0.08, 0.13), (1.0, 1.6), np.random.default_rng(seed), "here")
        borders = [one.border(angles) for one in found]
        for number, border in enumerate(borders):
            assert border[:, 0].min() > 0.199
            assert border[:, 0].max() < 1.501
            assert border[:, 1].min() > 0.149
            assert border[:, 1].max() < 0.851
            for other in borders[:number]:
                assert np.linalg.norm(border[:, None] - other[None], axis=-1).min() > 0.145


def test_distance_to_an_ellipse() -> None:
    circle, ellipse = Obstacle((0.3, 0.4), (0.1, 0.1)), Obstacle((0.3, 0.4), (0.15, 0.1), 0.7)
    places = np.random.default_rng(0).random((50, 2))
    np.testing.assert_allclose(circle.distance(places), np.hypot(*(places - [0.3, 0.4]).T) - 0.1, atol=1e-12)
    near = ellipse.border(np.linspace(0, 6, 40))
    np.testing.assert_allclose(ellipse.distance(near), 0, atol=1e-12)
    border = ellipse.border(np.linspace(0, 2 * np.pi, 4000))
    places = np.random.default_rng(0).uniform(0.1, 0.6, (300, 2))
    exact = np.linalg.norm(places[:, None] - border[None], axis=-1).min(1)
    close = (exact < 0.04) & (ellipse.distance(places) > 0)
    assert close.any()
    np.testing.assert_allclose(ellipse.distance(places)[close], exact[close], rtol=0.2)


def test_the_first_velocity() -> None:
    """Free of divergence, the inflow's profile far from obstacles, and at rest on these and on walls."""
    obstacle = Obstacle((0.6, 0.5), (0.12, 0.1), 0.3)
    start = Start.draw((obstacle,), 0.15, 2.0, 0.3, np.random.default_rng(1))
    step = 1e-3
    places = np.random.default_rng(2).random((200, 2)) * [1.9, 0.98] + [0.05, 0.01]
    right, up = np.array([step, 0.0]), np.array([0.0, step])
    along = start.velocity(places + right) - start.velocity(places - right)
    across = start.velocity(places + up) - start.velocity(places - up)
    divergence = (along[:, 0] + across[:, 1]) / (2 * step)
    assert np.abs(divergence).max() < 0.01 * np.abs((along[:, 1] - across[:, 0]) / (2 * step)).max()
    np.testing.assert_allclose(start.velocity(obstacle.border(np.linspace(0, 6, 30))), 0, atol=1e-6)
    y = np.linspace(0, 1, 11)
    np.testing.assert_allclose(start.velocity(np.stack([0 * y, y], 1))[:, 0], 4 * y * (1 - y), atol=1e-6)
    still = Start.draw((), 0.15, 2.0, 0.0, np.random.default_rng(1))
    x = np.linspace(0, 2, 11)
    np.testing.assert_allclose(still.velocity(np.stack([x, 0 * x + 0.25], 1)), np.tile([0.75, 0.0], (11, 1)), atol=1e-6)


def test_stores_are_made_and_read(tmp_path: Path) -> None:
    config = evolve(SMALL, trajectories=3, frames=3)
    path = tmp_path / "flows.zarr"
    make(path, config)
    from ups_kit.plugins import discover

    dataset = discover()["dataset"]["mesh_zarr"].config(path=path, train=1, validation=1, test=1)
    spec, planned = dataset.describe(), config.describe()
    assert (spec.targets, spec.domain, spec.layout) == (planned.targets, planned.domain, planned.layout)
    assert [each.channels for each in spec.statics] == [each.channels for each in planned.statics]
    assert (spec.conditions, spec.periodic) == (planned.conditions, planned.periodic)
    assert spec.dt == pytest.approx(planned.dt)
    assert planned.counts is not None
    assert spec.counts is not None
    assert planned.counts[0] <= spec.counts[0] <= spec.counts[1] <= planned.counts[1]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"obstacles": (3, 1)}, "obstacles"),
        ({"reynolds": (200.0, 80.0)}, "the lower one first"),
        ({"radius": 0.45}, "to fit between walls"),
        ({"points": 100}, "nodes on its border"),
        ({"length": 1.0}, "behind the largest obstacle"),
        ({"gap": 0.01}, "two edges"),
        ({"stretch": 0.5}, "from 1 to 3"),
        ({"duration": 0.0}, "above 0"),
    ],
)
def test_keys_that_do_not_fit(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ObstacleFlow2DConfig(**keys)  # type: ignore[arg-type]


def test_obstacles_that_do_not_fit() -> None:
    simulator = ObstacleFlow(evolve(SMALL, obstacles=8, length=1.4))
    with pytest.raises(DataError, match=r"trajectory 2: 8 obstacles.*do not fit") as told:
        simulator.draw(2)
    assert told.value.key == "simulate.obstacles"


def test_durations_that_no_machine_can_do() -> None:
    with pytest.raises(
        DataError, match=r"trajectory 0: 5e\+299 from one frame to the next, .* expected at most 1,000,000"
    ) as told:
        ObstacleFlow(evolve(SMALL, duration=1e300, warmup=0.0)).solve(0, 1, silent)
    assert told.value.key == "simulate.duration"


def test_without_scikit_fem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(DataError, match=r"pip install 'ups_kit\[mesh\]'"):
        SMALL.build()
    with pytest.raises(DataError, match=r"pip install 'ups_kit\[mesh\]'"):
        SMALL.describe()


def test_thin_triangles_are_told() -> None:
    nodes = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)], [0.5, -0.01]])
    angles = least_angles(nodes, np.array([[0, 1, 2], [0, 3, 1]]))
    np.testing.assert_allclose(angles, [60, np.degrees(np.arctan(0.02))], rtol=1e-6)
