"""Stores in the `grid_zarr` layout: written, read, refused where headers disagree, and never silently wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.conversion import convert_file
from ups_kit.data.grid_store import GridStore, Kind, layout_of, write_grid_store
from ups_kit.data.zarr_store import tree_of_zarr
from ups_kit.errors import StorageError
from ups_plugins.grid.formats import GridZarrConfig
from ups_plugins.grid.source import Source

N, T, X, Y = 5, 4, 6, 3


def drawn(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng([*shape]).standard_normal(shape, dtype=np.float32)


FIELDS = {"u": drawn(N, T, X, Y, 1), "velocity": drawn(N, T, X, Y, 2)}
STATICS = {"nu": drawn(N, X, Y, 1)}


def header(**changes: Any) -> GridStore:
    keys: dict[str, Any] = {
        "trajectories": N,
        "axes": {"x": (np.arange(X) + 0.5) / X, "y": (np.arange(Y) + 0.5) / Y},
        "times": 0.1 * np.arange(T),
        "fields": {"u": 1, "velocity": 2},
        "statics": {"nu": 1},
        "parameters": {"tilt": np.linspace(0, 1, N)},
        "periodic": (True, False),
        "domain": ((0.0, 1.0), (0.0, 1.0)),
        "boundary_conditions": {"x": "periodic", "y": "wall"},
        "units": {"u": "m/s", "time": "s"},
    }
    return GridStore(**{**keys, **changes})


def value_of(kind: Kind, name: str, samples: slice, frames: slice) -> NDArray[np.float32]:
    return FIELDS[name][samples, frames] if kind == "fields" else STATICS[name][samples]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_grid_store(tmp_path / "s.zarr", header(), value_of)
    return tmp_path / "s.zarr"


def opened(path: Path, **keys: Any) -> Source:
    return GridZarrConfig(path=path, **keys).open_source(path)


TRUTH = np.concatenate([FIELDS["u"], FIELDS["velocity"]], -1)


def test_what_is_written_is_read(path: Path) -> None:
    source = opened(path)
    assert [(each.name, each.channels, each.unit) for each in source.header.targets] == [
        ("u", 1, "m/s"),
        ("velocity", 2, "1"),
    ]
    assert [each.name for each in source.header.statics] == ["nu"]
    assert source.header.periodic == (True, False)
    np.testing.assert_array_equal(source.header.times, 0.1 * np.arange(T))
    np.testing.assert_array_equal(source.header.parameters["tilt"], np.linspace(0, 1, N))
    samples, frames = np.array([4, 1]), np.array([[0, 2], [1, 3]])
    np.testing.assert_array_equal(source.gather(samples, frames), TRUTH[samples[:, None], frames])
    np.testing.assert_array_equal(source.rows(samples, slice(1, 3)), TRUTH[samples, 1:3])
    np.testing.assert_array_equal(source.statics(samples), STATICS["nu"][samples])
    points = np.array([[0, 17], [5, 4]])
    flat = TRUTH.reshape(N, T, X * Y, 3)
    np.testing.assert_array_equal(
        source.gather_points(samples, frames, points), flat[samples[:, None, None], frames[..., None], points[:, None]]
    )


def test_the_layout_is_what_its_page_says(path: Path) -> None:
    """Zarr's own reader finds arrays, sharding, checksums and the fill value where they are said to be."""
    root = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(root["fields/velocity"][:], FIELDS["velocity"])
    np.testing.assert_array_equal(root["coords/y"][:], header().axes["y"])
    assert dict(root.attrs)["layout"] == "ups_kit/grid_zarr"
    for name in ("fields/u", "fields/velocity", "statics/nu"):
        array = root[name]
        assert array.shards is not None
        assert np.isnan(array.fill_value)
        packers = array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"]
        assert {"name": "zstd", "configuration": {"level": 1, "checksum": True}} in map(dict, packers)


@pytest.mark.parametrize("shape", [(100, 41, 256, 1), (3, 200, 64, 64, 2), (2, 30, 512, 512, 4), (1, 8, 96, 96, 96, 5)])
def test_chunks_are_small_and_shards_few(shape: tuple[int, ...]) -> None:
    chunk, shard = layout_of(shape, 4)
    assert all(whole % part == 0 for whole, part in zip(shard, chunk, strict=True))
    assert chunk[0] == 1
    assert np.prod(chunk) * 4 <= max(2**15, min(2**22, 4 * np.prod(shape[2:])))
    assert np.prod(shard) * 4 <= max(2 * 2**26, 4 * np.prod(chunk[1:2]) * 2 * np.prod(shape[2:]))
    assert (
        np.prod([-(-size // part) for size, part in zip(shape, shard, strict=True)]) <= 2 + np.prod(shape) * 4 / 2**24
    )


def test_a_store_of_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are asked for one by one, each once, and all that is asked for is read again."""
    monkeypatch.setattr("ups_kit.data.grid_store.SHARD_BYTES", 4 * T * X * Y * 2)
    asked = []

    def values(kind: Kind, name: str, samples: slice, frames: slice) -> NDArray[np.float32]:
        asked.append((name, samples.start, frames.start))
        return value_of(kind, name, samples, frames)

    write_grid_store(tmp_path / "s.zarr", header(), values)
    assert len(asked) == len(set(asked)) > 7
    np.testing.assert_array_equal(opened(tmp_path / "s.zarr").rows(np.arange(N), slice(None)), TRUTH)


def test_writing_damages_nothing(path: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StorageError, match="exists; a store is written to a path where nothing is"):
        write_grid_store(path, header(), value_of)
    with pytest.raises(ValueError, match="expected values of shape"):
        write_grid_store(tmp_path / "t.zarr", header(), lambda *_: np.zeros((1, 1)))
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["s.zarr"]


# ---------------------------------------------------------------------------------------------------------------------
# Other forms of the layout
# ---------------------------------------------------------------------------------------------------------------------
def write_plain(folder: Path, attributes: Mapping[str, Any] | None = None, **arrays: NDArray[Any]) -> Path:
    """A store as another program writes it: arrays with names like `fields__u`, few attributes, no shards."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.create_group(folder, attributes=dict(attributes or {}))
        for name, values in arrays.items():
            root.create_array(name.replace("__", "/"), shape=values.shape, dtype=values.dtype)[...] = values
    return folder


def plain_arrays(**changes: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    x, y = header().axes["x"], header().axes["y"]
    points = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    arrays = {"coords": points.reshape(-1, 2), "time": header().times, "fields__u": FIELDS["u"], **changes}
    return {name: values for name, values in arrays.items() if values is not None}


def test_one_trajectory_and_coordinates_of_all_points(tmp_path: Path) -> None:
    arrays = plain_arrays(fields__u=FIELDS["u"][2], statics__nu=STATICS["nu"][2], parameters__tilt=np.array(0.5))
    source = opened(write_plain(tmp_path / "one.zarr", **arrays))
    assert source.header.trajectories == 1
    assert source.header.grid == (X, Y)
    assert source.header.periodic is None
    np.testing.assert_array_equal(source.header.parameters["tilt"], [0.5])
    np.testing.assert_array_equal(source.gather(np.array([0]), np.array([[1, 2]])), FIELDS["u"][2:3, 1:3])
    np.testing.assert_array_equal(source.statics(np.array([0])), STATICS["nu"][2:3])


def test_statics_that_all_trajectories_share(tmp_path: Path) -> None:
    source = opened(write_plain(tmp_path / "s.zarr", **plain_arrays(statics__nu=STATICS["nu"][0])))
    np.testing.assert_array_equal(source.statics(np.array([3, 1])), np.repeat(STATICS["nu"][:1], 2, 0))


@pytest.mark.parametrize("grid", [(8,), (2, 3, 4)])
def test_one_and_three_dimensions(tmp_path: Path, grid: tuple[int, ...]) -> None:
    values = drawn(N, T, *grid, 2)
    axes = {name: np.arange(size) / size for name, size in zip("xyz", grid, strict=False)}
    store = header(axes=axes, fields={"u": 2}, statics={}, periodic=None, domain=None)
    write_grid_store(tmp_path / "s.zarr", store, lambda kind, name, samples, frames: values[samples, frames])
    source = opened(tmp_path / "s.zarr")
    assert source.header.grid == grid
    np.testing.assert_array_equal(source.rows(np.arange(N), slice(None)), values)


def test_steady_data(tmp_path: Path) -> None:
    store = header(steady=True, times=np.zeros(1))
    write_grid_store(tmp_path / "s.zarr", store, lambda k, n, s, f: value_of(k, n, s, slice(0, 1)))
    found = opened(tmp_path / "s.zarr").header
    assert found.steady
    assert len(found.times) == 1


def test_fields_can_be_chosen(path: Path) -> None:
    source = opened(path, fields=("velocity",), statics=())
    np.testing.assert_array_equal(source.rows(np.array([1]), slice(None)), FIELDS["velocity"][1:2])
    assert source.header.statics == ()
    with pytest.raises(DataError, match=r"fields: expected 'velocty'; did you mean 'velocity'\?, got u, velocity"):
        opened(path, fields=("velocty",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": np.arange(7.0)}, r"fields/u/zarr\.json: shape: expected .*\[7, 6, 3\] for time and points"),
        ({"time": np.array([0, 0.1, 0.3, 0.4])}, "'time' is not evenly spaced"),
        ({"time": None}, r"time/zarr\.json: expected this file, got none"),
        ({"coords": np.zeros((18, 2))}, "expected the points of a regular grid"),
        ({"coords": plain_arrays()["coords"][::-1]}, "in row-major order, got another order"),
        ({"fields__u": FIELDS["u"][..., 0]}, r"got \[5, 4, 6, 3\]"),
        ({"fields__u": FIELDS["u"].astype(np.int32)}, "expected float32 or float64, got int32"),
        ({"fields__v": drawn(N + 1, T, X, Y, 1)}, "expected as many trajectories in all of them"),
        ({"fields__u": None}, "fields: expected at least one, got nothing"),
        ({"statics__nu": drawn(N + 1, X, Y, 1)}, r"statics/nu/zarr\.json: shape: expected \[5, 6, 3\]"),
        ({"parameters__tilt": np.zeros(N + 2)}, r"parameters/tilt/zarr\.json: shape: expected \[5\]"),
    ],
)
def test_arrays_that_disagree(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    store = write_plain(tmp_path / "s.zarr", **plain_arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        opened(store)
    assert str(store) in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"layout": "cf"}, "layout: expected 'ups_kit/grid_zarr', got 'cf'"),
        ({"version": 2}, "version: expected 1, got 2; install a newer ups_kit"),
        ({"periodic": "yes"}, "periodic: expected true or false for each axis"),
        ({"periodic": [True]}, "periodic: expected 2 of true and false"),
        ({"fields": ["../u"]}, "the name 'fields/../u' leads out of the store"),
        ({"fields": "u"}, "fields: expected a list of names"),
        ({"units": [1]}, "units: expected a table of names"),
        ({"steady": True}, r"steady: expected one entry in 'time', got \[4\]"),
    ],
)
def test_attributes_that_disagree(tmp_path: Path, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(write_plain(tmp_path / "s.zarr", attributes, **plain_arrays()))


def test_metadata_that_were_changed_are_seen(path: Path) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["units"]["u"] = "km/s"
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"checksum: expected sha256:.* was damaged or changed .* remove the attribute"):
        opened(path)
    del document["attributes"]["checksum"]
    (path / "zarr.json").write_text(json.dumps(document))
    assert opened(path).header.targets[0].unit == "km/s"


def test_a_converted_store_is_one_again(path: Path, tmp_path: Path) -> None:
    """Through HDF5 and back: the checksum is of the new store's own metadata."""
    for source, ending in ((path, "h5"), (tmp_path / "new.h5", "zarr")):
        convert_file(source, tmp_path / f"new.{ending}")
    source = opened(tmp_path / "new.zarr")
    np.testing.assert_array_equal(source.rows(np.arange(N), slice(None)), TRUTH)
    assert source.header.targets[0].unit == "m/s"


def test_recognised(path: Path) -> None:
    tree = tree_of_zarr(path)
    assert GridZarrConfig.recognise(tree) == {}
    assert tree.attributes[""]["layout"] == "ups_kit/grid_zarr"
    shutil.rmtree(path / "time")
    assert GridZarrConfig.recognise(tree_of_zarr(path)) is None


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------
def damages(folder: Path, count: int, seed: int) -> Iterator[str]:
    """Damage one file of a store at a time, tell how, and put it back."""
    generator = np.random.default_rng(seed)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for _ in range(count):
        file = files[generator.integers(len(files))]
        whole = file.read_bytes()
        data = bytearray(whole)
        kind = ("flip", "flip", "flip", "cut", "delete", "zero", "grow")[generator.integers(7)]
        place = int(generator.integers(len(data)))
        if kind == "flip":
            data[place] ^= 1 << int(generator.integers(8))
        elif kind == "cut":
            del data[place:]
        elif kind == "zero":
            data[place : place + 32] = bytes(len(data[place : place + 32]))
        elif kind == "grow":
            data[place:place] = generator.bytes(7)
        if kind == "delete":
            file.unlink()
        else:
            file.write_bytes(data)
        yield f"{kind} at {place} of {file.relative_to(folder)}"
        file.write_bytes(whole)


def everything(path: Path) -> list[Any]:
    source = opened(path)
    header = source.header
    every = np.arange(header.trajectories)
    described = (header.targets, header.statics, header.periodic, header.steady, tuple(header.parameters))
    held = [header.times, *header.axes, *header.parameters.values(), source.rows(every, slice(None))]
    return [repr(described), *(values.tobytes() for values in (*held, source.statics(every)))]


def never_silently_wrong(path: Path, count: int, seed: int) -> None:
    truth = everything(path)
    refused = 0
    for how in damages(path, count, seed):
        try:
            found = everything(path)
        except DataError as error:
            assert str(path) in str(error), how  # noqa: PT017 - either it is refused, or read as it was
            refused += 1
        else:
            assert found == truth, how
    assert refused > 0.8 * count  # others hit spaces of JSON, or bytes that no value depends on
    assert everything(path) == truth


def test_a_thousand_damaged_stores_are_never_silently_wrong(path: Path) -> None:
    never_silently_wrong(path, 1000, seed=0)


@pytest.mark.slow
def test_many_more_damaged_stores(path: Path) -> None:
    never_silently_wrong(path, 5_000, seed=1)
