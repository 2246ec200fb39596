"""The sample schema: what it takes, and what it says of what it does not take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import ups_kit
from ups_kit import DataError, Sample
from ups_kit.data.sample import GivesSamples
from ups_plugins.grid.config import PDEBenchConfig

WriteFile = Callable[..., Path]


def grid(**changed: Any) -> Sample:
    keys: dict[str, Any] = {
        "source": "data/waves.h5, sample 3",
        "kind": "grid",
        "coordinates": np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0), indexing="ij"), -1).reshape(-1, 2),
        "fields": {"u": np.ones((5, 12, 1), np.float32), "v": np.ones((5, 12, 2))},
        "times": np.linspace(0, 1, 5),
        "grid": (4, 3),
        "units": {"u": "m/s", "time": "s"},
        "parameters": {"nu": 0.1},
    }
    return Sample(**keys | changed)


def mesh(**changed: Any) -> Sample:
    keys: dict[str, Any] = {
        "source": "part.vtu, sample 0",
        "kind": "mesh",
        "coordinates": np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        "connectivity": np.array([[0, 1, 2], [1, 3, 2]]),
        "fields": {"p": np.zeros((1, 4, 1))},
        "times": np.zeros(1),
        "steady": True,
        "boundary": {"inlet": "dirichlet"},
        "geometry": {"wall distance": np.zeros(4)},
    }
    return Sample(**keys | changed)


def test_what_a_sample_says_of_itself() -> None:
    sample = grid()
    assert (sample.points, sample.space_dims, sample.frames, sample.dt) == (12, 2, 5, 0.25)
    assert (sample.unit("u"), sample.unit("v"), sample.unit("time")) == ("m/s", "1", "s")
    assert grid(times=np.array([0.0, 1, 2, 3, 5])).dt is None
    assert mesh().dt is None
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        sample.kind = "mesh"  # type: ignore[misc]


def test_particles_may_move() -> None:
    places = np.random.default_rng(0).random((5, 7, 3))
    sample = grid(kind="particles", grid=None, coordinates=places, fields={"v": np.zeros((5, 7, 3))}, units={})
    assert (sample.points, sample.space_dims) == (7, 3)
    with pytest.raises(DataError, match=r"coordinates has the shape \[4, 7, 3\]; expected \[5, any, any\]"):
        grid(kind="particles", grid=None, coordinates=places[:4], fields={"v": np.zeros((5, 7, 3))})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"times": np.array([0.0, 1, 1, 2, 3])}, "times does not rise: entries 1 and 2 are 1 and 1"),
        ({"times": np.array([0.0, 1, np.nan, 3, 4])}, "times holds 1 values that are not finite, the first at [2]"),
        ({"times": np.zeros(0)}, "times is empty"),
        ({"times": [0.0, 1.0]}, "times is list; expected a NumPy array"),
        ({"fields": {"u": np.zeros((5, 11, 1))}}, "field 'u' has the shape [5, 11, 1]; expected [5, 12, any]"),
        (
            {"fields": {"u": np.zeros((5, 12, 1), int)}},
            "field 'u' holds values of type int64; expected float32 or float64",
        ),
        ({"fields": {"u": np.full((5, 12, 1), np.inf)}}, "60 values that are not finite, the first at [0, 0, 0]"),
        ({"fields": {}}, "there are no fields"),
        ({"grid": (4, 4)}, "grid 4 x 4 has 16 points, and coordinates has 12"),
        ({"grid": None}, "kind is 'grid' and grid is None"),
        ({"kind": "cloud"}, "kind is 'cloud'; expected 'grid', 'mesh' or 'particles'"),
        ({"statics": {"a": np.zeros((11, 1))}}, "static 'a' has the shape [11, 1]; expected [12, any]"),
        ({"statics": {"u": np.zeros((12, 1))}}, "'u' is a field and a static"),
        ({"parameters": {"nu": float("nan")}}, "parameter 'nu' is nan; expected a finite number"),
        ({"metadata": {"who": ["a"]}}, "metadata 'who' is list"),
        ({"units": {"w": "m"}}, "a unit is given for 'w', which is not there"),
        ({"geometry": {"sdf": np.zeros(3)}}, "geometry 'sdf' has the shape [3]; expected 12 along its first axis"),
        ({"steady": True}, "steady data have one frame, got 5"),
    ],
)
def test_what_is_wrong_is_told_with_its_source(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as raised:
        grid(**changed)
    assert str(raised.value).startswith("data/waves.h5, sample 3")
    assert says in str(raised.value)
    assert raised.value.exit_code == 3


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(DataError) as raised:
        grid(fields={"u": np.zeros((5, 11, 1)), "v": np.zeros(3)}, parameters={"nu": float("inf")})
    assert "(3 problems)" in str(raised.value)


def test_cells_of_a_mesh() -> None:
    assert mesh().connectivity is not None
    for cells, says in (
        (None, "connectivity is missing"),
        (np.array([[0, 1, 4], [1, -1, 2]]), "2 indices are not in 0 … 3, the first being 4 at cell 0, corner 2"),
        (np.array([[0.0, 1.0]]), "type float64; expected whole numbers (cells, corners)"),
    ):
        with pytest.raises(DataError) as raised:
            mesh(connectivity=cells)
        assert says in str(raised.value)


def test_a_dataset_gives_its_trajectories_as_samples(write_file: WriteFile) -> None:
    path = write_file()
    dataset: Any = PDEBenchConfig(path=path, train=8, validation=2, test=3, time_stride=2, space_stride=4).build(0)
    assert isinstance(dataset, GivesSamples)
    whole = dataset.trajectories("test")
    for number in range(3):
        sample = dataset.sample("test", number)
        assert isinstance(sample, ups_kit.Sample)
        identity = int(whole.ids[number])
        assert sample.source == f"{path}, sample {identity}"
        assert np.array_equal(sample.fields["u"], whole.values[number].numpy())
        assert np.allclose(sample.coordinates, whole.positions.numpy())
        assert np.allclose(sample.times, whole.times.numpy())
        assert sample.parameters["epsilon"] == pytest.approx(np.geomspace(0.001, 0.1, 14)[identity])
        assert sample.boundary == {"x": "periodic"}
    with pytest.raises(IndexError, match="has 3 trajectories, and number 3"):
        dataset.sample("test", 3)
