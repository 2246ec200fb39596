"""What the fields of a mixture are, and which tasks are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve

from ups_kit import Field, FieldSpec
from ups_kit.errors import DataError
from ups_kit.tasks import Placement
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.mixture.config import MixtureConfig
from ups_plugins.mixture.fields import on_own_grids, union


def spec(**changes: Any) -> FieldSpec:
    plain = FieldSpec(
        targets=(Field("u"), Field("v", 2, "m/s")),
        statics=(Field("nu"),),
        domain=((-1.0, 3.0), (0.0, 2.0)),
        periodic=(True, False),
        layout="grid",
        grid=(16, 8),
        dt=0.1,
        history=2,
        conditions=("dt", "beta"),
    )
    return evolve(plain, **changes)


def test_the_fields_of_the_whole_are_the_union_by_name() -> None:
    other = spec(
        targets=(Field("p"), Field("v", 2, "m/s")),
        statics=(Field("mask"), Field("nu")),
        grid=(32, 4),
        dt=0.3,
        conditions=("dt", "gamma", "beta"),
        offset=0.0,
    )
    specs = {"one": spec(), "two": other}
    whole = union(specs)
    assert [field.name for field in whole.targets] == ["u", "v", "p"]
    assert [field.name for field in whole.statics] == ["nu", "mask"]
    assert whole.conditions == ("dt", "beta", "gamma", "task:one", "task:two")
    assert (whole.domain, whole.periodic, whole.history) == (((0.0, 1.0),) * 2, (True, False), 2)
    assert (whole.grid, whole.offset, whole.target_channels) == ((16, 8), 0.5, 4)
    assert [own.grid for own in on_own_grids(specs).values()] == [(16, 8), (32, 4)]
    place = Placement.of(whole, other, "two")
    assert (place.targets, place.statics, place.conditions, place.column) == ((3, 1, 2), (1, 0), (0, 2, 1), 4)
    assert place.channels == (1, 2, 3)
    assert Placement.of(whole, spec(), "one").channels == (0, 1, 2)


def test_places_of_a_grid_stand_in_the_middle_of_their_cells() -> None:
    nodes = spec(grid=(16, 8), offset=0.0)
    place = Placement.of(union({"one": nodes}), nodes, "one")
    x, y = -1 + 4 * torch.arange(16) / 16, 2 * torch.arange(8) / 8
    positions = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(1, 128, 2).expand(3, -1, -1)
    moved = place.positions(positions)
    wanted = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(8) + 0.5) / 8, indexing="ij")
    torch.testing.assert_close(moved, torch.stack(wanted, -1).reshape(1, 128, 2).expand(3, -1, -1))
    assert moved.stride(0) == 0, "positions that all samples share stay shared"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"domain": ((0.0, 1.0),), "periodic": (True,), "grid": (16,)},
            ["space dimensions: tasks.one 2D, tasks.two 1D"],
        ),
        (
            {"periodic": (True, True)},
            ["periodic axes: tasks.one (periodic, bounded), tasks.two (periodic, periodic)"],
        ),
        ({"history": 1}, ["frames given (history): tasks.one 2, tasks.two 1"]),
        ({"history": 0}, ["kinds of data: tasks.one a time series, tasks.two steady"]),
        ({"layout": "mesh", "grid": None}, ["layouts: tasks.one grid, tasks.two mesh"]),
        (
            {"targets": (Field("v", 2, "km/s"),)},
            ["unit of the field 'v': tasks.one m/s, tasks.two km/s", "other names"],
        ),
        ({"targets": (Field("u", 3),)}, ["channels of the field 'u': tasks.one 1, tasks.two 3"]),
        (
            {"targets": (Field("nu"),), "statics": ()},
            ["the field 'nu': predicted in tasks.two, given in tasks.one"],
        ),
        ({"conditions": ("dt", "task:x")}, ["the parameter 'task:x' of tasks.two"]),
        (
            {"history": 1, "periodic": (False, False)},
            ["periodic axes", "frames given"],
        ),
    ],
)
def test_tasks_that_differ_are_refused_with_all_that_differs(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DataError) as found:
        union({"one": spec(), "two": spec(**change)})
    assert found.value.key == "tasks"
    assert all(word in str(found.value) for word in words), str(found.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"weights": {"burgers": 1.0, "wave": 1.0}}, "no task 'wave'; did you mean 'waves'?"),
        ({"weights": {"burgers": 1.0}}, "missing: waves"),
        ({"weights": {"burgers": 1.0, "waves": 0.0}}, "greater than 0 for 'waves'"),
        ({"weights": {"burgers": 1.0, "waves": 1.0}, "sampling": "equal"}, "leave one of the two out"),
        ({"tasks": {}}, "expected one or more tables"),
        ({"tasks": {"a.b": PDEBenchConfig(path=Path("x.h5"))}}, "'a.b' cannot be the name of a task"),
        (
            {"tasks": {"all": MixtureConfig(tasks={"one": PDEBenchConfig(path=Path("x.h5"))})}},
            "'all' is a mixture itself",
        ),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, Any], words: str) -> None:
    tasks = {name: PDEBenchConfig(path=Path(f"{name}.h5")) for name in ("burgers", "waves")}
    with pytest.raises(ValueError, match=re.escape(words)):
        MixtureConfig(**({"tasks": tasks} | keys))
