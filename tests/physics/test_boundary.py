"""Mismatches at boundaries that are known: walls beyond the last points, slopes, pairs and flags."""

from __future__ import annotations

import math

import pytest
import torch

from ups_kit import Field, LatentSpec
from ups_plugins.physics.boundary import outward
from ups_plugins.physics.config import BoundaryConfig
from ups_plugins.physics.sides import paired, sides_of

from .seeing import Seen, cell_centres, look, spec, value

U = {"targets": (Field("u"),)}


def on_line(of, offset: float = 0.5, count: int = 10, periodic: bool = False, **keys) -> tuple:
    """The fields of [0, 2], and a prediction u = of(x) at its points in both frames."""
    fields = spec((count,), periodic, offset=offset, **U)
    places = cell_centres((count,), fields.domain, offset)
    frame = of(places)
    return fields, look(fields, torch.stack([frame, frame])[None], **keys)


def test_parabolas_are_exact_at_any_distance() -> None:
    for distance in (0.0, 0.25, 0.5, 1.0):
        for power, (at, slope) in enumerate([(1.0, 0.0), (-distance, -1.0), (distance**2, 2 * distance)]):
            points = [float(number**power) for number in range(3)]
            assert sum(map(float.__mul__, outward(distance), points)) == pytest.approx(at)
            assert sum(map(float.__mul__, outward(distance, slope=True), points)) == pytest.approx(slope)


@pytest.mark.parametrize("offset", [0.5, 0.25])
def test_walls_lie_where_the_domain_ends(offset: float) -> None:
    fields, seen = on_line(lambda x: 1 + x**2, offset, std=[0.5], mean=[3.0])
    both = BoundaryConfig()
    assert value(both, fields, seen) == pytest.approx((1**2 + 5**2) / 2 / 0.25)  # u(0) = 1, u(2) = 5
    assert value(BoundaryConfig(sides=("left",), values={"u": 1.0}), fields, seen) < 1e-20
    assert value(BoundaryConfig(sides=("x1",), values={"u": (5.0,)}), fields, seen) < 1e-20


def test_nodes_of_a_bounded_axis_are_its_walls() -> None:
    fields, seen = on_line(lambda x: 1 + x, offset=0.0)  # the last point is 1.8
    assert value(BoundaryConfig(), fields, seen) == pytest.approx((1 + 2.8**2) / 2)


def test_neumann_is_the_outward_slope_over_the_extent() -> None:
    fields, seen = on_line(lambda x: 3 + x**2, std=[0.5])
    length = 2.0
    assert value(BoundaryConfig(kind="neumann"), fields, seen) == pytest.approx((0 + (4 * length / 0.5) ** 2) / 2)
    right = BoundaryConfig(kind="neumann", sides=("right",), values={"u": 4.0})
    assert value(right, fields, seen) < 1e-20
    fields, seen = on_line(lambda x: 5 * x)
    left = BoundaryConfig(kind="neumann", sides=("left",), values={"u": -5.0})
    assert value(left, fields, seen) < 1e-20


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_periodic_pair_agrees_to_third_order(offset: float) -> None:
    errors = []
    for count in (20, 40, 80):
        fields, seen = on_line(lambda x: torch.sin(math.pi * x + 0.4), offset, count, periodic=True)
        errors.append(math.sqrt(value(BoundaryConfig(kind="periodic"), fields, seen)))
    assert errors[0] / errors[1] > 6
    assert errors[1] / errors[2] > 7
    assert errors[2] < 1e-3


def test_a_jump_at_the_seam_is_seen() -> None:
    for offset in (0.0, 0.5):
        fields, seen = on_line(lambda x: x, offset, periodic=True, std=[4.0])
        assert value(BoundaryConfig(kind="periodic"), fields, seen) == pytest.approx((2 / 4) ** 2)
    fields, seen = on_line(lambda x: x)
    assert value(BoundaryConfig(kind="periodic", sides=("right",)), fields, seen) == pytest.approx(4.0)


def box(of) -> tuple:
    """u = of(x, y) on a 6 × 5 grid of the box 2 × 1."""
    fields = spec((6, 5), False, **U)
    places = cell_centres((6, 5), fields.domain)
    frame = of(places[:, :1], places[:, 1:])
    return fields, look(fields, torch.stack([frame, frame])[None])


def test_sides_of_a_square_are_told_apart() -> None:
    fields, seen = box(lambda x, y: x + 10 * y)
    xs, ys = (torch.arange(6) + 0.5) / 3, (torch.arange(5) + 0.5) / 5
    wanted = {"left": 10 * ys, "right": 2 + 10 * ys, "bottom": xs, "top": xs + 10}
    for side, at in wanted.items():
        assert value(BoundaryConfig(sides=(side,)), fields, seen) == pytest.approx(float(at.square().mean()), rel=1e-6)
    every = torch.cat(list(wanted.values()))
    assert value(BoundaryConfig(), fields, seen) == pytest.approx(float(every.square().mean()), rel=1e-6)
    assert value(BoundaryConfig(sides=("left", "x0")), fields, seen) == value(
        BoundaryConfig(sides=("x0",)), fields, seen
    )


def test_only_bounded_axes_have_sides() -> None:
    fields = spec((6, 5), (True, False), **U)
    places = cell_centres((6, 5), fields.domain)
    frame = 7 * places[:, :1] + places[:, 1:]
    seen = look(fields, torch.stack([frame, frame])[None])
    only = value(BoundaryConfig(sides=("bottom", "top")), fields, seen)
    assert value(BoundaryConfig(), fields, seen) == only
    pair = value(BoundaryConfig(kind="periodic"), fields, seen)
    assert pair == pytest.approx((7 * 2) ** 2)


def test_the_truth_itself_is_a_boundary_value() -> None:
    fields = spec((10,), False, **U)
    places = cell_centres((10,), fields.domain)
    truth = torch.stack([places.sin(), places.sin()])[None]
    seen = look(fields, truth + 0.3, truth, std=[0.1])
    assert value(BoundaryConfig(kind="truth"), fields, seen) == pytest.approx(9.0)


def test_fields_have_values_of_their_own() -> None:
    fields = spec((8, 8), False)
    frame = torch.tensor([1.0, -2.0, 3.0]).expand(1, 2, 64, 3)
    seen = look(fields, frame, std=[0.5, 0.5, 2.0], mean=[4.0, 4.0, 4.0])
    exact = {"velocity": (1.0, -2.0), "density": 3.0}
    assert value(BoundaryConfig(values=exact), fields, seen) < 1e-12
    off = BoundaryConfig(values=exact | {"density": 1.0})
    assert value(off, fields, seen) == pytest.approx(1 / 3)
    assert value(BoundaryConfig(fields=("density",)), fields, seen) == pytest.approx((3 / 2) ** 2)
    assert value(BoundaryConfig(fields=("velocity",)), fields, seen) == pytest.approx((4 + 16) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Points that a static field marks
# ---------------------------------------------------------------------------------------------------------------------
FLAGS = (Field("sdf"), Field("boundary"), Field("kind", 3))


def flagged(mask: torch.Tensor | None = None, shift: float = 0.0, **keys) -> tuple[object, Seen]:
    """Two samples of six points, of which the first one's 0 and 1 and the second one's 3 are on the boundary."""
    fields = spec(None, False, dims=2, statics=FLAGS, **U)
    statics = torch.zeros(2, 6, 5)
    statics[0, :2, 1] = statics[1, 3, 1] = 1.0
    statics[0, 4, 4] = 1.0  # of the kind 2
    statics[..., 1] -= shift
    found = torch.arange(12.0).view(2, 1, 6, 1).repeat(1, 2, 1, 1)
    places = torch.rand(2, 6, 2)
    return fields, look(fields, found, torch.zeros_like(found), places=places, statics=statics, mask=mask, **keys)


@pytest.mark.parametrize("shift", [0.0, 0.3])  # as they are, or normalised
def test_flagged_points_alone_count_and_samples_alike(shift: float) -> None:
    fields, seen = flagged(shift=shift)
    for kind in ("value", "truth"):
        config = BoundaryConfig(kind=kind, flag="boundary")
        assert value(config, fields, seen) == pytest.approx(((0 + 1) / 2 + 81) / 2)
    given = BoundaryConfig(flag="boundary", values={"u": 9.0})
    assert value(given, fields, seen) == pytest.approx((81 + 64) / 2 / 2)


def test_a_sample_without_flagged_points_counts_as_zero() -> None:
    fields, seen = flagged()
    assert value(BoundaryConfig(flag="kind", flag_channel=2), fields, seen) == pytest.approx(16 / 2)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 3] = False
    fields, seen = flagged(mask)
    assert value(BoundaryConfig(flag="boundary"), fields, seen) == pytest.approx((0 + 1) / 2 / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keys", "data", "wanted"),
    [
        ({}, {"periodic": True}, {"kind": "every axis is periodic"}),
        ({"sides": ("left",)}, {"periodic": True}, {"sides": "the axis x is periodic"}),
        ({"sides": ("topp",)}, {}, {"sides": "did you mean 'top'? (sides: x0 (left), x1 (right), y0 (bottom)"}),
        ({"sides": ("z0",)}, {}, {"sides": "no side is called 'z0'"}),
        ({"kind": "periodic"}, {}, {"kind": "no axis is periodic"}),
        ({"kind": "periodic"}, {"periodic": (False, True)}, {}),
        ({"fields": ("w",)}, {}, {"fields": "no predicted field is called 'w'"}),
        ({"values": {"densty": 1.0}}, {}, {"values": "did you mean 'density'"}),
        ({"values": {"velocity": (1.0, 2.0, 3.0)}}, {}, {"values": "expected 2 numbers"}),
        ({"values": {"velocity": math.inf}}, {}, {"values": "finite"}),
        ({"fields": ("density",), "values": {"velocity": 1.0}}, {}, {"values": "not one of fields"}),
        ({}, {"grid": None}, {"flag": "a layout 'mesh' has no sides"}),
        ({"flag": "bounday"}, {"grid": None, "statics": FLAGS}, {"flag": "did you mean 'boundary'"}),
        ({"flag": "kind", "flag_channel": 3}, {"grid": None, "statics": FLAGS}, {"flag_channel": "0 … 2"}),
        ({"flag": "boundary"}, {"grid": None, "statics": FLAGS, "sampled_inputs": 4}, {}),
        ({"flag": "boundary"}, {"grid": None, "statics": FLAGS, "sampled": 4}, {"flag": "dataset.points = 4"}),
        ({}, {"sampled": 4}, {"use": "sides are those of a whole grid"}),
        ({"step": 0}, {"history": 0}, {"step": "expected 1"}),
        ({"kind": "truth"}, {"conditions": ("dt", "task:a")}, {}),
        ({}, {"conditions": ("dt", "task:a")}, {"use": "a mixture's tasks"}),
        ({}, {"grid": (2, 8)}, {"use": "3 points along an axis"}),
    ],
)
def test_what_it_refuses(keys: dict, data: dict, wanted: dict[str, str]) -> None:
    data = {"grid": (8, 8), "periodic": False, "dims": 2} | data
    found = dict(BoundaryConfig(**keys).check(spec(data.pop("grid"), data.pop("periodic"), **data), LatentSpec(8)))
    assert set(found) == set(wanted)
    for key, part in wanted.items():
        assert part in found[key]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"flag": "boundary", "sides": ("left",)}, "leave one of the two out"),
        ({"flag": "boundary", "kind": "neumann"}, "leave flag out"),
        ({"kind": "periodic", "values": {"u": 1.0}}, "takes no values"),
    ],
)
def test_keys_that_clash(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoundaryConfig(**keys)


def test_sides_by_name() -> None:
    assert sides_of(("top", "x0", "left", "nowhere")) == ((0, 0), (1, 1))
    assert paired((), (True, False, True)) == ((0, 0), (2, 0))
    assert paired(("top",), (True, False)) == ((1, 0),)
