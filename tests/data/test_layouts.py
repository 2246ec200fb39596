"""PDEBench's public layouts, each read to the bit, and what is told of files that are almost one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ups_kit import DataError, Field
from ups_kit.data.headers import read_tree
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset

WriteLayout = Callable[..., tuple[Path, dict[str, np.ndarray]]]
COUNTS = {"train": 6, "validation": 3, "test": 3}
FIELDS: dict[str, tuple[Field, ...]] = {
    "burgers": (Field("u"),),
    "darcy": (Field("u"),),
    "diffusion_reaction": (Field("activator"), Field("inhibitor")),
    "shallow_water": (Field("h"),),
    "diffusion_sorption": (Field("u"),),
    "fluid_1d": (Field("density"), Field("pressure"), Field("Vx")),
    "fluid_2d": (Field("density"), Field("pressure"), Field("Vx"), Field("Vy")),
    "fluid_3d": (Field("density"), Field("pressure"), Field("Vx"), Field("Vy"), Field("Vz")),
    "incompressible": (Field("velocity", 2), Field("particles")),
}
PERIODIC = ("burgers", "fluid_1d", "fluid_2d", "fluid_3d")
DOMAINS = {"diffusion_reaction": (-1.0, 1.0), "shallow_water": (-2.5, 2.5)}


def config(path: Path | tuple[Path, ...], **keys: Any) -> PDEBenchConfig:
    return PDEBenchConfig(path=path, **COUNTS | keys)


def dataset(path: Path | tuple[Path, ...], seed: int = 0, **keys: Any) -> GridDataset:
    built = config(path, **keys).build(seed)
    assert isinstance(built, GridDataset)
    return built


def says(build: Callable[[], Any], *parts: str) -> str:
    with pytest.raises(DataError) as raised:
        build()
    missing = [part for part in parts if part not in str(raised.value)]
    assert not missing, f"{missing} not in: {raised.value}"
    return raised.value.key


@pytest.mark.parametrize("layout", FIELDS)
def test_every_public_layout_is_read_to_the_bit(write_layout: WriteLayout, layout: str) -> None:
    path, held = write_layout(layout)
    data = dataset(path)
    fields, grid = data.fields, held["targets"].shape[2:-1]
    assert data.fields == config(path).describe()
    assert fields.targets == FIELDS[layout]
    assert fields.grid == grid
    assert fields.periodic == (layout in PERIODIC,) * len(grid)
    assert fields.domain == (DOMAINS.get(layout, (0.0, 1.0)),) * len(grid)
    assert (fields.steady, fields.history) == ((True, 0) if layout == "darcy" else (False, 1))
    assert fields.conditions == ("dt",)
    for split, count in COUNTS.items():
        found = data.trajectories(split)
        ids = found.ids.numpy()
        assert len(ids) == count
        np.testing.assert_array_equal(found.values, held["targets"][ids].reshape(found.values.shape))
        np.testing.assert_array_equal(found.statics, held["statics"][ids].reshape(found.statics.shape))
        np.testing.assert_allclose(found.times, held["times"], atol=1e-6)
    x = np.meshgrid(
        *(np.linspace(low, high, 2 * n + 1)[1::2] for (low, high), n in zip(fields.domain, grid)), indexing="ij"
    )
    np.testing.assert_allclose(found.positions, np.stack([axis.ravel() for axis in x], -1), atol=1e-6)


@pytest.mark.parametrize("layout", [layout for layout in FIELDS if layout != "darcy"])
def test_windows_hold_what_the_file_holds(write_layout: WriteLayout, layout: str) -> None:
    path, held = write_layout(layout)
    data = dataset(path, time_stride=2, space_stride=2, history=2)
    grid = held["targets"].shape[2:-1]
    every = (slice(None),) * 2 + (slice(None, None, 2),) * len(grid)
    truth = torch.from_numpy(held["targets"][:, ::2][every].copy()).flatten(2, -2)
    statics = torch.from_numpy(held["statics"][every[1:]].copy()).flatten(1, -2)
    assert data.windows("train", 1) == 6
    batch = data.batch("train", np.array([4, 0, 5]), 1)
    torch.testing.assert_close(data.normaliser.physical(batch.states), truth[batch.ids, 1:3], rtol=1e-4, atol=1e-5)
    channels = data.fields.target_channels
    for frame in range(2):
        seen = data.normaliser.physical(batch.inputs.values[..., frame * channels : (frame + 1) * channels])
        torch.testing.assert_close(seen, truth[batch.ids, frame], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch.inputs.values[..., 2 * channels :], data.normaliser.statics(statics[batch.ids]))
    assert batch.inputs.values.shape[2] == data.fields.input_channels
    assert batch.grid == data.fields.grid == tuple(points // 2 for points in grid)


def test_steady_data_are_one_window_each(write_layout: WriteLayout) -> None:
    path, held = write_layout("darcy")
    data = dataset(path)
    assert [data.windows("train", steps) for steps in (0, 1, 2)] == [6, 6, 0]
    batch = data.batch("train", np.array([5, 2]), 1)
    assert not batch.states[:, 0].any()
    answer = torch.from_numpy(held["targets"])[batch.ids, 0].flatten(1, 2)
    torch.testing.assert_close(data.normaliser.physical(batch.states[:, 1]), answer)
    coefficient = torch.from_numpy(held["statics"])[batch.ids].flatten(1, 2)
    torch.testing.assert_close(batch.inputs.values, data.normaliser.statics(coefficient))
    assert batch.states.shape == (2, 2, 64, 1)
    assert data.fields.input_channels == 1
    assert not batch.times.any()
    assert data.trajectories("test").values.shape == (3, 1, 64, 1)


def test_one_coefficient_stays_in_one_split_whatever_its_source_strength(write_layout: WriteLayout) -> None:
    paths = tuple(write_layout("darcy", f"2D_DarcyFlow_beta{beta}_Train.hdf5", seed=3)[0] for beta in ("0.1", "10.0"))
    with h5py.File(paths[1], "r+") as file:
        file["tensor"][...] *= 100
    pattern = "2D_DarcyFlow_beta{beta}_Train.hdf5"
    data = dataset(paths, parameters_from_name=pattern, train=12, validation=4, test=8)
    assert data.fields.conditions == ("dt", "beta")
    for members in data.splits.ids.values():
        assert {(member + 12) % 24 for member in members} == set(members)
    held = data.trajectories("test")
    torch.testing.assert_close(held.parameters[:, 1], torch.where(held.ids < 12, 0.1, 10.0))
    says(lambda: dataset(paths[0], test_path=paths[1], train=9), "initial conditions stand in two splits")


def test_a_field_of_its_own_is_another_initial_condition(write_layout: WriteLayout) -> None:
    """Flows from rest differ by their force alone."""
    path, _ = write_layout("incompressible")
    with h5py.File(path, "r+") as file:
        file["velocity"][:, 0] = 0
        file["particles"][:, 0] = 1
    assert len(set(dataset(path).splits.hashes.values())) == 12


# ---------------------------------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------------------------------
def test_parameters_from_names_of_files(write_layout: WriteLayout, tmp_path: Path) -> None:
    names = (
        "2D_CFD_Rand_M0.1_Eta0.01_Zeta1e-8_periodic_64_Train.hdf5",
        "2D_CFD_Rand_M1._Eta1.e-8_Zeta.5_periodic_64_Train.hdf5",
    )
    paths = tuple(write_layout("fluid_2d", name, seed=number)[0] for number, name in enumerate(names))
    pattern = "2D_CFD_*_M{M}_Eta{eta}_Zeta{zeta}_*.hdf5"
    held = dataset(paths, parameters_from_name=pattern, train=18).trajectories("train")
    expected = torch.tensor([[0.1, 0.01, 1e-8], [1.0, 1e-8, 0.5]])[(held.ids >= 12).long()]
    torch.testing.assert_close(held.parameters[:, 1:], expected)  # columns M, eta, zeta in alphabetical order
    key = says(
        lambda: dataset(paths, parameters_from_name="2D_CFD_M{M}.hdf5"),
        names[0],
        "M{M}.hdf5",
        "in the place of each brace",
    )
    assert key == "parameters_from_name"
    odd = write_layout("fluid_2d", "nu_fast.h5")[0]
    says(lambda: config(odd, parameters_from_name="nu_{nu}.h5").describe(), "nu_fast.h5")
    says(
        lambda: config(paths, parameters_from_name=pattern, parameters={"eta": 1.0}).describe(),
        "its name says eta = 0.01",
        "dataset.parameters 1",
    )


@pytest.mark.parametrize("pattern", ["a.h5", "{a}{b}.h5", "{a}_{a}.h5", "{a-b}.h5", "{a.h5", "{}.h5"])
def test_a_pattern_that_no_name_can_have_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="parameters in braces"):
        PDEBenchConfig(path=Path("a.h5"), parameters_from_name=pattern)


def test_parameters_from_attributes_where_they_are_named(write_layout: WriteLayout) -> None:
    paths = tuple(write_layout("burgers", f"{nu}.h5", seed=nu)[0] for nu in (1, 2))
    with h5py.File(paths[1], "r+") as file:
        file.attrs["Nu"] = 0.5
    held = dataset(paths, conditions=("Nu",), train=18).trajectories("train")
    torch.testing.assert_close(held.parameters[:, 1], torch.where(held.ids < 12, 0.01, 0.5))
    assert config(paths, train=18).describe().conditions == ("dt",)


def test_parameters_of_groups_are_their_numbers(write_layout: WriteLayout) -> None:
    path, _ = write_layout("shallow_water")
    with h5py.File(path, "r+") as file:
        for number, group in enumerate(file.values()):
            group.attrs.update({"drop": 0.3 + 0.01 * number, "radius": 0.1, "seed": number, "solver": "roe"})
    data = dataset(path)
    assert data.fields.conditions == ("dt", "drop")
    held = data.trajectories("train")
    torch.testing.assert_close(held.parameters[:, 1], 0.3 + 0.01 * held.ids.float())
    assert config(path, conditions=("radius",)).describe().conditions == ("dt", "radius")  # where it is asked for
    with h5py.File(path, "r+") as file:
        del file["0005"].attrs["drop"]
    says(lambda: config(path).describe(), "'0005' has no number 'drop'", "as '0000' has", "in every group, or in none")


def test_parameters_of_each_trajectory_beside_fields(write_layout: WriteLayout) -> None:
    path, _ = write_layout("incompressible")
    with h5py.File(path, "r+") as file:
        file["nu"] = np.linspace(0.01, 0.1, 12)
    data = dataset(path)
    assert data.fields.conditions == ("dt", "nu")
    assert [field.name for field in data.fields.statics] == ["force"]


# ---------------------------------------------------------------------------------------------------------------------
# Choices
# ---------------------------------------------------------------------------------------------------------------------
def test_fields_are_chosen_and_called(write_layout: WriteLayout) -> None:
    path, held = write_layout("fluid_2d")
    data = dataset(path, fields=("Vy", "density"))
    assert [field.name for field in data.fields.targets] == ["Vy", "density"]
    found = data.trajectories("test")
    np.testing.assert_array_equal(found.values, held["targets"][found.ids][..., [3, 0]].reshape(found.values.shape))
    key = says(
        lambda: config(path, fields=("Vx", "densty")).describe(),
        "no dataset is called 'densty'",
        "did you mean 'density'",
    )
    assert key == "fields"
    groups, _ = write_layout("diffusion_reaction")
    assert [field.name for field in config(groups, fields=("a", "b")).describe().targets] == ["a", "b"]
    key = says(
        lambda: config(groups, fields=("a",)).describe(), "'0000/data' [6, 8, 8, 2] has 2 channels", "names 1: a"
    )
    assert key == "fields"
    burgers, _ = write_layout("burgers")
    assert config(burgers, fields=("w",)).describe().targets == (Field("w"),)
    assert says(lambda: config(burgers, fields=("a", "b")).describe(), "holds one field") == "fields"


def test_units_that_a_file_states(write_layout: WriteLayout) -> None:
    path, _ = write_layout("fluid_1d")
    with h5py.File(path, "r+") as file:
        file["Vx"].attrs["units"] = "m/s"
    assert [field.unit for field in config(path).describe().targets] == ["1", "1", "m/s"]


def test_periodic_as_the_layout_has_it_or_as_it_is_told(write_layout: WriteLayout) -> None:
    outflow, _ = write_layout("fluid_1d", "1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5")
    assert config(outflow).describe().periodic == (False,)
    plane, _ = write_layout("fluid_2d")
    assert config(plane, periodic=False).describe().periodic == (False, False)
    assert config(plane, periodic=(True, False)).describe().periodic == (True, False)
    assert (
        says(lambda: config(plane, periodic=(True,)).describe(), "periodic = [True] is for 1 axes", "the data have 2")
        == "periodic"
    )
    with h5py.File(plane, "r+") as file:
        file.attrs["periodic"] = [False, True]
    assert config(plane).describe().periodic == (False, True)


def test_a_layout_that_is_forced(write_layout: WriteLayout) -> None:
    path, _ = write_layout("fluid_2d")
    with h5py.File(path, "r+") as file:
        file["tensor"] = file["Vx"]
    assert config(path).describe().targets == (Field("u"),)
    assert len(config(path, layout="fields").describe().targets) == 4
    says(lambda: config(path, layout="groups").describe(), "holds no groups")
    says(lambda: config(path, layout="velocity").describe(), "no dataset is called 'velocity'")


def test_history_of_steady_data_and_the_reverse(write_layout: WriteLayout) -> None:
    steady, _ = write_layout("darcy")
    assert says(lambda: config(steady, history=2).describe(), "are steady", "dataset.history = 2") == "history"
    moving, _ = write_layout("burgers")
    assert says(lambda: config(moving, history=0).describe(), "6 frames in time", "for steady data") == "history"
    with h5py.File(steady, "r+") as file:
        del file["nu"]
        file["t-coordinate"] = [0.0, 1.0]
    says(lambda: config(steady).describe(), "1 frames", "need at least 2")


@pytest.mark.parametrize("layout", FIELDS)
def test_files_are_recognised(write_layout: WriteLayout, layout: str) -> None:
    path, _ = write_layout(layout)
    keys = PDEBenchConfig.recognise(read_tree(path))
    assert keys == {}
    config(path, **keys).describe()
    with h5py.File(path, "w") as file:
        file["something"] = np.zeros(3)
    assert PDEBenchConfig.recognise(read_tree(path)) is None


def test_an_array_of_another_name_is_recognised(write_layout: WriteLayout) -> None:
    path, _ = write_layout("burgers")
    with h5py.File(path, "r+") as file:
        file.move("tensor", "solution")
    assert PDEBenchConfig.recognise(read_tree(path)) == {"tensor": "solution"}


# ---------------------------------------------------------------------------------------------------------------------
# Files that are almost in one of the layouts
# ---------------------------------------------------------------------------------------------------------------------
def test_d05_missing_fields(write_layout: WriteLayout, tmp_path: Path) -> None:
    groups, _ = write_layout("diffusion_reaction")
    with h5py.File(groups, "r+") as file:
        file.move("0004/data", "0004/dat")
    says(lambda: config(groups).describe(), f"{groups}: the group '0004' holds no 'data'", "did you mean 'dat'", "grid")
    flow, _ = write_layout("incompressible")
    says(
        lambda: config(flow, fields=("speed",)).describe(), "no dataset is called 'speed'", "velocity [12, 6, 8, 8, 2]"
    )
    with h5py.File(flow, "r+") as file:
        del file["t"]
    says(lambda: config(flow).describe(), f"{flow}: no dataset is called 't'")
    assert says(lambda: config(flow, statics=("forces",)).describe(), "'forces'", "did you mean 'force'") == "statics"


def test_d06_axes(write_layout: WriteLayout) -> None:
    path, held = write_layout("darcy")
    with h5py.File(path, "r+") as file:
        del file["nu"]
        file["nu"] = held["statics"][..., 0].transpose(1, 2, 0)
    says(
        lambda: config(path, statics=("nu",)).describe(),
        "static field 'nu' has the shape [8, 8, 12]",
        "expected [12, 8, 8]",
        "[sample, x, y]",
    )
    fluid, _ = write_layout("fluid_2d")
    with h5py.File(fluid, "r+") as file:
        for name, points in (("x", 4), ("y", 8)):
            del file[f"{name}-coordinate"]
            file[f"{name}-coordinate"] = np.arange(points) / points
        for name in ("density", "pressure", "Vx", "Vy"):
            del file[name]
            file[name] = np.zeros((12, 4, 8, 6), np.float32)
    says(
        lambda: config(fluid).describe(), "'density' has the shape [12, 4, 8, 6]", "expected the axes [sample, time,",
        "looks like [sample, x, y, time]", "density.transpose(0, 3, 1, 2)",
    )  # fmt: skip
    flow, _ = write_layout("incompressible")
    with h5py.File(flow, "r+") as file:
        del file["velocity"]
        file["velocity"] = np.zeros((12, 6), np.float32)
    says(lambda: config(flow).describe(), "'velocity' has the shape [12, 6]", "[sample, time, x, component]")
    groups, _ = write_layout("shallow_water")
    with h5py.File(groups, "r+") as file:
        del file["0000/data"]
        file["0000/data"] = np.zeros((6, 8), np.float32)
    says(lambda: config(groups).describe(), "'0000/data' has the shape [6, 8]", "[time, x, channel]")


def test_d07_coordinates_of_several_axes(write_layout: WriteLayout) -> None:
    fluid, _ = write_layout("fluid_3d")
    with h5py.File(fluid, "r+") as file:
        del file["z-coordinate"]
    says(lambda: config(fluid).describe(), "coordinate 'z-coordinate' is missing", "Vz [12, 6, 4, 4, 4]")
    with h5py.File(fluid, "r+") as file:
        file["z-coordinate"] = np.arange(5.0)
    says(lambda: config(fluid).describe(), "'z-coordinate' has the shape [5]", "expected 4 values", "4 points")
    flow, _ = write_layout("incompressible")
    with h5py.File(flow, "r+") as file:
        file["t"][7] *= 2
    says(lambda: config(flow).describe(), "the times of the samples differ", "sample 7 at 0.05", "one set of times")
    groups, _ = write_layout("shallow_water")
    with h5py.File(groups, "r+") as file:
        del file["0000/grid/y"]
    says(lambda: config(groups).describe(), "coordinate '0000/grid/y' is missing")


def test_d14_fields_and_groups_that_differ(write_layout: WriteLayout) -> None:
    fluid, held = write_layout("fluid_1d")
    with h5py.File(fluid, "r+") as file:
        del file["Vx"]
        file["Vx"] = held["targets"][:10, ..., 2]
    says(
        lambda: config(fluid).describe(),
        f"{fluid}: its fields differ in shape",
        "'density' [12, 6, 8]",
        "'Vx' [10, 6, 8]",
    )
    groups, held = write_layout("shallow_water")
    with h5py.File(groups, "r+") as file:
        file["0003/grid/x"][...] += 1
    says(
        lambda: config(groups).describe(),
        "the grids of the groups differ",
        "'0003/grid/x'",
        "-1.1875 … 3.1875",
        "-2.1875 … 2.1875, as in '0000'",
    )
    with h5py.File(groups, "r+") as file:
        file["0003/grid/x"][...] -= 1
        del file["0007/data"]
        file["0007/data"] = held["targets"][7, :5]
    says(
        lambda: config(groups).describe(),
        "groups differ in the shape of 'data'",
        "[6, 8, 8, 1] as in '0000'",
        "'0007' [5, 8, 8, 1]",
    )
    with h5py.File(groups, "r+") as file:
        del file["0002/grid"]
    says(lambda: config(groups).describe(), "no dataset is called '0002/grid/x'")


def test_d14_all_files_that_differ_are_in_the_table(write_layout: WriteLayout) -> None:
    paths = [
        write_layout("fluid_1d", "one.h5")[0],
        write_layout("fluid_2d", "two.h5")[0],
        write_layout("fluid_3d", "three.h5")[0],
    ]
    says(
        lambda: config(tuple(paths)).describe(), "files differ", f"{paths[0]}: [12, 6, 8], x 0.0625",
        "fields density, pressure, Vx,", f"{paths[1]}: [12, 6, 8, 8]", "y 0.0625 … 0.9375",
        f"{paths[2]}: [12, 6, 4, 4, 4]", "z 0.125 … 0.875", "mixture",
    )  # fmt: skip


def test_d08_nan_in_one_field_of_several(write_layout: WriteLayout) -> None:
    fluid, _ = write_layout("fluid_2d")
    with h5py.File(fluid, "r+") as file:
        file["Vx"][:, 2, 3, 1] = np.nan
    says(lambda: dataset(fluid), "NaN or infinity at [time 2, x 3, y 1] of 'Vx'", "12 trajectories hold 12 such values")
    steady, _ = write_layout("darcy")
    with h5py.File(steady, "r+") as file:
        file["nu"][4, 1, 2] = np.inf
    says(lambda: dataset(steady), f"{steady}, sample 4: NaN or infinity at [x 1, y 2]; 1 trajectories hold 1")
    assert 4 not in {i for ids in dataset(steady, train=5, drop_bad_samples=True).splits.ids.values() for i in ids}


def test_d02_d15_d16_of_groups(write_layout: WriteLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, held = write_layout("shallow_water")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    says(lambda: config(path).describe(), "is truncated")
    path.write_bytes(whole)
    inner = path.with_name("inner.h5")
    inner.write_bytes(whole)
    with h5py.File(inner, "w") as file:
        held["targets"][5] *= 2
        file["0005/data"] = held["targets"][5]
    with h5py.File(path, "r+") as file:
        del file["0005/data"]
        file["0005/data"] = h5py.ExternalLink(str(inner), "/0005/data")
    says(lambda: config(path).describe(), "'0005/data' is a link to", f"{inner}:/0005/data", "allow_external")
    found = dataset(path, allow_external=True).trajectories("train")
    np.testing.assert_array_equal(found.values, held["targets"][found.ids].reshape(found.values.shape))
    packed, _ = write_layout("diffusion_reaction")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    says(lambda: config(packed).describe(), "'0000/data' is compressed with filter", "not installed")


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", ["shallow_water", "diffusion_reaction", "fluid_2d", "incompressible"])
def test_a_pickled_dataset_reads_the_same(write_layout: WriteLayout, layout: str) -> None:
    data = dataset(write_layout(layout)[0])
    first = data.batch("train", np.arange(4), 2)
    again = pickle.loads(pickle.dumps(data)).batch("train", np.arange(4), 2)
    assert torch.equal(first.states, again.states)


def test_a_thousand_groups_open_by_their_offsets_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        for number in range(1000):
            file[f"{number:04d}/data"] = np.full((3, 4, 4, 1), number, np.float32)
            for name, values in (("x", np.arange(4.0)), ("y", np.arange(4.0)), ("t", np.arange(3.0))):
                file[f"{number:04d}/grid/{name}"] = values.astype(np.float32)
    source = config(path).open_source(path)
    monkeypatch.setattr(h5py, "File", None)
    picked = np.array([999, 0, 500])
    found = source.gather(picked, np.tile([0, 2], (3, 1)))
    np.testing.assert_array_equal(found[:, 1, 2, 3, 0], picked)
