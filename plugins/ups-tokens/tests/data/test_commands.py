"""The core's commands on data, on these."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from attrs import frozen

from ups_kit.cli import main

TINY = ("trajectories=30", "pixels=8", "wavelengths=32", "image_tokens=16", "spectrum_tokens=16", "scalar_tokens=8")


@frozen
class Done:
    """What a command has printed, and what it ended with."""

    code: int
    output: str
    errors: str


@pytest.fixture
def upskit(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Calls a command."""

    def call(*arguments: object) -> Done:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return call


Upskit = Callable[..., Done]


def test_galaxies_are_made_and_recognised(tmp_path: Path, upskit: Upskit) -> None:
    path = tmp_path / "galaxies.h5"
    settings = [part for key in (*TINY, "fitted_on=60") for part in ("--set", key)]
    done = upskit("data", "make", "galaxies", "--out", path, *settings)
    assert done.code == 0, done.errors
    refused = upskit("data", "make", "galaxies", "--out", tmp_path / "galaxies.zarr", *settings)
    assert "'galaxies' writes an HDF5 file; nearest: --out" in refused.errors
    found = json.loads(upskit("data", "inspect", path, "--json").output)
    (layout,) = found["layouts"]
    assert layout["use"] == "typed_tokens"
    assert layout["problems"] == []
    assert layout["table"]["validation"] + layout["table"]["test"] < 30  # as many as leave some to train on


def test_values_are_checked(galaxies: Path, tmp_path: Path, upskit: Upskit) -> None:
    path = tmp_path / "galaxies.h5"
    shutil.copy(galaxies, path)
    done = upskit("data", "validate", path)
    assert done.code == 0, done.errors
    assert "valid (typed_tokens)" in done.output
    assert "spectrum, 16 tokens of 8 values" in done.output
    assert "no sample in two of them" in done.output
    assert upskit("data", "check", path).code == 0
    with h5py.File(path, "r+") as file:
        file["tokens"][2, 3] = 9999
    done = upskit("data", "validate", path)
    assert done.code == 3
    assert "an id outside the vocabulary" in done.output + done.errors


def test_a_file_is_copied_to_a_store_that_reads_the_same(galaxies: Path, tmp_path: Path, upskit: Upskit) -> None:
    target = tmp_path / "galaxies.zarr"
    done = upskit("data", "convert", galaxies, "--out", target)
    assert done.code == 0, done.errors
    done = upskit("data", "validate", target, "--json")
    assert json.loads(done.output)["valid"], done.output
