"""Particles as data: velocities from positions, boxes, types, splits of files, and batches of different counts."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from ups_kit import motion
from ups_kit.data.particle_store import ParticleSample, write_particles
from ups_plugins.particles import source
from ups_plugins.particles.box import Box
from ups_plugins.particles.formats import LagrangeBenchConfig, ParticleZarrConfig

VELOCITY = (0.9, -1.3)


def benchmark_data(files: ModuleType, folder: Path, counts: tuple[int, ...] = (40, 40, 40), **keys: Any) -> Any:
    return LagrangeBenchConfig(path=files.benchmark(folder / "bench", counts, VELOCITY), **keys).build(0)


def store_data(path: Path, **keys: Any) -> Any:
    return ParticleZarrConfig(path=path, **{"validation": 1, "test": 1, **keys}).build(0)


# ---------------------------------------------------------------------------------------------------------------------
# Velocities
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stride", [1, 3])
def test_a_translation_through_the_boundary_has_one_velocity(files: ModuleType, tmp_path: Path, stride: int) -> None:
    data = benchmark_data(files, tmp_path, time_stride=stride)
    assert data.fields.dt == pytest.approx(stride * files.STEP)
    for split in ("train", "validation", "test"):
        found = data.trajectories(split)
        assert found.values.shape[1] == (10 if split == "train" else 14) // stride
        torch.testing.assert_close(found.values, torch.tensor(VELOCITY).expand_as(found.values), atol=2e-5, rtol=0)
        assert (found.positions >= 0).all()
        assert (found.positions < torch.tensor([1.0, 2.0])).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_places_follow_from_velocities(files: ModuleType, tmp_path: Path, stride: int) -> None:
    data = store_data(files.store(tmp_path), time_stride=stride)
    found = data.trajectories("train")
    moved = motion.moved(found.positions[:, :-1], found.values[:, 1:], data.fields)
    away = motion.displacement(moved, found.positions[:, 1:], data.fields)
    assert away.abs().max() < 1e-6
    walked = motion.travelled(found.positions[:, 0], found.values[:, 1:], data.fields)
    assert motion.displacement(walked, found.positions[:, 1:], data.fields).abs().max() < 3e-6


def test_a_rotation_has_its_chords_as_velocities(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    radius, angle = generator.uniform(0.1, 0.9, 30), generator.uniform(0, 2 * np.pi, 30)
    turn = angle + 0.2 * np.arange(9)[:, None]
    places = np.stack([radius * np.cos(turn), radius * np.sin(turn)], -1)
    path = tmp_path / "turning.zarr"
    samples = [ParticleSample(positions=places + 0.001 * k, time=0.1 * np.arange(9)) for k in range(3)]
    write_particles(path, samples, domain=[(-1, 1), (-1, 1)], periodic=(False, False))
    found = store_data(path).trajectories("train")
    truth = torch.from_numpy(np.diff(places, axis=0) / 0.1)
    torch.testing.assert_close(found.values[0], truth.float(), atol=3e-6, rtol=0)
    speed = 2 * np.sin(0.1) * radius / 0.1  # of a chord
    np.testing.assert_allclose(found.values[0].norm(dim=-1), np.tile(speed, (8, 1)), rtol=2e-5)


def test_history_is_of_the_velocities_before(files: ModuleType, tmp_path: Path) -> None:
    data = store_data(files.store(tmp_path, counts=(20, 17)), history=3)
    whole, batch = data.trajectories("train"), data.batch("train", np.array([1]), 2)
    values = data.normaliser.targets(whole.values)
    expected = values[0, 1:4].transpose(0, 1).flatten(1)
    torch.testing.assert_close(batch.inputs.values[0, :, :6], expected[: batch.inputs.values.shape[1]])
    torch.testing.assert_close(batch.inputs.positions[0], whole.positions[0, 3, : batch.inputs.positions.shape[1]])
    torch.testing.assert_close(batch.places(2)[0], whole.positions[0, 5, : batch.inputs.positions.shape[1]])


def test_times_are_those_of_the_store(files: ModuleType, tmp_path: Path) -> None:
    found = store_data(files.store(tmp_path), time_stride=2, first_frame=1).trajectories("train")
    np.testing.assert_allclose(found.times, [0.8, 1.0, 1.0 + 0.2][: len(found.times)], rtol=1e-6)
    assert len(found.times) == 2


# ---------------------------------------------------------------------------------------------------------------------
# Boxes
# ---------------------------------------------------------------------------------------------------------------------
def test_places_are_wrapped_into_the_box_and_never_onto_its_end() -> None:
    box = Box(((0.1, 0.7), (0.0, 1.0)), (True, False))
    places = np.array(
        [[0.1, 3.0], [0.7, 0.0], [-2.3, 0.0], [np.nextafter(np.float32(0.1), np.float32(0)), 0.0], [9.1, 0]]
    )
    found = box.wrapped(places)
    assert (found[:, 0] >= np.float32(0.1)).all()
    assert (found[:, 0] < np.float32(0.7)).all()
    np.testing.assert_array_equal(found[:, 1], places[:, 1].astype(np.float32))  # a closed axis
    np.testing.assert_allclose((found[:, 0] - places[:, 0] + 0.3) % 0.6, 0.3, atol=1e-6)


def test_positions_that_are_counted_on_give_the_same_data(files: ModuleType, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    start, velocity = generator.uniform([0, 0], [1, 2], (20, 2)), generator.uniform(-1, 1, (20, 2))
    places = start + 0.1 * np.arange(40)[:, None, None] * velocity
    found = []
    for name, own in (("on", places), ("in", files.wrapped(places))):
        (tmp_path / name).mkdir()
        samples = [ParticleSample(positions=own + k / 1024, time=0.1 * np.arange(40)) for k in range(3)]
        path = tmp_path / name / "p.zarr"
        write_particles(path, samples, domain=files.BOX, periodic=(True, True))
        found.append(store_data(path, wrap=True).trajectories("train"))
    torch.testing.assert_close(found[0].values, found[1].values, atol=5e-5, rtol=0)
    assert (found[0].positions >= 0).all()
    assert (found[0].positions < torch.tensor([1.0, 2.0])).all()


# ---------------------------------------------------------------------------------------------------------------------
# Types, fields, parameters
# ---------------------------------------------------------------------------------------------------------------------
def test_types_are_flags_and_walls_are_marked(files: ModuleType, tmp_path: Path) -> None:
    data = store_data(files.store(tmp_path), fields=("density",))
    assert [(each.name, each.channels) for each in data.fields.statics] == [("type", 3), ("kinematic", 1), ("mass", 1)]
    assert [(each.name, each.unit) for each in data.fields.targets] == [("velocity", "m/s"), ("density", "kg/m^3")]
    assert data.fields.conditions == ("dt", "nu")
    found = data.trajectories("train")
    kinds = found.statics[..., :3]
    assert set(kinds.unique().tolist()) == {0.0, 1.0}
    assert (kinds.sum(-1) == 1).all()
    torch.testing.assert_close(found.statics[..., 3], kinds[..., 1:].sum(-1))
    batch = data.batch("train", np.arange(4), 1)
    marked = motion.kinematic_points(batch.inputs.values[..., 3:], data.fields, data.normaliser)
    assert marked is not None
    assert 0 < marked.sum() < marked.numel()
    torch.testing.assert_close(batch.inputs.values[..., 3:6].sum(-1), torch.ones(batch.inputs.values.shape[:2]))


def test_the_mark_of_kinematic_points_has_one_name() -> None:
    assert source.KINEMATIC == motion.KINEMATIC


def test_more_types_than_there_are_leave_channels_empty(files: ModuleType, tmp_path: Path) -> None:
    data = store_data(files.store(tmp_path), types=5, statics=())
    assert [(each.name, each.channels) for each in data.fields.statics] == [("type", 5), ("kinematic", 1)]
    assert (data.trajectories("train").statics[..., 3:5] == 0).all()


def test_stored_velocities_are_a_field_like_any_other(files: ModuleType, tmp_path: Path) -> None:
    data = store_data(files.store(tmp_path), fields=("velocities",))
    found = data.trajectories("train").values
    torch.testing.assert_close(found[..., :2], found[..., 2:], atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------------------------------
# Splits
# ---------------------------------------------------------------------------------------------------------------------
def test_splits_follow_the_files(files: ModuleType, tmp_path: Path) -> None:
    data = benchmark_data(files, tmp_path, history=2)
    assert dict(data.splits.ids) == {"train": (0, 1, 2), "validation": (3, 4), "test": (5, 6)}
    assert data.windows("train", 1) == 3 * 8
    assert data.windows("test", 4) == 2 * 9
    first = files.translated(20, 15, 40, VELOCITY)
    np.testing.assert_array_equal(data.trajectories("test").positions[0], files.wrapped(first[1:]))


def test_fewer_trajectories_of_a_file_can_be_asked_for(files: ModuleType, tmp_path: Path) -> None:
    data = benchmark_data(files, tmp_path, train=2, test=1)
    assert {split: len(ids) for split, ids in data.splits.ids.items()} == {"train": 2, "validation": 2, "test": 1}


def test_long_trajectories_are_cut_for_validation_and_test(files: ModuleType, tmp_path: Path) -> None:
    data = benchmark_data(files, tmp_path, cut=4)
    assert {split: len(ids) for split, ids in data.splits.ids.items()} == {"train": 3, "validation": 6, "test": 6}
    assert data.trajectories("train").values.shape[1] == 10
    pieces, whole = data.trajectories("test"), benchmark_data(files, tmp_path / "whole").trajectories("test")
    assert pieces.values.shape[1] == 4
    for number, start in enumerate((0, 5, 10)):
        torch.testing.assert_close(pieces.positions[number], whole.positions[0, start : start + 4])
        torch.testing.assert_close(pieces.times, whole.times[:4])


def test_one_file_alone_is_drawn_into_splits(files: ModuleType, tmp_path: Path) -> None:
    path = files.benchmark(tmp_path / "bench") / "train.h5"
    config = LagrangeBenchConfig(path=path, validation=1, test=1)
    assert {split: len(ids) for split, ids in config.build(0).splits.ids.items()} == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }
    others = LagrangeBenchConfig(
        path=path, validation_path=path.with_name("valid.h5"), test_path=path.with_name("test.h5")
    )
    assert not list(others.check(others.describe(), None))  # type: ignore[arg-type]
    assert dict(others.build(0).splits.ids) == {"train": (0, 1, 2), "validation": (5, 6), "test": (3, 4)}


def test_a_store_may_say_its_splits(files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "p.zarr"
    places = [files.translated(number, 6, 10, VELOCITY, dt=0.1) for number in range(5)]
    named = ("test", "train", "validation", "train", "test")
    samples = (
        ParticleSample(positions=own, time=0.1 * np.arange(6), split=name)
        for own, name in zip(places, named, strict=True)
    )
    write_particles(path, samples, domain=files.BOX, periodic=(True, True))
    data = store_data(path, test=2)
    assert dict(data.splits.ids) == {"train": (1, 3), "validation": (2,), "test": (0, 4)}


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------
def test_batches_of_different_counts_are_those_of_one_by_one(files: ModuleType, tmp_path: Path) -> None:
    data = benchmark_data(files, tmp_path, counts=(31, 40, 25), history=2)
    windows = np.array([0, 5, 11, 17])
    batch = data.batch("train", windows, 3)
    assert batch.mask is not None
    assert batch.inputs.mask is not None
    for row, window in enumerate(windows):
        alone = data.batch("train", np.array([window]), 3)
        count = int(batch.mask[row].sum())
        assert count == alone.states.shape[2]
        assert alone.mask is None
        torch.testing.assert_close(batch.states[row, :, :count], alone.states[0], atol=0, rtol=0)
        torch.testing.assert_close(batch.positions[row, :, :count], alone.positions[0], atol=0, rtol=0)
        torch.testing.assert_close(batch.inputs.values[row, :count], alone.inputs.values[0], atol=0, rtol=0)
        assert (batch.states[row, :, count:] == 0).all()


@pytest.mark.parametrize("kind", ["store", "bench"])
def test_data_travel_to_other_processes(files: ModuleType, tmp_path: Path, kind: str) -> None:
    data = store_data(files.store(tmp_path, samples=3)) if kind == "store" else benchmark_data(files, tmp_path)
    before, again = (
        data.batch("train", np.arange(2), 1),
        pickle.loads(pickle.dumps(data)).batch("train", np.arange(2), 1),
    )
    torch.testing.assert_close(before.states, again.states, atol=0, rtol=0)


def test_permuted_particles_permute_batches(files: ModuleType, tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(20)
    found = []
    for name, own in (("straight", np.arange(20)), ("permuted", order)):
        path = tmp_path / f"{name}.zarr"
        samples = []
        for number in range(4):
            generator = np.random.default_rng(number)
            places = files.translated(number, 6, 20, generator.normal(size=(20, 2)), dt=0.1)
            kinds = generator.integers(0, 2, 20)
            samples.append(ParticleSample(positions=places[:, own], time=0.1 * np.arange(6), types=kinds[own]))
        write_particles(path, samples, domain=files.BOX, periodic=(True, True), kinematic=(1,))
        found.append(store_data(path).batch("train", np.arange(2), 2))
    straight, permuted = found
    torch.testing.assert_close(straight.inputs.values[:, order], permuted.inputs.values, atol=1e-6, rtol=0)
    torch.testing.assert_close(straight.states[:, :, order], permuted.states, atol=1e-6, rtol=0)
    torch.testing.assert_close(straight.positions[:, :, order], permuted.positions, atol=0, rtol=0)


@pytest.mark.parametrize("creation", [{}, {"chunks": (4, 7, 1)}, {"compression": "gzip", "chunks": (3, 40, 2)}])
def test_any_storage_of_the_arrays_gives_the_same(files: ModuleType, tmp_path: Path, creation: dict[str, Any]) -> None:
    def some(first: int) -> list[Any]:
        return [(files.translated(first + k, 9, 40, VELOCITY), np.zeros(40, np.int32)) for k in range(2)]

    parts = {"train": some(0), "valid": some(5), "test": some(9)}
    path = files.write_lagrangebench(tmp_path / "other", parts, **(creation or {"compression": None}))
    found = LagrangeBenchConfig(path=path).build(0).trajectories("train")
    np.testing.assert_array_equal(found.positions[1], parts["train"][1][0][1:])
