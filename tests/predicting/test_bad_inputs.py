"""What nobody can forecast from is told in words, with the exit codes of all commands."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ups_kit
from ups_kit.errors import DataError
from ups_kit.predicting.places import read_places
from ups_kit.predicting.start import plain_arrays

from .conftest import Case, Upskit

U, X = np.zeros(64, np.float32), np.linspace(-1, 1, 64, endpoint=False)
GAP = np.where(np.arange(64) == 5, np.nan, U)

PLAIN: dict[str, tuple[dict[str, Any], str]] = {
    "points": ({"u": U[:63], "epsilon": 0.01}, "array 'u' has the shape [63]; expected [1, 64, 1] or [64]"),
    "channels": ({"u": np.zeros((64, 2)), "epsilon": 0.01}, "has the shape [64, 2]; expected [1, 64, 1] or [64]"),
    "frames": ({"u": np.zeros((3, 64, 1)), "epsilon": 0.01}, "has the shape [3, 64, 1]"),
    "gaps": ({"u": GAP, "epsilon": 0.01}, "frames: 1 of 64 values are NaN or infinite, the first at [0, 0, 5, 0]"),
    "no parameter": ({"u": U}, "'epsilon' is missing (parameters: epsilon; dt); --parameter NAME=VALUE"),
    "another name": ({"v": U, "epsilon": 0.01}, "no array is called 'v' here"),
    "near name": ({"u": U, "epsilno": 0.01}, "no array is called 'epsilno' here; did you mean 'epsilon'?"),
    "no field": ({"epsilon": 0.01}, "'u' is missing; expected arrays u, or all in one, 'frames'"),
    "statics": ({"u": U, "epsilon": 0.01, "statics": U}, "the model is given no statics; leave 'statics' out"),
    "words": ({"u": np.array(["a"] * 64), "epsilon": 0.01}, "array 'u' holds values of type <U1; expected numbers"),
    "two numbers": ({"u": U, "epsilon": [0.1, 0.2]}, "parameter 'epsilon' has the shape [2]; expected one number"),
    "infinite": ({"u": U, "epsilon": np.inf}, "parameters.epsilon: expected a finite number, got inf"),
    "time step": ({"u": U, "epsilon": 0.01, "dt": 9.0}, "parameters.dt: the model was trained with 0.166667 alone"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_arrays_that_do_not_fit(case: str, burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    given, message = PLAIN[case]
    np.savez(tmp_path / "given.npz", **given)
    out = tmp_path / "out.npz"
    code, _, said = upskit("predict", burgers.folder, "--input", tmp_path / "given.npz", "--steps", 2, "--out", out)
    assert (code, message in said, "given.npz" in said) == (3, True, True), said
    assert not out.exists()


OPTIONS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no steps": (("--out", "o.npz"), 2, "--steps is missing; expected the number of steps of 0.166667 to forecast"),
    "steps 0": (("--steps", "0", "--out", "o.npz"), 2, "0 is not in the range x>=1"),
    "suffix": (("--steps", "1", "--out", "o.npy"), 2, "expected a name that ends in .npz, .h5, .hdf5, .zarr"),
    "near suffix": (("--steps", "1", "--out", "o.zar"), 2, "did you mean '.zarr'?"),
    "grid of 2": (("--steps", "1", "--out", "o.npz", "--points", "grid:8x8"), 2, "each of 1 axis; nearest: grid:8"),
    "grid of 0": (("--steps", "1", "--out", "o.npz", "--points", "grid:0"), 2, "nearest: grid:1"),
    "grid of words": (("--steps", "1", "--out", "o.npz", "--points", "grid:big"), 2, "nearest: grid:64"),
    "points": (("--steps", "1", "--out", "o.npz", "--points", "gird:64"), 2, "did you mean 'grid:64'?"),
    "no points": (("--steps", "1", "--out", "o.npz", "--points", "p.npy"), 3, "p.npy: there is no such file"),
    "sample": (("--steps", "1", "--out", "o.npz", "--sample", "11"), 3, "expected 0 … 10, nearest: --sample 10"),
    "frame": (("--steps", "1", "--out", "o.npz", "--frame", "99"), 3, "expected 0 … 12, nearest: --frame 12"),
    "task": (("--steps", "1", "--out", "o.npz", "--task", "waves"), 3, "this model has no tasks, leave it out"),
    "forecast": (("--steps", "1", "--out", "o.npz", "--forecast", "oprator"), 3, "did you mean 'operator'?"),
    "stage": (("--steps", "1", "--out", "o.npz", "--forecast", "evaluate"), 3, "adds no part that draws forecasts"),
    "members": (("--steps", "1", "--out", "o.npz", "--members", "2"), 3, "draws nothing"),
    "all of none": (("--steps", "1", "--out", "o.npz", "--all-members"), 2, "--all-members needs --members N"),
    "parameter": (("--steps", "1", "--out", "o.npz", "--parameter", "eps=1"), 3, "there is no 'eps'"),
    "no number": (("--steps", "1", "--out", "o.npz", "--parameter", "epsilon=a"), 2, "expected NAME=NUMBER"),
    "twice": (("--steps", "1", "--out", "o.npz", *("--parameter", "epsilon=1") * 2), 2, "more than once"),
    "device": (("--steps", "1", "--out", "o.npz", "--device", "gpu"), 2, "'gpu' is not on this machine"),
    "a file is in the way": (("--steps", "1", "--out", "data.txt/o.npz"), 6, "data.txt is a file; choose another"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_do_not_fit(
    case: str, burgers: Case, upskit: Upskit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, expected, message = OPTIONS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("text")
    code, _, said = upskit("predict", burgers.folder, "--input", burgers.data, *options)
    assert (code, message in said) == (expected, True), said
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]


def test_more_than_memory_holds_is_refused_before_it_is_made(
    burgers: Case, upskit: Upskit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("places", "command"):
        monkeypatch.setattr(f"ups_kit.predicting.{module}.available_memory", lambda: 2**20)
    common = ("predict", burgers.folder, "--input", burgers.data, "--out", tmp_path / "o.npz")
    code, _, said = upskit(*common, "--steps", 1, "--points", "grid:99999")
    assert (code, "so many points take" in said) == (2, True)
    code, _, said = upskit(*common, "--steps", 99999)
    assert (code, "99999 steps at 64 points take" in said) == (2, True)


def test_files_that_are_no_input(burgers: Case, drawing: Case, upskit: Upskit, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "pickle.h5").write_bytes(pickle.dumps({"u": [1.0]}))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "outside.npy", np.array([[0.5], [9.0], [-9.0]]))
    with h5py.File(burgers.data) as file, h5py.File(tmp_path / "coarse.h5", "w") as other:
        other["tensor"], other["t-coordinate"] = file["tensor"][:, :, ::2], file["t-coordinate"][()]
        other["x-coordinate"], other["epsilon"] = (np.arange(32) + 0.5) / 32, file["epsilon"][()]
    for name, message in {
        "nowhere.h5": "nowhere.h5: is not there",
        "text.h5": "text.h5",
        "pickle.h5": "it is a pickled file, which may run code when it is read, so it is not",
        "broken.npz": "broken.npz: cannot be read as .npz",
        "objects.npy": "objects.npy: cannot be read as .npy",
        "coarse.h5": "its fields are on 32, and the model is given a grid of 64 points",
    }.items():
        common = ("predict", burgers.folder, "--steps", 1, "--out", tmp_path / "o.npz")
        code, _, said = upskit(*common, "--input", tmp_path / name)
        assert (code, message in said) == (3, True), said
    code, _, said = upskit("predict", tmp_path, "--steps", 1, "--out", tmp_path / "o.npz", "--input", burgers.data)
    assert (code, "is not a bundle" in said) == (6, True)
    assert not (tmp_path / "o.npz").exists()


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed], ids=["npy", "npz", "compressed"])
def test_damaged_arrays_are_refused_whatever_is_damaged(save: Callable[..., None], tmp_path: Path) -> None:
    path, draw = tmp_path / f"a.{'npy' if save is np.save else 'npz'}", random.Random(0)
    save(path, np.arange(64.0))
    whole, told = path.read_bytes(), []
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(min(len(damaged), 300))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            plain_arrays(path)
        except DataError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all(message.startswith(f"{path}: ") and "unsafely" not in message for message in told)


@pytest.mark.parametrize("text", ["", "x\n", "# nothing\n\n"], ids=["empty", "names", "comments"])
def test_a_file_of_no_positions_is_refused(text: str, burgers: Case, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text(text)
    with pytest.raises(DataError, match=r"none\.csv: has the shape \[0, 0\]; expected positions \[points, 1\]"):
        read_places(str(tmp_path / "none.csv"), burgers.experiment.dataset.fields)


def test_an_untrained_part_is_refused(drawing: Case, upskit: Upskit, tmp_path: Path) -> None:
    common = ("predict", drawing.folder, "--input", drawing.data, "--steps", 1, "--out", tmp_path / "o.npz")
    code, _, said = upskit(*common, "--forecast", "consistency")
    assert (code, "the part of stage 'consistency' is not trained" in said) == (3, True)
    assert "forecasts: operator, diffusion" in said
    code, _, said = upskit(*common, "--sampling-steps", 2)
    assert (code, "those that do: forecast = diffusion" in said) == (3, True)


def test_folders_that_are_no_store_are_left_alone(burgers: Case, upskit: Upskit, tmp_path: Path) -> None:
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr/thesis.tex").write_text("all of it")
    common = ("predict", burgers.folder, "--input", burgers.data, "--steps", 1, "--overwrite")
    code, _, said = upskit(*common, "--out", tmp_path / "mine.zarr")
    assert (code, "would be replaced by a Zarr store" in said) == (6, True)
    assert (tmp_path / "mine.zarr/thesis.tex").read_text() == "all of it"


def test_points_outside_the_domain(burgers: Case, meshes: Case, upskit: Upskit, tmp_path: Path) -> None:
    """Along a periodic axis they stand for their images; along others they are counted and refused."""
    bundle, inside = ups_kit.load(burgers.folder), np.array([[0.1], [0.7]])
    length = bundle.fields.extent[0]
    near = bundle.predict(U[:, None] + 1, {"epsilon": 0.01}, 2, inside)
    np.testing.assert_allclose(
        bundle.predict(U[:, None] + 1, {"epsilon": 0.01}, 2, inside + 3 * length), near, atol=1e-4
    )
    np.save(tmp_path / "p.npy", np.array([[0.5, 0.5], [0.5, 1.5], [0.5, -1.0]]))
    common = ("predict", meshes.folder, "--input", meshes.data, "--steps", 1, "--out", tmp_path / "o.npz")
    code, _, said = upskit(*common, "--points", tmp_path / "p.npy")
    assert (code, "2 of 3 points lie outside the domain along y, which is not periodic" in said) == (3, True), said
    np.save(tmp_path / "p.npy", np.zeros((4, 3)))
    code, _, said = upskit(*common, "--points", tmp_path / "p.npy")
    assert (code, "has the shape [4, 3]; expected positions [points, 2]" in said) == (3, True)
    (tmp_path / "p.csv").write_text("0.1,0.2\n0.1\n")
    code, _, said = upskit(*common, "--points", tmp_path / "p.csv")
    assert (code, "p.csv, line 2: 1 numbers, and 2 in the lines before" in said) == (3, True)


def test_python_is_told_the_same(burgers: Case, drawing: Case) -> None:
    bundle, frames = ups_kit.load(drawing.folder), U[:, None]
    for keys, message in (
        ({"steps": 0}, "steps: expected 1 or more, got 0"),
        ({"members": 0, "forecast": "diffusion"}, "members: expected 1 or more"),
        ({"sampling_steps": 0, "forecast": "diffusion"}, "sampling_steps: expected 1 or more"),
        ({"queries": np.full((3, 1), np.nan)}, "queries: 3 of 3 values are NaN"),
        ({"queries": np.zeros((3, 2))}, r"queries: expected \(queries, 1\)"),
    ):
        with pytest.raises(DataError, match=message):
            bundle.predict(frames, {"epsilon": 0.01}, **{"steps": 1, **keys})  # type: ignore[arg-type]
