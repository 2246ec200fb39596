"""Neighbour tables: both back ends against a direct computation over all pairs, and what must not change them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ups_kit.errors import DataError
from ups_kit.neighbours.distances import mixed_bits, position_hash
from ups_kit.neighbours.tables import SPREAD, centre_colours, neighbour_table, spread_keys

BACKENDS = ("kdtree", "cells")
DOMAIN = ((-0.5, 1.0), (0.0, 1.0), (2.0, 5.0))


def directly(points, centres, *, radius, most, pick, domain, periodic, mask=None):
    """The same table from all pairs, in numpy, one row after the other."""
    index = np.zeros((*centres.shape[:2], most), np.int64)
    heard = np.zeros(index.shape, bool)
    hashes = position_hash(points, SPREAD)
    for sample, row in np.ndindex(*centres.shape[:2]):
        offset = points[sample].numpy().astype(float) - centres[sample, row].numpy().astype(float)
        for axis, (low, high) in enumerate(domain):
            if periodic[axis]:
                offset[:, axis] -= (high - low) * np.round(offset[:, axis] / (high - low))
        distance = sum(offset[:, axis] ** 2 for axis in range(len(domain)))
        ids = np.arange(len(offset))
        near = np.full(len(offset), True) if radius is None else distance <= radius * radius
        if mask is not None:
            near &= mask[sample].numpy()
        ids = ids[near]
        if pick == "spread" and radius is not None:
            keys = spread_keys(hashes[sample], centre_colours(centres[sample, row])).numpy()
            ids = ids[np.lexsort((ids, keys[ids]))][:most]
        ids = ids[np.lexsort((ids, *offset[ids].T[::-1], distance[ids]))][:most]
        index[sample, row, : len(ids)], heard[sample, row, : len(ids)] = ids, True
    return torch.from_numpy(index), torch.from_numpy(heard)


def cloud(seed, dims, *, lattice=False, points=60, centres=9):
    """Random places in the domain; on a coarse lattice with its edges, many are equally far and some the same."""
    generator = torch.Generator().manual_seed(seed)
    shares = [torch.rand(2, count, dims, generator=generator) for count in (points, centres)]
    if lattice:
        shares = [(share * 8).round() / 8 for share in shares]
    low, high = (torch.tensor(ends) for ends in zip(*DOMAIN[:dims]))
    mask = torch.rand(2, points, generator=generator) < 0.8
    return low + (high - low) * shares[0], low + (high - low) * shares[1], mask


def same(found, expected):
    return torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize(
    "periodic", [p for d in (1, 2, 3) for p in itertools.product((False, True), repeat=d)], ids=str
)
def test_both_back_ends_give_what_all_pairs_give(periodic, lattice):
    dims = len(periodic)
    points, centres, mask = cloud(dims, dims, lattice=lattice)
    for radius, most, pick in itertools.product((0.1, 0.375, 0.5, None), (1, 4, 70), ("nearest", "spread")):
        options = {
            "radius": radius,
            "most": most,
            "pick": pick,
            "domain": DOMAIN[:dims],
            "periodic": periodic,
            "mask": mask,
        }
        expected = directly(points, centres, **options)
        for backend in BACKENDS:
            found = neighbour_table(points, centres, **options, backend=backend, memory=20_000)
            assert same(found, expected), (backend, radius, most, pick)
            assert found.neighbours.dtype == torch.int64


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dims=st.integers(1, 3),
    levels=st.sampled_from([1, 3, 8, 2**20]),
    far=st.sampled_from([0.0, 1e3, -1e5]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    most=st.integers(1, 12),
    radius=st.one_of(st.none(), st.floats(0.01, 0.5)),
    wraps=st.lists(st.booleans(), min_size=3, max_size=3),
    pick=st.sampled_from(["nearest", "spread"]),
)
def test_back_ends_agree_on_any_cloud(seed, dims, levels, far, scale, most, radius, wraps, pick):
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(1, 50, dims, generator=generator).mul(levels).round() / levels
    points = far + scale * shares  # on an edge, outside of it by rounding, or all at one place
    centres = far + scale * torch.rand(1, 7, dims, generator=generator).mul(levels).round() / levels
    options = {
        "radius": None if radius is None else radius * scale,
        "most": most,
        "pick": pick,
        "domain": ((far, far + scale),) * dims,
        "periodic": tuple(wraps[:dims]),
    }
    expected = directly(points, centres, **options)
    for backend in BACKENDS:
        assert same(neighbour_table(points, centres, **options, backend=backend), expected), backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pick", ["nearest", "spread"])
@pytest.mark.parametrize("radius", [0.3, None])
def test_the_order_of_the_points_changes_no_table(backend, pick, radius):
    points, centres, mask = cloud(5, 2, points=300)
    points = torch.cat([points[0], (points[0] * 8).round() / 8]).unique(dim=0)[None]  # ties, and no place twice
    centres, mask = centres[:1], torch.rand(points.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.8
    order = torch.randperm(points.shape[1], generator=torch.Generator().manual_seed(2))
    options = {
        "radius": radius,
        "most": 6,
        "pick": pick,
        "domain": DOMAIN[:2],
        "periodic": (True, False),
        "backend": backend,
    }
    before = neighbour_table(points, centres, **options, mask=mask)
    after = neighbour_table(points[:, order], centres, **options, mask=mask[:, order])
    assert torch.equal(before.mask, after.mask)
    assert torch.equal(order[after.neighbours][after.mask], before.neighbours[before.mask])


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_everything_together_changes_no_table(backend):
    """By a sixteenth of the box: coordinates are such that nothing is rounded."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 64, (2, 200, 2), generator=generator) / 64
    centres = torch.randint(0, 16, (2, 20, 2), generator=generator) / 16
    options = {"most": 8, "domain": ((0.0, 1.0),) * 2, "backend": backend}
    for radius in (0.25, None):
        still = neighbour_table(points, centres, radius=radius, periodic=(True, True), **options)
        wrapped = neighbour_table(
            (points + 0.0625) % 1, (centres + 0.0625) % 1, radius=radius, periodic=(True, True), **options
        )
        assert same(wrapped, still)
        image = neighbour_table(points + 1, centres - 2, radius=radius, periodic=(True, True), **options)
        assert same(image, still)
        free = neighbour_table(points, centres, radius=radius, periodic=(False, False), **options)
        moved = neighbour_table(points + 3, centres + 3, radius=radius, periodic=(False, False), **options)
        assert same(moved, free)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pick", ["nearest", "spread"])
def test_memory_changes_no_table(backend, pick):
    points, centres, mask = cloud(3, 3, points=500, centres=40)
    options = {"radius": 0.5, "most": 5, "pick": pick, "domain": DOMAIN, "periodic": (True, False, True), "mask": mask}
    roomy = neighbour_table(points, centres, **options, backend=backend)
    assert same(neighbour_table(points, centres, **options, backend=backend, memory=1), roomy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_radius_includes_its_end_and_wraps_at_the_edge(backend):
    points = torch.tensor([[[0.0], [0.25], [0.5], [1.0]]])
    centres = torch.tensor([[[0.0]]])
    options = {"radius": 0.25, "most": 4, "domain": ((0.0, 1.0),), "backend": backend}
    assert neighbour_table(points, centres, periodic=(False,), **options).neighbours[0, 0].tolist() == [0, 1, 0, 0]
    wrapped = neighbour_table(points, centres, periodic=(True,), **options)
    assert wrapped.neighbours[wrapped.mask].tolist() == [0, 3, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_without_real_points_and_points_at_one_place(backend):
    points = torch.zeros(2, 30, 2)
    mask = torch.tensor([True, False])[:, None].expand(2, 30)
    for radius in (0.1, None):
        table = neighbour_table(
            points,
            points[:, :3],
            radius=radius,
            most=4,
            domain=((0, 1),) * 2,
            periodic=(False,) * 2,
            mask=mask,
            backend=backend,
        )
        assert table.neighbours[0].tolist() == [[0, 1, 2, 3]] * 3
        assert not table.mask[1].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_spread_points_are_an_even_sample(backend):
    """The mean distance of points in a disc is 2/3 of its radius; of the nearest 64 of 8,000 it is far less."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 20_000, 2, generator=generator)
    centres = 0.4 + 0.2 * torch.rand(1, 50, 2, generator=generator)
    means, heard = {}, {}
    for pick in ("nearest", "spread"):
        table = neighbour_table(
            points,
            centres,
            radius=0.35,
            most=64,
            pick=pick,
            domain=((0, 1),) * 2,
            periodic=(False,) * 2,
            backend=backend,
        )
        heard[pick] = len(table.neighbours.unique())
        away = points[0][table.neighbours[0]] - centres[0, :, None]
        means[pick] = float(away.norm(dim=-1).mean()) / 0.35
    assert means["spread"] == pytest.approx(2 / 3, abs=0.03)
    assert means["nearest"] < 0.1
    assert heard["spread"] > 5 * 64  # not all centres hear the same


def test_hashes_are_the_same_in_numpy_and_torch_and_even():
    positions = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0))
    bits = positions.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    with np.errstate(over="ignore"):
        in_numpy = mixed_bits([bits[:, axis].numpy() for axis in range(3)], 7)
    hashes = position_hash(positions, 7)
    assert np.array_equal(hashes.numpy(), in_numpy)
    assert len(hashes.unique()) == len(positions)
    for bit in range(64):
        assert ((hashes >> bit) & 1).double().mean() == pytest.approx(0.5, abs=0.02), bit
    assert torch.equal(position_hash(torch.tensor([[-0.0, 0.0]])), position_hash(torch.tensor([[0.0, -0.0]])))


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_that_are_not_finite_are_named(backend):
    points, centres, mask = cloud(0, 2)
    points[1, 7, 1], points[1, 9, 0], mask[1, 7:10] = float("nan"), float("inf"), True
    options = {"radius": 0.2, "most": 4, "domain": DOMAIN[:2], "periodic": (False, False), "backend": backend}
    with pytest.raises(DataError) as caught:
        neighbour_table(points, centres, mask=mask, **options)
    assert str(caught.value) == (
        "sample 1 of the batch has 2 positions that are not finite; "
        f"the first is point 7: ({float(points[1, 7, 0]):g}, nan)"
    )
    mask[1, 7] = mask[1, 9] = False
    assert not (neighbour_table(points, centres, mask=mask, **options).neighbours[1] == 7).any()


@pytest.mark.parametrize("radius", [0.0, -1.0, float("inf"), float("nan")])
def test_radii_that_are_none(radius):
    points, centres, _ = cloud(0, 2)
    with pytest.raises(DataError, match=f"must be positive and finite, got {radius:g}"):
        neighbour_table(points, centres, radius=radius, most=4, domain=DOMAIN[:2], periodic=(False, False))


def test_a_periodic_box_smaller_than_the_radius():
    points, centres, _ = cloud(0, 2)
    with pytest.raises(DataError) as caught:
        neighbour_table(points, centres, radius=0.6, most=4, domain=DOMAIN[:2], periodic=(True, True))
    assert str(caught.value) == (
        "the box is too small for the radius: axis 1 is periodic and 1 long, so that a radius may be 0.5 at most, "
        "got 0.6"
    )
    neighbour_table(points, centres, radius=0.6, most=4, domain=DOMAIN[:2], periodic=(True, False))


# ---------------------------------------------------------------------------------------------------------------------
# Many points
# ---------------------------------------------------------------------------------------------------------------------
def test_indices_beyond_what_float32_counts():
    """Points 2^24 and on have odd and even numbers, which float32 cannot tell apart."""
    total = 2**24 + 6
    points = torch.full((1, total, 1), 0.9)
    points[0, -5:, 0] = torch.tensor([0.1, 0.11, 0.12, 0.13, 0.14])
    for backend in BACKENDS:
        mask = (torch.arange(total) >= total - 6)[None]
        table = neighbour_table(
            points,
            torch.tensor([[[0.1]]]),
            radius=0.2,
            most=8,
            domain=((0.0, 1.0),),
            periodic=(False,),
            mask=mask,
            backend=backend,
        )
        assert table.neighbours[table.mask].tolist() == [total - 5 + place for place in range(5)]


@pytest.mark.parametrize("pick", ["nearest", "spread"])
def test_a_million_points(pick):
    """Equal tables in 32 MB for chunks, and, for some of the centres, those of all pairs."""
    generator = torch.Generator().manual_seed(0)
    points, centres = (torch.rand(1, count, 3, generator=generator) for count in (1_000_000, 512))
    options = {"radius": 0.02, "most": 32, "pick": pick, "domain": ((0, 1),) * 3, "periodic": (True, True, False)}
    tables = [neighbour_table(points, centres, **options, backend=backend, memory=32 * 2**20) for backend in BACKENDS]
    assert same(*tables)
    expected = directly(points, centres[:, :4], **options)
    assert torch.equal(tables[0].neighbours[:, :4], expected[0])
