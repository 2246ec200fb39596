"""Where supernodes are: lattices, farthest points against a direct computation, and points by hash."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ups_kit.errors import DataError
from ups_kit.neighbours import lattice_shape
from ups_kit.neighbours.distances import Box
from ups_kit.neighbours.supernodes import farthest_points, lattice_places, random_points


def points_of(seed, count, dims, *, lattice=False):
    places = torch.rand(count, dims, generator=torch.Generator().manual_seed(seed))
    return (places * 6).round() / 6 if lattice else places


def farthest_directly(positions, count, domain, periodic):
    """Farthest-point sampling over all pairs, in numpy; ties by the coordinates, the longest axis first."""
    places = positions.numpy().astype(float)
    lengths = np.array([high - low for low, high in domain])
    longest = int(lengths.argmax())
    axes = [longest, *(axis for axis in range(len(domain)) if axis != longest)]
    order = np.lexsort([places[:, axis] for axis in reversed(axes)])
    places = places[order]
    offset = places[:, None] - places[None]
    for axis in range(len(domain)):
        if periodic[axis]:
            offset[..., axis] -= lengths[axis] * np.round(offset[..., axis] / lengths[axis])
    away = sum(offset[..., axis] ** 2 for axis in range(len(domain)))
    mean = torch.from_numpy(places.T.copy()).mean(1).numpy()
    chosen = [int(((places - mean) ** 2).sum(1).argmin())]
    while len(chosen) < count:
        distance = away[:, chosen].min(1)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return order[chosen]


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("periodic", [(False,), (True,), (False, False), (True, False), (True, True), (True,) * 3])
def test_farthest_points_are_those_of_all_pairs(periodic, lattice):
    dims = len(periodic)
    domain = ((0.0, 1.0), (0.0, 2.0), (0.0, 1.0))[:dims]
    positions = points_of(dims, 150, dims, lattice=lattice) * torch.tensor([high for _, high in domain])
    found = farthest_points(positions, 60, Box.of(domain, periodic))
    assert found.tolist() == farthest_directly(positions, 60, domain, periodic).tolist()
    assert len(found.unique()) == 60


@pytest.mark.parametrize("choose", ["random", "farthest"])
def test_the_order_of_the_points_changes_no_choice(choose):
    positions = torch.cat([points_of(0, 200, 2), points_of(1, 60, 2, lattice=True)]).unique(dim=0)
    order = torch.randperm(len(positions), generator=torch.Generator().manual_seed(2))
    box = Box.of(((0, 1),) * 2, (True, False))
    pick = random_points if choose == "random" else lambda some, count: farthest_points(some, count, box)
    assert torch.equal(positions[pick(positions, 40)], positions[order][pick(positions[order], 40)])


def test_farthest_points_stand_apart_and_random_ones_anywhere():
    positions = points_of(3, 4_000, 2)
    box = Box.of(((0, 1),) * 2, (False, False))
    apart = {}
    for name, chosen in (("farthest", farthest_points(positions, 100, box)), ("random", random_points(positions, 100))):
        places = positions[chosen].double()
        away = (places[:, None] - places).norm(dim=-1).fill_diagonal_(9)
        apart[name] = float(away.min())
        assert len(chosen.unique()) == 100
        assert places.mean(0).numpy() == pytest.approx([0.5, 0.5], abs=0.1)
    assert apart["farthest"] > 0.06  # 100 discs of half that radius fill most of the square
    assert apart["random"] < 0.03


def test_points_at_one_place_are_told_apart_by_their_index():
    positions = torch.zeros(10, 2)
    box = Box.of(((0, 1),) * 2, (False, True))
    assert len(farthest_points(positions, 10, box).unique()) == 10
    assert random_points(positions, 4).tolist() == [0, 1, 2, 3]


def test_too_few_points():
    for choose in (random_points, lambda some, count: farthest_points(some, count, Box.of(((0, 1),), (False,)))):
        with pytest.raises(DataError) as caught:
            choose(torch.rand(5, 1), 6)
        assert str(caught.value) == (
            "6 supernodes cannot be taken from a sample of 5 points; nearest: supernodes = 5, or the choice 'grid', "
            "which needs no points"
        )


@pytest.mark.parametrize(
    ("count", "domain", "shape"),
    [
        (64, ((0, 1),), (64,)),
        (256, ((0, 1), (0, 1)), (16, 16)),
        (256, ((0, 3), (0, 1)), (28, 9)),
        (512, ((-2, 2), (-1, 1)), (32, 16)),
        (2048, ((0, 1),) * 3, (12, 13, 13)),
        (1, ((0, 1),) * 3, (1, 1, 1)),
        (7, ((0, 1000), (0, 1)), (7, 1)),
    ],
)
def test_lattice_shapes(count, domain, shape):
    assert lattice_shape(count, domain) == shape


@pytest.mark.parametrize("count", range(1, 200, 7))
def test_lattices_have_at_most_so_many_cells_and_not_many_fewer(count):
    for domain in (((0, 1), (0, 1)), ((0, 2.2), (0, 0.41)), ((0, 1), (0, 1), (0, 2))):
        cells = math.prod(lattice_shape(count, domain))
        assert 0.7 * count <= cells <= count


def test_lattice_places_are_the_cells_centres_row_by_row():
    places = lattice_places((2, 4), ((0, 1), (-1, 1)))
    assert places.shape == (8, 2)
    assert places[:4, 0].tolist() == [0.25] * 4
    assert places[:4, 1].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert places[4].tolist() == [0.75, -0.75]
