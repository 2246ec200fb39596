"""Stores of meshes that are wrong in odd ways (D20): each is told with file, sample, what was expected and got."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from ups_kit import DataError, LatentSpec
from ups_plugins.mesh.formats import MeshZarrConfig

WriteStore = Callable[..., Path]
SAMPLE = "sample_00002"


def told(path: Path, **keys: Any) -> str:
    """What reading the store says, with the place of the test's folder left out."""
    with pytest.raises(DataError) as caught:
        MeshZarrConfig(path=path, validation=2, test=2, **keys).build(0)
    return str(caught.value).replace(f"{path.parent}/", "")


def change(path: Path, node: str = "", **attributes: Any) -> None:
    """Other attributes for a group or array (None: none of this name); no checksums any more."""
    for folder in {path, path / SAMPLE, path / node}:
        document = json.loads((folder / "zarr.json").read_text())
        document["attributes"].pop("checksum", None)
        document["attributes"] |= attributes if folder == path / node else {}
        document["attributes"] = {key: value for key, value in document["attributes"].items() if value is not None}
        (folder / "zarr.json").write_text(json.dumps(document))


def replace(path: Path, name: str, values: NDArray[Any]) -> None:
    """Another array in the sample, with the attributes of the old one."""
    change(path)
    group = zarr.open_group(path / SAMPLE, mode="a")
    kept = dict(group[name].attrs)
    del group[name]
    fill = np.nan if values.dtype.kind == "f" else 0
    group.create_array(name, data=values, chunks=values.shape, fill_value=fill, attributes=kept)


def read(path: Path, name: str) -> NDArray[Any]:
    return np.array(zarr.open_group(path / SAMPLE, mode="r")[name])


def test_places_that_are_not_finite_are_told_before_distances_are_computed(write_flow: WriteStore) -> None:
    path = write_flow()
    coords = read(path, "coords")
    coords[3, 0] = np.nan
    replace(path, "coords", coords)
    assert told(path, features=("boundary", "sdf")).startswith(
        "flow.zarr, sample_00002: coords: 1 of 49 nodes are NaN or infinite, the first being node 3"
    )


def test_a_mesh_without_cells_is_told_before_its_boundary_is_looked_for(write_flow: WriteStore) -> None:
    path = write_flow()
    cells = zarr.open_group(path / SAMPLE, mode="a")["cells"]
    document = json.loads((path / SAMPLE / "cells/zarr.json").read_text())
    document["shape"][0] = 0
    assert cells.shape[0]
    (path / SAMPLE / "cells/zarr.json").write_text(json.dumps(document))
    change(path)
    assert told(path, features=("sdf",)) == "flow.zarr, sample_00002: cells: expected at least one, got none"


def test_a_sample_with_other_channels_is_told(write_flow: WriteStore) -> None:
    path = write_flow()
    pressure = read(path, "fields/pressure")
    replace(path, "fields/pressure", np.concatenate([pressure, pressure], -1))
    assert told(path) == (
        "flow.zarr, sample_00002: expected channels {'velocity': 2, 'pressure': 1, 'depth': 1}, as sample_00000 has, "
        "got {'velocity': 2, 'pressure': 2, 'depth': 1}"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (["triangle"], "\"['triangle']\" with 3 corners; did you mean 'triangle'?"),
        ("quad", "'quad' with 3 corners"),
        (7, "'7' with 3 corners"),
    ],
)
def test_odd_types_of_cells_are_told(write_flow: WriteStore, kind: Any, words: str) -> None:
    path = write_flow()
    change(path, f"{SAMPLE}/cells", cell_type=kind)
    assert told(path) == (
        "flow.zarr/sample_00002/cells/zarr.json: cell_type: expected one of line (2 corners), triangle (3 corners), "
        f"quad (4 corners), tetra (4 corners), hexahedron (8 corners), got {words}"
    )


def test_numbers_that_no_float_holds_are_told(write_flow: WriteStore) -> None:
    path = write_flow("domain.zarr")
    change(path, domain=[[0, 10**400], [0, 1]])
    assert told(path).startswith(
        "domain.zarr/zarr.json: domain: expected [low, high] for one to three axes, got [[0, 1"
    )
    path = write_flow("parameters.zarr")
    change(path, SAMPLE, parameters={"viscosity": 10**400})
    expected = "parameters.zarr/sample_00002/zarr.json: parameters: expected a table of numbers, got {'viscosity': 1"
    assert told(path).startswith(expected)


def test_more_samples_than_there_are_do_not_take_long(write_flow: WriteStore) -> None:
    path = write_flow()
    change(path, samples=10**12)
    assert told(path) == "flow.zarr/zarr.json: points: expected 1000000000000 numbers, one for each sample, got 8"
    change(path, points=None, frames=None)
    assert told(path).startswith("flow.zarr/sample_999999999999/zarr.json: expected this file, got none")


def test_categories_without_end_are_told(write_flow: WriteStore) -> None:
    words = (
        "flow.zarr: statics/node_type: expected whole numbers in 0 … 1023, a channel for each category, got "
        "1,000,000,001 categories; store what is no category as floats, or leave the field out with dataset.statics"
    )
    path = write_flow()
    kinds = read(path, "statics/node_type")
    kinds[0] = 10**9
    replace(path, "statics/node_type", kinds)
    change(path, categories=None)
    assert told(path) == words
    change(path, categories={"node_type": 10**9 + 1})
    assert told(path) == words


def test_a_file_too_small_for_splits_is_looked_at_whole(
    write_flow: WriteStore, upskit: Callable[..., tuple[int, str]]
) -> None:
    """Not its fields alone: also what is given, and where the nodes are."""
    path = write_flow("flow.zarr", samples=3)
    change(path, categories={"node_type": 2})
    code, said = upskit("validate", path)
    assert code == 3
    assert "sample_00002: statics/node_type: expected whole numbers in 0 … 1, got 0 … 2" in said
    shutil.rmtree(path)
    path = write_flow("flow.zarr", samples=3)
    replace(path, "statics/depth", np.where(np.arange(49) < 9, np.nan, 1.0)[:, None].astype(np.float32))
    code, said = upskit("validate", path)
    assert code == 3
    assert "sample_00002: 9 values are NaN or infinite" in said


def test_a_series_of_which_one_frame_is_left_is_not_taken_for_steady(write_flow: WriteStore) -> None:
    path = write_flow()
    assert told(path, time_stride=7, features=("sdf",)) == (
        "flow.zarr, sample_00000: has 7 frames, and dataset.first_frame = 0 with time_stride = 7 leave one of them; "
        "expected two at least; nearest: time_stride = 6"
    )
    assert told(path, first_frame=6) == (
        "flow.zarr, sample_00000: has 7 frames, and dataset.first_frame = 6 with time_stride = 1 leave one of them; "
        "expected two at least"
    )


def test_names_that_are_there_twice_and_too_many_points(write_flow: WriteStore) -> None:
    path = write_flow()
    twice = told(path, fields=("pressure", "velocity", "pressure"))
    assert twice == "flow.zarr: dataset.fields: 'pressure' is there twice"
    config = MeshZarrConfig(path=path, validation=2, test=2, input_points=(10, 1000))
    assert list(config.check(config.describe(), LatentSpec(8))) == [
        (
            "input_points",
            "1000 points of samples that have 49 at most; nearest: input_points = [10, 49], or leave it out",
        )
    ]
