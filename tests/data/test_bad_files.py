"""Every row of the bad-input matrix for data files: what a user did, and what the message says."""

from __future__ import annotations

import fcntl
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ups_kit import DataError, LatentSpec
from ups_kit.data.hdf5 import damage_told
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.simulators.config import Burgers1DConfig

WriteFile = Callable[..., Path]
COUNTS = {"train": 8, "validation": 2, "test": 3}


def message(path: Path | tuple[Path, ...], build: bool = True, **keys: Any) -> str:
    """What the DataError of a dataset says; headers alone must be enough where `build` is false."""
    config = PDEBenchConfig(path=path, **COUNTS | keys)
    with pytest.raises(DataError) as raised:
        config.build(0) if build else config.describe()
    assert raised.value.exit_code == 3
    return str(raised.value)


def says(text: str, *parts: str) -> None:
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"


def test_r34_missing_file(tmp_path: Path, write_file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file("burgers.h5")
    monkeypatch.chdir(tmp_path)
    text = message(Path("burger.h5"), build=False)
    says(text, f"{tmp_path}/burger.h5: no such file", "did you mean 'burgers.h5'", "folder of the recipe file")
    says(text, "[dataset.simulate]", 'use = "burgers1d"')
    says(message(tmp_path / "nowhere" / "b.h5", build=False), "nowhere does not exist")
    says(message(tmp_path / "nu_*.h5", build=False), f"{tmp_path}/nu_*.h5: no file fits this pattern")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["is no HDF5 file", "empty (0 bytes)"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ["git-LFS pointer", "git lfs pull"]),
        (b"<!DOCTYPE html>\n<html><body>404 Not Found", ["web page", "'<!DOCTYPE html>", "download"]),
        (b"just some text\n", ["looks like text", "begins 'just some text", "expected an HDF5 file"]),
        (b"\x00\x01\x02\xff" * 20, ["looks like something else", r"begins '\x00\x01"]),
        (b"\x1f\x8b\x08\x00aaaa", ["gzip"]),
        (b"\x93NUMPY\x01\x00", ["NumPy"]),
    ],
)
def test_d01_not_hdf5(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    path = tmp_path / "data.h5"
    path.write_bytes(content)
    says(message(path, build=False), str(path), *parts)


def test_d01_zip(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.h5", "x")
    says(message(path, build=False), str(path), "zip archive; unpack it")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_d02_truncated(write_file: WriteFile, share: float) -> None:
    path = write_file()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    says(message(path, build=False), str(path), "is truncated", f"{len(whole):,}", f"{int(share * len(whole)):,}")
    says(message(path, build=False), "again")


def test_d03_damaged_header(write_file: WriteFile) -> None:
    path = write_file()
    content = bytearray(path.read_bytes())
    content[8] = 77  # the superblock's version
    path.write_bytes(content)
    says(message(path, build=False), str(path), "damaged HDF5 file", "again")


def test_d03_damaged_names(write_file: WriteFile) -> None:
    path = write_file()
    content = bytearray(path.read_bytes())
    heap = content.index(b"HEAP")
    content[heap + 16 : heap + 24] = b"\x07" * 8  # where the list of free space begins
    path.write_bytes(content)
    says(message(path, build=False), str(path), "is a damaged HDF5 file", "download or make it again")


@pytest.mark.parametrize(
    "words",
    ["Error iterating over attributes (ran off end of input buffer)", "Insufficient precision in available types"],
)
def test_d03_damaged_attributes(tmp_path: Path, words: str) -> None:
    path = tmp_path / "d.h5"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is a damaged HDF5 file"), damage_told(path):
        raise RuntimeError(words)


def test_d03_damaged_chunk(write_file: WriteFile) -> None:
    path = write_file(create={"chunks": (2, 7, 16), "compression": "gzip"})
    with h5py.File(path, "r+") as file:
        file["tensor"].id.write_direct_chunk((0, 0, 0), b"no gzip")
    says(message(path), str(path), "is a damaged HDF5 file")


def test_d04_locked(write_file: WriteFile) -> None:
    path = write_file()
    with path.open("r+b") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        says(message(path, build=False), str(path), "is locked by another process", "wait for that")


def test_d05_missing_dataset(write_file: WriteFile) -> None:
    path = write_file(tensor=None, tensors=np.zeros((14, 7, 16), np.float32))
    text = message(path, build=False)
    says(text, str(path), "no dataset is called 'tensor'", "did you mean 'tensors'", "tensors [14, 7, 16]")
    says(text, "x-coordinate [16]", "epsilon [14]")


def test_d06_rank_and_axis_order(write_file: WriteFile) -> None:
    flat = write_file(tensor=np.zeros((14, 7), np.float32))
    says(message(flat, build=False), "has the shape [14, 7]", "expected the axes [sample, time, x]")
    plane = write_file("2d.h5", tensor=np.zeros((14, 7, 16, 16), np.float32))
    says(message(plane, build=False), "coordinate 'y-coordinate' is missing", "tensor [14, 7, 16, 16]", "its points")
    five = write_file("5d.h5", tensor=np.zeros((2, 2, 2, 2, 2, 2), np.float32))
    says(message(five, build=False), "[2, 2, 2, 2, 2, 2]", "expected the axes [sample, time, x, y, z]", "got 4")
    turned = write_file("turned.h5", tensor=np.zeros((14, 16, 7), np.float32))
    says(message(turned, build=False), "[14, 16, 7]", "looks like [sample, x, time]", "tensor.transpose(0, 2, 1)")


def test_d07_coordinates(write_file: WriteFile) -> None:
    missing = write_file(t_coordinate=None)
    says(message(missing, build=False), "'t-coordinate' is missing", "tensor [14, 7, 16]")
    long = write_file("long.h5", t_coordinate=np.arange(11.0))
    says(message(long, build=False), "'t-coordinate' has the shape [11]", "7 or 8 values", "7 frames")
    short = write_file("short.h5", x_coordinate=np.arange(15.0))
    says(message(short, build=False), "'x-coordinate' has the shape [15]", "expected 16 values", "16 points")
    back = write_file("back.h5", t_coordinate=np.array([0, 1, 2, 2, 3, 4, 5.0]))
    says(message(back, build=False), "'t-coordinate' does not rise", "entries 2 and 3 are 2 and 2")
    uneven = write_file("uneven.h5", x_coordinate=np.linspace(0, 1, 16) ** 2)
    says(message(uneven, build=False), "'x-coordinate' is not evenly spaced", "expected equal")
    nan = write_file("nan.h5", x_coordinate=np.where(np.arange(16) == 5, np.nan, np.arange(16)))
    says(message(nan, build=False), "'x-coordinate' does not rise", "entries 4 and 5 are 4 and nan")


def test_d07_coordinates_that_are_no_numbers(write_file: WriteFile) -> None:
    path = write_file(x_coordinate=np.array([b"a"] * 16))
    says(message(path, build=False), "'x-coordinate' holds values of type |S1", "expected numbers")
    path = write_file(x_coordinate=np.arange(16) + 0j)
    says(message(path, build=False), "'x-coordinate' holds values of type complex128")
    path = write_file(tensor=h5py.Empty("f4"))
    says(message(path, build=False), "dataset 'tensor' is empty")


def test_d07_the_time_after_the_last_frame_is_not_looked_at(write_file: WriteFile) -> None:
    path = write_file(t_coordinate=np.array([0, 1, 2, 3, 4, 5, 6, np.nan]))
    assert PDEBenchConfig(path=path, **COUNTS).describe().dt == 1


def test_one_point_is_no_grid(write_file: WriteFile) -> None:
    says(message(write_file(points=1), build=False), "[14, 7, 1]", "at least 2 points, got 1")


def test_a_parameter_is_not_called_as_the_time_step(write_file: WriteFile) -> None:
    says(message(write_file(dt=np.ones(14)), build=False), "a parameter is called 'dt'", "dataset.conditions")
    path = write_file(dt=np.ones(14))
    assert PDEBenchConfig(path=path, conditions=("epsilon",), **COUNTS).describe().conditions == ("dt", "epsilon")


def test_an_attribute_of_another_program_is_left_alone(write_file: WriteFile) -> None:
    path = write_file()
    for text in ("the wind tunnel", "[1]", "3"):
        with h5py.File(path, "r+") as file:
            file.attrs["simulated_by"] = text
        PDEBenchConfig(path=path, simulate=Burgers1DConfig(), **COUNTS).describe()


def test_d08_nan_and_infinity(write_file: WriteFile) -> None:
    path = write_file()
    with h5py.File(path, "r+") as file:
        file["tensor"][:, 3, 2] = np.nan
        file["tensor"][6, 5, 5] = -np.inf
    text = message(path)
    says(
        text, str(path), "NaN or infinity at [time 3, x 2]", "13 trajectories hold", "(ids ", "drop_bad_samples = true"
    )
    one = write_file("one.h5", samples=13)
    with h5py.File(one, "r+") as file:
        file["tensor"][6, 5, 4] = -np.inf
    says(message(one), f"{one}, sample 6: NaN or infinity at [time 5, x 4]; 1 trajectories hold 1 such values (ids 6)")


def test_d08_parameter(write_file: WriteFile) -> None:
    path = write_file(epsilon=np.where(np.arange(14) == 3, np.nan, 1.0))
    says(message(path, build=False), str(path), "parameter 'epsilon' is not finite", "1 samples", "first being 3")


def test_d09_constant_field(write_file: WriteFile) -> None:
    frames = np.full((14, 7, 16), 2.5, np.float32)
    frames[:, 0, 1] = np.arange(14)  # between the points that are read
    path = write_file(tensor=frames)
    says(message(path, space_stride=2), str(path), "field 'u' is 2.5 everywhere", "normalisation would divide by 0")


@pytest.mark.parametrize("dtype", ["i4", "f2", "c8", h5py.string_dtype(), np.dtype([("a", "f4")])])
def test_d10_types(write_file: WriteFile, dtype: Any) -> None:
    path = write_file(tensor=np.zeros((14, 7, 16), dtype) if dtype != h5py.string_dtype() else None)
    if dtype == h5py.string_dtype():
        with h5py.File(path, "r+") as file:
            file.create_dataset("tensor", (14, 7, 16), dtype)
    says(message(path, build=False), str(path), "'tensor' holds values of type", "expected float32 and float64")


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8"])
def test_d11_other_floats_are_read(write_file: WriteFile, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).normal(size=(14, 7, 16))
    path = write_file(tensor=values.astype(dtype))
    held = PDEBenchConfig(path=path, **COUNTS).build(0).trajectories("test")
    np.testing.assert_array_equal(held.values[..., 0], values.astype(np.float32)[held.ids])
    told = capsys.readouterr().err.replace("\n", " ")
    said = f"holds values of type {np.dtype(dtype).str}; they are read as float32"
    assert told.count(said) == 1


def test_d12_too_few_samples(write_file: WriteFile) -> None:
    path = write_file()
    text = message(path, train=20)
    says(text, str(path), "3 test + 2 validation + 20 train", "there are 14", "expected at least 25")
    says(message(path, train=None, test=12), "12 test + 2 validation + the rest train", "at least 15")
    empty = write_file("empty.h5", tensor=np.zeros((0, 7, 16), np.float32), epsilon=None)
    says(message(empty, build=False), "[0, 7, 16]", "0 samples")
    says(
        message(path, build=False, time_stride=4, history=2), "7 frames", "history = 2", "time_stride = 4", "at least 9"
    )


def problems(config: PDEBenchConfig) -> dict[str, str]:
    """What headers alone say is wrong with a dataset's keys."""
    return dict(config.check(config.describe(), LatentSpec(8)))


def test_d12_counts_are_checked_before_anything_is_read(write_file: WriteFile) -> None:
    path = write_file()
    assert problems(PDEBenchConfig(path=path, **COUNTS)) == {}
    assert problems(PDEBenchConfig(path=path, **COUNTS | {"train": None})) == {}
    (train,) = problems(PDEBenchConfig(path=path, **COUNTS | {"train": 20})).items()
    assert train[0] == "train"
    says(train[1], str(path), "3 test + 2 validation + 20 train", "there are 14", "nearest: train = 9, or add data")
    (test,) = problems(PDEBenchConfig(path=path, **COUNTS | {"train": None, "test": 12})).items()
    assert test[0] == "test"
    says(test[1], "12 test + 2 validation + the rest train", "at least 15", "nearest: test = 11")
    (none,) = problems(PDEBenchConfig(path=path, train=10, validation=10, test=10)).values()
    says(none, "expected at least 30; lower the counts, or add data")


def test_d12_counts_of_a_file_that_is_still_to_be_made(tmp_path: Path) -> None:
    path, simulate = tmp_path / "later.h5", Burgers1DConfig(trajectories=12)
    ((key, text),) = problems(PDEBenchConfig(path=path, simulate=simulate, **COUNTS)).items()
    assert key == "train"
    says(text, f"{path}, to be made with dataset.simulate.trajectories = 12", "there are 12", "nearest: train = 7")
    assert problems(PDEBenchConfig(path=path, simulate=Burgers1DConfig(trajectories=13), **COUNTS)) == {}
    assert not path.exists()


def test_d12_counts_of_separate_test_files(write_file: WriteFile, tmp_path: Path) -> None:
    path, other = write_file(), write_file("test.h5", samples=4, seed=1)
    keys = {**COUNTS, "path": path, "test_path": other}
    assert problems(PDEBenchConfig(**keys | {"train": 12})) == {}
    found = problems(PDEBenchConfig(**keys | {"train": 13, "test": 5}))
    says(found["train"], f"{path}: the splits take 2 validation + 13 train", "there are 14", "nearest: train = 12")
    says(found["test"], f"{other}: the splits take 5 test", "there are 4", "nearest: test = 4")
    says(problems(PDEBenchConfig(**keys | {"test_path": tmp_path / "t.h5"}))["test_path"], "t.h5: no such file")
    wide = write_file("wide.h5", points=32)
    says(problems(PDEBenchConfig(**keys | {"test_path": wide}))["test_path"], "files differ", str(wide))


def test_an_error_names_the_key_that_it_is_about(write_file: WriteFile, tmp_path: Path) -> None:
    def key(**keys: Any) -> str:
        with pytest.raises(DataError) as raised:
            PDEBenchConfig(**COUNTS | {"path": path} | keys).build(0)
        return raised.value.key

    path = write_file()
    assert key(path=tmp_path / "gone.h5") == key(path=tmp_path / "*.nc") == key(tensor="u") == "path"
    assert key(test_path=tmp_path / "gone.h5") == "test_path"
    assert key(parameters={"epsilon": 1.0}) == "parameters"
    assert key(conditions=("beta",)) == "conditions"
    assert key(space_stride=3) == "space_stride"
    assert key(train=20) == "train"
    made = tmp_path / "made.h5"
    small = Burgers1DConfig(trajectories=13, points=16, frames=3, duration=0.05, refinement=1)
    PDEBenchConfig(path=made, simulate=small, **COUNTS).build(0)
    other = Burgers1DConfig(trajectories=13, points=16, frames=5, duration=0.05, refinement=1)
    assert key(path=made, simulate=other) == "simulate.frames"


def test_d13_overlap(write_file: WriteFile) -> None:
    path = write_file()
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    text = message(path, test_path=copy, train=12, test=14)
    says(text, "14 initial conditions stand in two splits", "(train) = ", "(test)", "unseen")
    says(message(path, test_path=path, train=12, test=14), "in two splits")
    says(message((path, path)), "more than once", str(path))


def test_d14_files_that_differ(write_file: WriteFile) -> None:
    first, second = write_file(), write_file("wide.h5", points=32)
    text = message((first, second), build=False)
    says(text, "files differ", f"{first}: [14, 7, 16], x 0.03125 … 0.96875", f"{second}: [14, 7, 32]", "epsilon")


def test_d15_values_in_other_files(write_file: WriteFile, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.random.default_rng(0).normal(size=14 * 7 * 16).astype("f4").tobytes())
    external = write_file("external.h5", tensor=None)
    with h5py.File(external, "r+") as file:
        file.create_dataset("tensor", (14, 7, 16), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    says(message(external, build=False), f"{external}: dataset 'tensor' keeps its values in {secret}", "allow_external")

    inner = write_file("inner.h5")
    linked = write_file("linked.h5", tensor=None)
    with h5py.File(linked, "r+") as file:
        file["tensor"] = h5py.ExternalLink(str(inner), "/tensor")
    says(message(linked, build=False), "'tensor' is a link to", f"{inner}:/tensor", "allow_external")

    virtual = write_file("virtual.h5", tensor=None)
    layout = h5py.VirtualLayout((14, 7, 16), "f4")
    layout[:] = h5py.VirtualSource(str(inner), "tensor", (14, 7, 16))
    with h5py.File(virtual, "r+") as file:
        file.create_virtual_dataset("tensor", layout)
    says(message(virtual, build=False), "'tensor' is virtual, made of", str(inner), "allow_external")

    for path in (external, linked, virtual):
        held = PDEBenchConfig(path=path, allow_external=True, **COUNTS).build(0).trajectories("test")
        source = np.fromfile(secret, "f4").reshape(14, 7, 16) if path == external else h5py.File(inner)["tensor"][()]
        np.testing.assert_array_equal(held.values[..., 0], source[held.ids])


def test_d15_parameters_in_other_files(write_file: WriteFile) -> None:
    inner, linked = write_file("inner.h5"), write_file("linked.h5", epsilon=None)
    with h5py.File(linked, "r+") as file:
        file["epsilon"] = h5py.ExternalLink(str(inner), "/epsilon")
    assert PDEBenchConfig(path=linked, **COUNTS).describe().conditions == ("dt",)
    with h5py.File(linked, "r+") as file:
        del file["t-coordinate"]
        file["t-coordinate"] = h5py.ExternalLink(str(inner), "/t-coordinate")
    says(message(linked, build=False), "'t-coordinate' is a link to", "allow_external")


def test_d16_unknown_filter(write_file: WriteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(create={"chunks": (1, 7, 16), "compression": "gzip"})
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    says(message(path, build=False), str(path), "filter 1 (deflate)", "not installed", "pip install hdf5plugin")


def test_d25_parameter_that_is_nowhere(write_file: WriteFile) -> None:
    path = write_file()
    text = message(path, build=False, conditions=("epsilom",))
    says(text, str(path), "no parameter 'epsilom'", "did you mean 'epsilon'", "dataset.parameters", "found: epsilon")
    says(message(path, build=False, parameters={"epsilon": 0.1}), "holds 'epsilon' of each trajectory", "0.1")
    says(
        message((path, write_file("b.h5")), build=False, parameters={"beta": (1.0, 2.0, 3.0)}), "3 numbers for 2 files"
    )


def test_d26_kinds_of_files(tmp_path: Path) -> None:
    says(message(tmp_path, build=False), f"{tmp_path}: is a folder; expected an HDF5 file")
    fifo, broken = tmp_path / "fifo", tmp_path / "broken.h5"
    os.mkfifo(fifo)
    says(message(fifo, build=False), "is a FIFO")
    broken.symlink_to(tmp_path / "gone.h5")
    says(message(broken, build=False), f"a link to {tmp_path}/gone.h5, which does not exist")
    says(message(Path("/dev/null"), build=False), "/dev/null: is a device")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        says(message(tmp_path / "socket", build=False), "is a socket")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_d26_permission(write_file: WriteFile) -> None:
    path = write_file()
    path.chmod(0)
    says(message(path, build=False), f"{path}: permission denied")


@pytest.mark.parametrize("address", ["https://host/a.h5", "s3://bucket/a.hdf5"])
def test_d27_an_address_of_hdf5(address: str) -> None:
    says(message(Path(address), build=False), f"{address}: HDF5 files are read from this machine alone", "download it")


def test_strides_that_do_not_fit(write_file: WriteFile) -> None:
    says(message(write_file(), build=False, space_stride=3), "space_stride = 3 does not divide the 16 points", "2, 4")


def test_a_simulator_makes_no_list_of_files(write_file: WriteFile, tmp_path: Path) -> None:
    path, other = write_file(), write_file("b.h5", seed=1)
    keys = {**COUNTS, "simulate": Burgers1DConfig()}
    assert PDEBenchConfig(path=(path, other), **keys).describe().grid == (16,)
    says(message((path, tmp_path / "c.h5"), build=False, simulate=Burgers1DConfig()), "c.h5: no such file")
