"""The Well's layout: read as its own reader reads it, and refused where headers and values disagree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ups_kit import DataError
from ups_plugins.grid.formats import WellConfig
from ups_plugins.grid.source import Source

from .well_files import write_well

N, T, X, Y = 3, 5, 4, 6


def drawn(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def all_fields() -> dict[str, tuple[int, NDArray[np.float32], dict[str, Any]]]:
    """Every way in which a 2D field may be stored: order of the tensor, values, attributes."""
    return {
        "density": (0, drawn(N, T, X, Y), {}),
        "forcing": (0, drawn(T, X, Y, seed=1), {"sample_varying": False}),
        "profile": (0, drawn(N, T, X, 1, seed=2), {"dim_varying": [True, False]}),
        "depth": (0, drawn(N, X, Y, seed=3), {"time_varying": False}),
        "mask": (0, drawn(X, Y, seed=4), {"time_varying": False, "sample_varying": False}),
        "velocity": (1, drawn(N, T, X, Y, 2, seed=5), {}),
        "gravity": (1, drawn(X, Y, 2, seed=6), {"time_varying": False, "sample_varying": False}),
        "stress": (2, drawn(N, T, X, Y, 2, 2, seed=7), {"symmetric": False, "antisymmetric": False}),
    }


SCALARS = {
    "reynolds": (100.0, False, False),
    "tilt": ([0.1, 0.2, 0.3], True, False),
    "heating": (np.arange(T), False, True),
}
TARGETS = ["density", "forcing", "profile", "velocity", "stress"]
STATICS = ["depth", "mask", "gravity"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_well(
        tmp_path / "data" / "train" / "waves.hdf5", all_fields(), (X, Y), T, N, SCALARS, periodic=(True, False)
    )


def opened(path: Path, **keys: Any) -> Source:
    return WellConfig(path=path, **keys).open_source(path)


def expected_targets() -> NDArray[np.float32]:
    """All fields that change in time, (N, T, X, Y, channels), written down from the layout's description."""
    fields = {name: values for name, (_, values, _) in all_fields().items()}
    return np.concatenate(
        [
            fields["density"][..., None],
            np.repeat(fields["forcing"][None, ..., None], N, 0),
            np.repeat(fields["profile"], Y, 3)[..., None],
            fields["velocity"],
            fields["stress"].reshape(N, T, X, Y, 4),
        ],
        -1,
    )


def expected_statics() -> NDArray[np.float32]:
    fields = {name: values for name, (_, values, _) in all_fields().items()}
    shared = [np.repeat(fields[name].reshape(1, X, Y, -1), N, 0) for name in ("mask", "gravity")]
    return np.concatenate([fields["depth"][..., None], *shared], -1)


def test_header_says_what_the_file_holds(path: Path) -> None:
    header = opened(path).header
    assert {field.name: field.channels for field in header.targets} == dict(zip(TARGETS, (1, 1, 1, 2, 4), strict=True))
    assert {field.name: field.channels for field in header.statics} == dict(zip(STATICS, (1, 1, 2), strict=True))
    assert [field.name for field in (*header.targets, *header.statics)] == TARGETS + STATICS
    assert header.trajectories == N
    assert header.grid == (X, Y)
    assert header.periodic == (True, False)
    np.testing.assert_allclose(header.times, 0.1 * np.arange(T), atol=1e-6)
    np.testing.assert_allclose(header.axes[1], (np.arange(Y) + 0.5) / Y, atol=1e-6)
    assert sorted(header.parameters) == ["reynolds", "tilt"]
    np.testing.assert_allclose(header.parameters["tilt"], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(header.parameters["reynolds"], [100.0] * N)


def test_values_are_those_of_the_layout(path: Path) -> None:
    source, truth = opened(path), expected_targets()
    samples, frames = np.array([2, 0, 2]), np.array([[0, 2], [1, 3], [2, 4]])
    np.testing.assert_array_equal(source.gather(samples, frames), truth[samples[:, None], frames])
    np.testing.assert_array_equal(source.rows(np.array([1, 2]), slice(0, None, 2)), truth[[1, 2], ::2])
    np.testing.assert_array_equal(source.statics(np.array([2, 1])), expected_statics()[[2, 1]])
    points = np.array([[0, 23, 7], [5, 6, 1], [9, 9, 8]])
    flat = truth.reshape(N, T, X * Y, -1)
    np.testing.assert_array_equal(
        source.gather_points(samples, frames, points), flat[samples[:, None, None], frames[..., None], points[:, None]]
    )


def test_fields_can_be_chosen(path: Path) -> None:
    source = opened(path, fields=("velocity", "density"), statics=("mask",))
    truth = expected_targets()
    np.testing.assert_array_equal(
        source.rows(np.arange(N), slice(None)), np.concatenate([truth[..., 3:5], truth[..., :1]], -1)
    )
    assert source.statics(np.array([0])).shape == (1, X, Y, 1)
    with pytest.raises(DataError, match=r"no field 'densty' among those that change in time .*did you mean 'density'"):
        opened(path, fields=("densty",))
    with pytest.raises(DataError, match="'depth' is one of the others"):
        opened(path, fields=("depth",))


def test_values_are_those_of_its_own_reader(path: Path) -> None:
    pytest.importorskip("the_well", reason="The Well's own package is not installed")
    from the_well.data import WellDataset

    theirs = WellDataset(path=str(path.parent), n_steps_input=1, n_steps_output=1, use_normalization=False)
    source = opened(path)
    assert len(theirs) == N * (T - 1)
    for number in range(len(theirs)):
        item = theirs[number]
        sample, frame = divmod(number, T - 1)
        ours = source.gather(np.array([sample]), np.array([[frame, frame + 1]]))[0]
        np.testing.assert_array_equal(ours[0], item["input_fields"][0].numpy())
        np.testing.assert_array_equal(ours[1], item["output_fields"][0].numpy())
        np.testing.assert_array_equal(source.statics(np.array([sample]))[0], item["constant_fields"].numpy())
        parameters = [source.header.parameters[name][sample] for name in ("reynolds", "tilt")]
        np.testing.assert_allclose(item["constant_scalars"].numpy(), parameters, rtol=1e-6)
    grid = np.stack(np.meshgrid(*source.header.axes, indexing="ij"), -1)
    np.testing.assert_allclose(theirs[0]["space_grid"].numpy(), grid, atol=1e-6)
    wall, wraps = 0, 2  # their numbers
    assert theirs[0]["boundary_conditions"].numpy().tolist() == [[wraps, wraps], [wall, wall]]


@pytest.mark.parametrize(("grid", "order"), [((8,), 0), ((4, 5, 6), 1)])
def test_one_and_three_dimensions(tmp_path: Path, grid: tuple[int, ...], order: int) -> None:
    values = drawn(N, T, *grid, *(len(grid),) * order)
    path = write_well(tmp_path / "waves.hdf5", {"u": (order, values, {})}, grid, T, N, chunks=True, compression="gzip")
    source = opened(path)
    truth = values.reshape(N, T, *grid, -1)
    np.testing.assert_array_equal(source.rows(np.arange(N), slice(None)), truth)
    samples, frames, points = np.array([1, 2]), np.array([[0, 1], [3, 4]]), np.array([[0, 3], [7, 2]])
    flat = truth.reshape(N, T, -1, truth.shape[-1])
    np.testing.assert_array_equal(
        source.gather_points(samples, frames, points), flat[samples[:, None, None], frames[..., None], points[:, None]]
    )


def damaged(path: Path, change: Any) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def remove(name: str) -> Any:
    return lambda file: file.__delitem__(name)


def attribute(where: str, key: str, value: Any) -> Any:
    return lambda file: file[where].attrs.__setitem__(key, value)


def replaced(name: str, values: Any) -> Any:
    def change(file: h5py.File) -> None:
        kept = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values).attrs.update(kept)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__delitem__("n_trajectories"), "attribute 'n_trajectories' of the root is missing"),
        (attribute("/", "n_trajectories", 7), r"'t0_fields/density' has the shape \[3, 5, 4, 6\]; expected the axes"),
        (attribute("/", "n_trajectories", -1), "'n_trajectories' is -1; expected a whole number of at least 1"),
        (attribute("/", "n_spatial_dims", 3), "n_spatial_dims is 3 and dimensions.spatial_dims names 2"),
        (remove("dimensions/y"), "'spatial_dims' of 'dimensions' names 'y', which is not there"),
        (remove("dimensions"), "no group is called 'dimensions'"),
        (remove("dimensions/time"), "no dataset is called 'dimensions/time'"),
        (replaced("dimensions/time", np.array([0.0, 0.1, 0.3, 0.4, 0.5])), "'dimensions/time' is not evenly spaced"),
        (replaced("dimensions/x", np.array([0.0, 0.2, 0.1, 0.3])), "'dimensions/x' does not rise"),
        (replaced("dimensions/time", np.arange(7.0)), r"expected the axes \[trajectory 3, time 7, x 4, y 6\]"),
        (attribute("t0_fields/density", "dim_varying", [True]), "'dim_varying' of 't0_fields/density' is"),
        (lambda file: file["t0_fields/mask"].attrs.__delitem__("time_varying"), "'time_varying' of .* is missing"),
        (attribute("t0_fields", "field_names", ["densty"]), "names 'densty', which is not there; did you mean 'dens"),
        (replaced("scalars/tilt", np.arange(2.0)), r"'scalars/tilt' has the shape \[2\]; expected 3 values"),
        (replaced("t0_fields/density", np.zeros((N, T, X, Y), np.int32)), "holds values of type int32"),
        (attribute("dimensions/x", "time_varying", True), "'dimensions/x' changes in time"),
    ],
)
def test_headers_that_disagree_are_refused(path: Path, change: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(damaged(path, change))
    assert str(path) in str(caught.value)


def test_times_of_each_trajectory_have_to_agree(path: Path) -> None:
    times = np.broadcast_to(0.1 * np.arange(T), (N, T)).copy()

    def change(file: h5py.File) -> None:
        replaced("dimensions/time", times)(file)
        file["dimensions/time"].attrs["sample_varying"] = True

    np.testing.assert_allclose(opened(damaged(path, change)).header.times, times[0])
    times[2] *= 2
    with pytest.raises(DataError, match=r"'dimensions/time' of trajectory 2 differs from that of trajectory 0"):
        opened(damaged(path, change))


def test_a_group_in_another_file_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.hdf5"
    path.rename(other)
    with h5py.File(path, "w") as file, h5py.File(other) as source:
        for name, value in source.attrs.items():
            file.attrs[name] = value
        file["dimensions"] = h5py.ExternalLink(str(other), "dimensions")
    with pytest.raises(DataError, match=r"group 'dimensions' is a link to .*other.hdf5"):
        opened(path)
