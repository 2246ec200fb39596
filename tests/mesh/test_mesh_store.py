"""Stores of meshes: what is written is read, and what is damaged is told."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen

from ups_kit import DataError, FieldSpec, LatentSpec, StorageError
from ups_kit.data.making import make, make_if_missing
from ups_kit.data.mesh_store import MeshSample, write_meshes
from ups_kit.data.meshes import edges_of, lumped
from ups_kit.interfaces import Meshed
from ups_plugins.grid.config import GridEncoderConfig
from ups_plugins.mesh.formats import MeshZarrConfig

from .flows import mesh_sample

WriteStore = Callable[..., Path]


def read(path: Path, **keys: Any) -> Any:
    return MeshZarrConfig(path=path, validation=2, test=2, **keys).build(seed=0)


def test_what_was_written_is_read(write_flow: WriteStore) -> None:
    path = write_flow()
    data = read(path)
    assert isinstance(data, Meshed)
    assert [(f.name, f.channels, f.unit) for f in data.fields.targets] == [("velocity", 2, "m/s"), ("pressure", 1, "1")]
    assert data.fields.conditions == ("dt", "viscosity", "angle")
    assert data.fields.dt == 0.25
    source = data.files.first
    for number in range(8):
        sample = mesh_sample(number)
        frames = np.arange(len(sample.time))
        assert np.array_equal(source.positions(number, frames), sample.coords.astype(np.float32))
        written = np.concatenate([sample.fields["velocity"], sample.fields["pressure"]], -1)
        assert np.array_equal(source.values(number, frames), written)
        assert np.array_equal(source.values(number, frames[2:4]), written[2:4])
        assert np.array_equal(data.cells(number), sample.cells)
        assert np.array_equal(source.times(number), sample.time)
        given = np.concatenate([sample.statics["depth"], np.eye(3)[sample.statics["node_type"]]], 1)
        assert np.allclose(source.given(number), given)
        assert sample.cells is not None
        assert np.allclose(source.weights(number), lumped(sample.coords, sample.cells, "triangle"))
    chosen = read(path, fields=("pressure",), statics=(), time_stride=2, first_frame=1)
    assert chosen.fields.target_channels == 1
    assert chosen.fields.dt == 0.5
    assert not chosen.fields.statics
    assert np.array_equal(chosen.files.first.values(3, np.arange(3)), mesh_sample(3).fields["pressure"][1::2])


def test_features_of_the_mesh(write_flow: WriteStore) -> None:
    data = read(write_flow(), features=("boundary", "area", "sdf"), statics=("node_type",))
    assert [field.name for field in data.fields.statics] == ["node_type", "boundary", "area", "sdf"]
    assert data.normaliser.static_std[:4] == (1, 1, 1, 1)  # flags stay as they are
    for number in (0, 4):
        x, y = mesh_sample(number).coords.T
        given = data.files.first.given(number)
        edge = np.minimum.reduce([x, 1 - x, y, 1 - y])
        assert np.array_equal(given[:, 3] > 0, edge == 0)
        assert given[:, 4].sum() == pytest.approx(1, rel=1e-5)
        assert (given[:, 5] >= edge - 1e-6).all()  # the nearest node is no nearer than the nearest place
        assert ((given[:, 5] == 0) == (edge == 0)).all()
        between = np.hypot(edge, 0.5 / (4 + number % 3))  # and half a spacing away along the boundary at most
        assert (given[:, 5] <= between + 1e-6).all()


def test_steady_data_on_meshes(write_flow: WriteStore) -> None:
    path = write_flow(bad={number: {"time": np.zeros(1), **_first(number)} for number in range(8)})
    data = read(path)
    assert data.fields.steady
    assert data.windows("train", 1) == 4
    assert data.windows("train", 2) == 0
    batch = data.batch("train", np.arange(4), 1)
    assert not batch.states[:, 0].any()
    assert batch.inputs.values.shape[2] == 4
    with pytest.raises(DataError, match="no field is given at every point"):
        read(path, statics=())


def _first(number: int) -> dict[str, Any]:
    return {"fields": {name: values[:1] for name, values in mesh_sample(number).fields.items()}}


def test_edges_in_the_place_of_cells(write_flow: WriteStore) -> None:
    tables = [mesh_sample(number).cells for number in range(8)]
    edges = {n: {"cells": None, "edges": edges_of(t, "triangle")} for n, t in enumerate(tables) if t is not None}
    data = read(write_flow(bad=edges))
    assert data.cells(0) is None
    assert data.trajectories("test").weights is None
    assert data.sample("test", 0).connectivity.shape[1] == 2
    with pytest.raises(DataError, match="has edges alone"):
        read(data.files.files[0].path, features=("sdf",))


def test_a_sparse_matrix_beside_a_mesh(write_flow: WriteStore) -> None:
    matrix = (np.array([2.0, -1.0]), np.array([0, 24]), np.array([0, 2] + [2] * 24))
    data = read(write_flow(bad={0: {"laplacian": matrix}}))
    assert all(np.array_equal(got, want) for got, want in zip(data.files.first.laplacian(0), matrix, strict=True))
    broken = (matrix[0], np.array([0, 25]), matrix[2])
    with pytest.raises(DataError, match=r"indices of the laplacian: expected 0 … 24, got 0 … 25"):
        read(write_flow("broken.zarr", bad={0: {"laplacian": broken}}))


def test_broken_meshes_are_told_or_left_out(write_flow: WriteStore) -> None:
    cells = np.array(mesh_sample(3).cells)
    cells[5, 2] = 40
    path = write_flow(bad={3: {"cells": cells}})
    with pytest.raises(DataError) as told:
        read(path)
    assert str(told.value).startswith(
        f"{path}, sample_00003: cells: 1 of 32 cells name nodes that are not in 0 … 24, the first being 40 at cell 5"
    )
    assert "(ids 3); to leave these trajectories out, set dataset.drop_bad_samples = true" in str(told.value)
    for features in ((), ("area",)):
        kept = read(path, drop_bad_samples=True, features=features)
        assert 3 not in {member for members in kept.splits.ids.values() for member in members}
    with pytest.raises(DataError, match="cells: 1 of 32 cells name nodes"):
        read(path, features=("area",))


def test_samples_that_differ(write_flow: WriteStore, tmp_path: Path) -> None:
    times = 0.5 + 0.5 * np.arange(7)
    with pytest.raises(DataError, match=r"sample_00002: time: expected steps of 0.25, as sample_00000 has, got 0.5"):
        read(write_flow(bad={2: {"time": times}}))
    three = {"coords": np.c_[mesh_sample(2).coords, np.zeros(49)]}
    with pytest.raises(ValueError, match=r"sample 2: expected the fields .* and 2 axes of the first one, got .* and 3"):
        write_flow("flat.zarr", bad={2: three})
    uneven = 0.5 + 0.25 * np.arange(7) ** 1.5
    with pytest.raises(DataError, match=r"time/zarr.json: is not evenly spaced: steps of 0.25 to"):
        read(write_flow("uneven.zarr", bad={2: {"time": uneven}}))
    with pytest.raises(StorageError, match="exists; a store is written to a path where nothing is"):
        write_flow("uneven.zarr", samples=1)
    (tmp_path / "one.vtu").touch()
    with pytest.raises(DataError, match="holds files of meshes; `upskit data convert"):
        read(tmp_path / "one.vtu")


def test_names_that_are_not_there(write_flow: WriteStore) -> None:
    path = write_flow()
    with pytest.raises(DataError, match=r"fields: expected 'presure'; did you mean 'pressure'.* got velocity, pre"):
        read(path, fields=("presure",))
    with pytest.raises(DataError, match=r"first_frame = 7 leaves none; expected at most 6"):
        read(path, first_frame=7)
    problems = dict(MeshZarrConfig(path=path, points=60).check(MeshZarrConfig(path=path, points=60).describe(), LATENT))
    assert "nearest: points = 49" in problems["points"]
    assert "100 test" in problems["test"]


LATENT = LatentSpec(width=8)


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("where", "edit", "words"),
    [
        ("", lambda d: d["attributes"].update(samples=9), "checksum"),
        ("", lambda d: d["attributes"].update(domain=[[0, 1], [1, 0]]), "domain: expected"),
        ("", lambda d: d["attributes"].update(layout="ups_kit/grid_zarr"), "layout: expected 'ups_kit/mesh_zarr'"),
        (
            "sample_00001",
            lambda d: d["attributes"].update(parameters={"viscosity": "x"}),
            "expected a table of numbers",
        ),
        ("sample_00001/coords", lambda d: d.update(shape=[35, 2]), "checksum"),
        ("sample_00001/cells", lambda d: d["attributes"].update(cell_type="quad"), "checksum"),
        ("sample_00001/fields/pressure", lambda d: d.update(data_type="int32"), "checksum"),
    ],
)
def test_damaged_metadata(
    write_flow: WriteStore, where: str, edit: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = write_flow()
    change(path / where / "zarr.json", edit)
    with pytest.raises(DataError, match=words):
        read(path)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("coords", lambda d: d.update(shape=[36, 4], chunk_grid=_chunks(36, 4)), r"expected \(nodes, 1 to 3 axes\)"),
        ("cells", lambda d: d["attributes"].update(cell_type="triangle6"), "cell_type: expected one of line"),
        ("time", lambda d: d.update(shape=[6], chunk_grid=_chunks(6)), r"time/zarr.json: shape: expected \[7\]"),
        ("statics/depth", lambda d: d.update(shape=[30, 1], chunk_grid=_chunks(30, 1)), r"expected \[36, channels\]"),
    ],
)
def test_stores_of_others_that_are_wrong(
    write_flow: WriteStore, name: str, edit: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = write_flow()
    change(path / "sample_00001/zarr.json", lambda d: d["attributes"].pop("checksum"))
    change(path / "sample_00001" / name / "zarr.json", edit)
    with pytest.raises(DataError, match=words):
        read(path)


def _chunks(*sizes: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(sizes)}}


def test_missing_and_damaged_chunks(write_flow: WriteStore) -> None:
    path = write_flow()
    chunk = next(
        file
        for file in (path / "sample_00002/fields/velocity").rglob("*")
        if file.name != "zarr.json" and file.is_file()
    )
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(DataError, match="sample_00002/fields/velocity"):
        read(path)
    chunk.unlink()
    with pytest.raises(DataError, match="expected a shard"):
        read(path)


def test_a_store_that_changes_while_it_is_read(write_flow: WriteStore) -> None:
    path = write_flow()
    data = read(path)
    change(path / "zarr.json", lambda d: d["attributes"].update(note="later"))
    with pytest.raises(DataError, match=r"was written to since it was opened|bytes, and had"):
        data.batch("train", np.arange(2), 1)


def test_a_plain_store_without_anything_that_is_optional(write_flow: WriteStore) -> None:
    path = write_flow()
    data = read(path)

    def bare(document: dict[str, Any]) -> None:
        document["attributes"] = {}

    for file in (path, *(path / f"sample_{number:05d}" for number in range(8))):
        change(file / "zarr.json", bare)
    again = read(path)
    assert again.fields.counts == data.fields.counts
    assert again.fields.domain == data.fields.domain
    assert {field.name for field in again.fields.targets} == {"velocity", "pressure"}
    assert again.fields.statics == data.fields.statics
    assert again.splits.ids == data.splits.ids


def test_readers_in_other_processes_read_the_same(write_flow: WriteStore) -> None:
    from ups_kit.fit.batches import TrainingWindows

    data = read(write_flow(), features=("area",), input_points=(10, 20))
    again = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < 40_000
    windows = np.arange(4)
    assert torch.equal(again.batch("train", windows, 2).inputs.values, data.batch("train", windows, 2).inputs.values)
    batches = []
    for workers in (0, 2):
        source = TrainingWindows(
            dataset=data,
            steps=2,
            batch=4,
            seed=0,
            stage="s",
            shift=False,
            device=torch.device("cpu"),
            workers=workers,
            worker_start="fork",
        )
        with source.stream(0) as stream:
            batches.append([next(stream) for _ in range(3)])
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.states, other.states)
        assert torch.equal(one.inputs.values, other.inputs.values)
        assert torch.equal(one.inputs.positions, other.inputs.positions)


def test_a_grid_encoder_is_told_what_to_use(write_flow: WriteStore) -> None:
    config = MeshZarrConfig(path=write_flow())
    problems = dict(GridEncoderConfig().check(config.describe(), LATENT))
    assert problems == {"use": "'grid' needs fields on a regular grid, these data are mesh; use 'mesh'"}


@frozen
class Meshes:
    """A simulator that writes a store: parts are padded to their largest mesh."""

    trajectories: int = 5
    part: int = 2
    bytes: int = 10_000
    scale: float = 1.0

    def describe(self) -> FieldSpec:
        raise AssertionError("nobody asks")

    def build(self) -> Meshes:
        return self

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> dict[str, np.ndarray]:
        values = np.zeros((stop - start, 3, 49, 1))
        for number in range(start, stop):
            count = len(mesh_sample(number).coords)
            values[number - start, :, :count] = self.scale * mesh_sample(number, 3).fields["pressure"]
        return {"pressure": values, "number": np.arange(start, stop)}

    def write(self, path: Path, parts: Any) -> None:
        def samples() -> Any:
            for part in parts:
                for number, values in zip(part["number"], part["pressure"], strict=True):
                    base = mesh_sample(int(number), 3)
                    fields = {"pressure": values[:, : len(base.coords)]}
                    yield MeshSample(coords=base.coords, cells=base.cells, time=base.time, fields=fields)

        write_meshes(path, samples())


def test_a_simulator_makes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "made.zarr"
    (tmp_path / ".made.zarr.part").mkdir()  # of a process that was killed
    (tmp_path / "..made.zarr.part.123.part").mkdir()
    make_if_missing(path, Meshes())
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != ".made.zarr.lock"] == ["made.zarr"]
    data = MeshZarrConfig(path=path, validation=1, test=1, simulate=Meshes()).build(seed=0)
    assert len(data.splits["train"]) == 3
    expected = mesh_sample(1, 3).fields["pressure"]
    assert np.array_equal(data.files.first.values(1, np.arange(3)), expected)
    with pytest.raises(DataError, match=r"was made with scale = 1.0, and the recipe says 2.0 in dataset.simulate"):
        MeshZarrConfig(path=path, validation=1, test=1, simulate=Meshes(scale=2.0)).build(seed=0)
    with pytest.raises(StorageError, match="is there already"):
        make(path, Meshes())
