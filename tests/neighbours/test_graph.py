"""The graph that an encoder holds: what it gives, keeps, and refuses, in words."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from ups_kit import Field, FieldSpec, PointSet
from ups_kit.errors import DataError
from ups_kit.interfaces import Supernodes
from ups_kit.neighbours import SupernodeGraph, graph_problems, neighbour_table

SQUARE = ((0.0, 1.0), (0.0, 1.0))


def points_of(*counts, dims=2, seed=0):
    """Samples with so many points each, filled up with copies of their first one."""
    generator = torch.Generator().manual_seed(seed)
    most = max(counts)
    positions = torch.rand(len(counts), most, dims, generator=generator)
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    positions = torch.where(mask[..., None], positions, positions[:, :1])
    return PointSet(positions, torch.zeros(*positions.shape[:2], 1), None if bool(mask.all()) else mask)


def graph(**keys):
    known = {"domain": SQUARE, "periodic": (True, False), "supernodes": 64, "radius": 0.1, "degree": 8}
    return SupernodeGraph(**{**known, **keys})


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first[:3], second[:3])) and first.lattice == second.lattice


def row_of(supernodes, sample):
    return Supernodes(*(part[sample : sample + 1] for part in supernodes[:3]), supernodes.lattice)


@pytest.mark.parametrize("pick", ["nearest", "spread"])
@pytest.mark.parametrize("choice", ["grid", "farthest", "random"])
def test_supernodes_hear_the_points_around_them(choice, pick):
    points = points_of(400, 300)
    found = graph(choice=choice, pick=pick)(points).supernodes
    assert found.positions.shape == (2, 64, 2)
    assert found.lattice == ((8, 8) if choice == "grid" else None)
    table = neighbour_table(
        points.positions,
        found.positions,
        radius=0.1,
        most=8,
        pick=pick,
        domain=SQUARE,
        periodic=(True, False),
        mask=points.mask,
    )
    assert torch.equal(found.neighbours, table.neighbours)
    assert torch.equal(found.mask, table.mask)
    if choice != "grid":  # a supernode that is a point hears itself first
        own = points.positions.gather(1, found.neighbours[:, :, :1].expand(-1, -1, 2))
        assert torch.equal(own, found.positions) or pick == "spread"
    assert not (found.neighbours[1] >= 300).any()


def test_the_nearest_points_without_a_radius():
    points = points_of(50)
    found = graph(radius=None, degree=60)(points).supernodes
    assert found.mask.sum(-1).eq(50).all()


@pytest.mark.parametrize("choice", ["grid", "farthest", "random"])
def test_a_batch_gives_what_its_samples_give(choice):
    points = points_of(400, 300, 350)
    together = graph(choice=choice)(points).supernodes
    for sample, count in enumerate((400, 300, 350)):
        alone = graph(choice=choice)(PointSet(points.positions[sample : sample + 1, :count], points.values[:1, :count]))
        assert equal(alone.supernodes, row_of(together, sample))


def test_padding_may_be_anywhere():
    points = points_of(300)
    mask = torch.ones(1, 350, dtype=torch.bool)
    mask[0, 100:150] = False
    spread = torch.full((1, 350, 2), 0.5)
    spread[mask] = points.positions[0]
    plain, gaps = graph()(points).supernodes, graph()(PointSet(spread, spread, mask)).supernodes
    assert torch.equal(plain.mask, gaps.mask)
    real = mask[0].nonzero().squeeze(1)
    assert torch.equal(real[plain.neighbours][plain.mask], gaps.neighbours[gaps.mask])
    assert not gaps.neighbours[~gaps.mask].any()


def test_points_that_were_looked_up_are_left_alone():
    points = graph()(points_of(400))
    assert graph(degree=4)(points) is points


# ---------------------------------------------------------------------------------------------------------------------
# What is kept
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("choice", ["grid", "farthest", "random"])
def test_what_comes_again_is_kept(choice):
    look_up = graph(choice=choice)
    points = points_of(400, 300)
    first = look_up(points).supernodes
    assert (look_up.cache.hits, look_up.cache.misses, len(look_up.cache)) == (0, 2, 2)
    again = look_up(PointSet(points.positions.flip(0), points.values, points.mask.flip(0))).supernodes
    assert (look_up.cache.hits, look_up.cache.misses) == (2, 2)
    assert all(equal(row_of(again, 1 - sample), row_of(first, sample)) for sample in range(2))
    wider = torch.cat([points.positions, points.positions[:, :1].expand(-1, 50, -1)], 1)
    mask = torch.cat([points.mask, torch.zeros(2, 50, dtype=torch.bool)], 1)
    assert equal(look_up(PointSet(wider, wider, mask)).supernodes, first)
    assert look_up.cache.misses == 2  # padding is no other content


def test_other_positions_are_other_content():
    look_up, points = graph(), points_of(400)
    first = look_up(points).supernodes
    moved = points.positions.clone()
    moved[0, 0] = torch.nextafter(moved[0, 0], torch.ones(2))
    look_up(points._replace(positions=moved))
    assert look_up.cache.misses == 2
    assert equal(look_up(points).supernodes, first)


def test_what_was_not_used_for_longest_goes_first():
    samples = [points_of(400, seed=seed) for seed in range(3)]
    probe = graph()
    probe(samples[0])
    look_up = graph(cache_bytes=2 * probe.cache.nbytes)
    for number in (0, 1, 0, 2, 0):
        look_up(samples[number])
    assert (look_up.cache.hits, look_up.cache.misses, len(look_up.cache)) == (2, 3, 2)
    assert look_up.cache.nbytes <= look_up.cache_bytes
    look_up(samples[1])
    assert look_up.cache.misses == 4
    unkept = graph(cache_bytes=0)
    unkept(samples[0])
    assert len(unkept.cache) == 0


def test_it_pickles_without_what_it_keeps():
    look_up, points = graph(), points_of(400)
    empty = len(pickle.dumps(look_up))
    found = look_up(points).supernodes
    assert len(pickle.dumps(look_up)) == empty
    copy = pickle.loads(pickle.dumps(look_up))
    assert copy == look_up
    assert len(copy.cache) == 0
    assert equal(copy(points).supernodes, found)


def test_what_is_kept_is_not_what_is_given():
    look_up, points = graph(choice="farthest"), points_of(400)
    first = look_up(points).supernodes
    kept = [part.clone() for part in first[:3]]
    for part in first[:3]:
        part.zero_()
    assert all(torch.equal(a, b) for a, b in zip(look_up(points).supernodes[:3], kept))


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------
def refusal(points, **keys):
    with pytest.raises(DataError) as caught:
        graph(**keys)(points)
    return str(caught.value)


def test_a_radius_that_hears_nobody():
    message = refusal(points_of(400, 300), radius=0.001)
    head, suggested = message.split("radius = ")
    assert head == (
        "encoder.radius: 0.001 gives 0 points for a supernode on average, and none for 64 of 64 (sample 0 of the "
        "batch, 400 points, degree 8); for about 6 points each: "
    )
    heard = graph(radius=float(suggested))(points_of(400, 300)).supernodes.mask[0].sum(-1).float()
    assert 4 <= heard.mean() <= 8


def test_a_radius_that_hears_everything():
    points = points_of(400, 300)
    message = refusal(points, radius=1.5, periodic=(False, False), degree=16)
    assert message == (
        "encoder.radius: 1.5 gives about 400 of 400 points for a supernode on average (sample 0 of the batch, 400 "
        "points, degree 16); for about 12 points each: radius = 0.1"
    )
    graph(radius=1.5, periodic=(False, False), degree=200)(points)  # all of them is what was asked for


def test_half_of_a_lattice_may_be_without_points():
    points = points_of(600)
    half = points._replace(positions=points.positions * torch.tensor([1.0, 0.55]))
    found = graph(radius=0.08)(half).supernodes
    assert 0.3 < (found.mask.sum(-1) == 0).float().mean() < 0.5
    quarter = points._replace(positions=points.positions * torch.tensor([1.0, 0.2]))
    assert "and none for 48 of 64 (sample 0" in refusal(quarter, radius=0.08)


def test_a_box_smaller_than_the_radius():
    assert refusal(points_of(400), radius=0.6) == (
        "the box is too small for the radius: axis 0 is periodic and 1 long, so that a radius may be 0.5 at most, "
        "got 0.6"
    )


def test_positions_that_are_not_finite():
    points = points_of(400, 300)
    points.positions[1, 5] = float("nan")
    assert refusal(points) == (
        "sample 1 of the batch has 1 position that is not finite; the first is point 5: (nan, nan)"
    )


@pytest.mark.parametrize("choice", ["farthest", "random"])
def test_more_supernodes_than_points(choice):
    assert refusal(points_of(400, 50), choice=choice).startswith("64 supernodes cannot be taken from a sample of 50")
    graph(radius=0.2)(points_of(400, 50))  # a lattice does not ask


def test_a_sample_without_points():
    points = points_of(400, 300)
    points.mask[1] = False
    assert refusal(points) == "sample 1 of the batch has no points"


# ---------------------------------------------------------------------------------------------------------------------
# What is said of a recipe
# ---------------------------------------------------------------------------------------------------------------------
def fields(**keys):
    known = {
        "targets": (Field("u"),),
        "domain": ((0.0, 1.0), (0.0, 2.0)),
        "periodic": (False, True),
        "layout": "mesh",
        "grid": None,
        "dt": 0.1,
    }
    return FieldSpec(**{**known, **keys})


def problems(data=None, **keys):
    known = {"choice": "grid", "supernodes": 64, "radius": 0.1, "degree": 8}
    return list(graph_problems(data or fields(), **{**known, **keys}))


def test_a_recipe_that_fits():
    assert problems() == []
    assert problems(lattice=(8, 16)) == []
    assert problems(fields(counts=(64, 90)), choice="random") == []
    assert problems(fields(counts=(10, 90)), degree=32) == []
    assert problems(radius=None) == []


@pytest.mark.parametrize(
    ("data", "keys", "key", "message"),
    [
        (
            {"counts": (50, 90)},
            {"choice": "random"},
            "supernodes",
            "64 supernodes are more than the 50 points that a sample may have, and 'random' takes them from the "
            "points; nearest: supernodes = 50",
        ),
        (
            {"counts": (500, 900), "sampled_inputs": 40},
            {"choice": "farthest"},
            "supernodes",
            "64 supernodes are more than the 40 points that a sample may have, and 'farthest' takes them from the "
            "points; nearest: supernodes = 40",
        ),
        (
            {},
            {"supernodes": None},
            "supernodes",
            "missing key; say how many supernodes there are, for example supernodes = 256",
        ),
        ({}, {"supernodes": 0}, "supernodes", "expected a whole number of at least 1, got 0"),
        (
            {"counts": (10, 50)},
            {},
            "supernodes",
            "64 supernodes are more than the 50 points of the largest sample; nearest: supernodes = 50",
        ),
        (
            {"counts": (10, 50)},
            {"lattice": (8, 8)},
            "lattice",
            "[8, 8] is 64 supernodes, more than the 50 points of the largest sample; nearest: lattice = [5, 10]",
        ),
        (
            {"counts": (70, 90)},
            {"degree": 100},
            "degree",
            "100 points for each supernode are more than the 90 of the largest sample; nearest: degree = 90",
        ),
        ({}, {"degree": 0}, "degree", "expected a whole number of at least 1, got 0"),
        ({}, {"radius": -0.5}, "radius", "expected a positive number, got -0.5"),
        (
            {},
            {"radius": 1.5},
            "radius",
            "the box is too small for a radius of 1.5: axis 1 is periodic and 2 long; nearest: radius = 1",
        ),
        (
            {},
            {"lattice": (8, 8, 8)},
            "lattice",
            "[8, 8, 8] has 3 numbers, the data have 2 space dimensions; for example: lattice = [16, 32]",
        ),
        ({}, {"lattice": (8, 0)}, "lattice", "expected whole numbers of at least 1, got [8, 0]"),
        (
            {},
            {"lattice": (8, 8), "choice": "random"},
            "lattice",
            "a lattice goes with the choice 'grid'; 'random' takes a number, supernodes",
        ),
    ],
)
def test_problems_of_a_recipe(data, keys, key, message):
    assert problems(fields(**data), **keys) == [(key, message)]


def test_config_classes_need_no_torch():
    code = "import sys; from ups_kit.neighbours import graph_problems, lattice_shape; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
