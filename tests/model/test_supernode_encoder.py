"""Encoders through supernodes: what a token depends on, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ups_kit import DataError, Field, FieldSpec, LatentSpec, PointSet
from ups_kit.batching import joined_points, points_part
from ups_kit.layers import Block
from ups_kit.neighbours import neighbour_table
from ups_kit.pooling import RIDGE, SupernodeEncoder, exponents, legendre_products, local_fit
from ups_plugins.mesh.config import MeshEncoderConfig
from ups_plugins.particles.config import ParticleEncoderConfig

BOX = ((0.0, 2.0), (0.0, 1.0))
EVERY = [
    {"supernodes": 32},
    {"supernodes": 24, "choice": "farthest"},
    {"supernodes": 24, "choice": "random"},
    {"supernodes": 32, "nearest": True, "degree": 8},
    {"supernodes": 24, "choice": "farthest", "pick": "nearest", "degree": 5},
]


def fields(periodic: tuple[bool, bool] = (False, False)) -> FieldSpec:
    return FieldSpec((Field("u", 2),), BOX, periodic, "mesh", None, 0.1, (Field("flag"),), counts=(40, 200))


def points(samples: int = 2, count: int = 150, seed: int = 0) -> PointSet:
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(samples, count, 2, generator=generator) * torch.tensor([2.0, 1.0])
    return PointSet(positions, torch.randn(samples, count, 3, generator=generator))


def encoder(
    keys: dict[str, object], periodic: tuple[bool, bool] = (False, False), tokens: int | None = None
) -> SupernodeEncoder:
    """One whose blocks do something: at first their outputs are zero."""
    torch.manual_seed(1)
    built = MeshEncoderConfig(depth=2, **keys).build(fields(periodic), LatentSpec(16, tokens))  # type: ignore[arg-type]
    assert isinstance(built, SupernodeEncoder)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.eval()


def by_place(anchors: Tensor, tokens: Tensor) -> Tensor:
    """Tokens of one sample in the order of their anchors."""
    order = sorted(range(len(anchors)), key=lambda number: anchors[number].tolist())
    return tokens[order]


@pytest.mark.parametrize("keys", EVERY)
@pytest.mark.parametrize("tokens", [None, 6])
def test_the_order_of_points_does_not_matter(keys: dict[str, object], tokens: int | None) -> None:
    model, given = encoder(keys, tokens=tokens), points(1)
    order = torch.randperm(given.positions.shape[1])
    moved = given._replace(positions=given.positions[:, order], values=given.values[:, order])
    plain, permuted = model(given), model(moved)
    if plain.anchors is None:
        assert (plain.tokens - permuted.tokens).abs().max() < 1e-6
    else:
        mine, theirs = (found.anchors.expand(1, -1, -1)[0] for found in (plain, permuted))
        difference = by_place(mine, plain.tokens[0]) - by_place(theirs, permuted.tokens[0])
        assert difference.abs().max() < 1e-6 * max(1.0, float(plain.tokens.detach().abs().max()))


@pytest.mark.parametrize("keys", EVERY)
def test_padding_does_not_matter(keys: dict[str, object]) -> None:
    """Padding, once or twice, at any place and of any value, leaves the tokens as they are."""
    model, given = encoder(keys), points(1)
    alone = model(given)
    for copies in (1, 3):
        places = given.positions[:, :1].expand(-1, 50 * copies, -1)
        padded = PointSet(
            torch.cat([given.positions, places], 1),
            torch.cat([given.values, torch.full((1, 50 * copies, 3), 7.0)], 1),
            torch.arange(150 + 50 * copies)[None] < 150,
        )
        assert (model(padded).tokens - alone.tokens).abs().max() < 1e-6


@pytest.mark.parametrize("keys", EVERY)
def test_samples_of_different_sizes_in_one_batch_are_as_one_by_one(keys: dict[str, object]) -> None:
    model, large, small = encoder(keys), points(1, 180, 3), points(1, 60, 4)
    filled = PointSet(
        torch.cat([small.positions, small.positions[:, :1].expand(-1, 120, -1)], 1),
        F.pad(small.values, (0, 0, 0, 120)),
        torch.arange(180)[None] < 60,
    )
    both = joined_points([large._replace(mask=torch.ones(1, 180, dtype=torch.bool)), filled])
    tokens = model(both).tokens
    assert (tokens[0] - model(large).tokens[0]).abs().max() < 1e-5
    assert (tokens[1] - model(small).tokens[0]).abs().max() < 1e-5


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
def test_pooling_is_the_direct_sum_over_all_pairs(periodic: tuple[bool, bool]) -> None:
    """Against a computation over all pairs of supernodes and points, with the distance on the torus."""
    model = encoder({"supernodes": 32, "degree": 200}, periodic)
    pooling = model.pooling.double()
    given = PointSet(*(values.double() for values in points(2)[:2]))
    found = model.preparation(given).supernodes
    assert found is not None
    pooled, reach = pooling(given, found), pooling.reach
    for sample, place in [(0, 0), (0, 17), (1, 31)]:
        vector = given.positions[sample] - found.positions[sample, place]
        for axis, length in enumerate((2.0, 1.0)):
            if periodic[axis]:
                vector[:, axis] = (vector[:, axis] + length / 2) % length - length / 2
        near = vector.square().sum(1).sqrt() <= reach
        assert 2 < near.sum() < 150
        offsets, values = vector[near] / reach, given.values[sample, near]
        waves = pooling.waves(offsets)
        square = offsets.square().sum(1, keepdim=True)
        message = torch.cat([values, offsets, square, waves], 1)
        for layer in pooling.messages:
            message = F.gelu(layer(message))
        basis = legendre_products(offsets, pooling.exponents)
        gram = basis.T @ basis / len(basis) + RIDGE * torch.eye(basis.shape[1])
        fitted = torch.linalg.solve(gram, basis.T @ values / len(basis))
        expected = pooling.mean(message.mean(0)) + pooling.fit(fitted.flatten())
        assert (pooled[sample, place] - expected).abs().max() < 1e-7


def test_local_fits_find_polynomials_wherever_the_points_lie() -> None:
    """A cubic is found from any 40 points of a neighbourhood, up to the ridge, and the same from other 40."""
    degrees = exponents(2, 3)
    assert len(degrees) == 10
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(10, 2, generator=generator)
    offsets = torch.rand(1, 2, 40, 2, generator=generator) * 2 - 1
    values = legendre_products(offsets, degrees) @ wanted
    found = local_fit(values, offsets, torch.ones(1, 2, 40, dtype=torch.bool), degrees)
    assert (found - wanted).abs().max() < 0.03
    assert (found[0, 0] - found[0, 1]).abs().max() < 0.03


def test_polynomials_are_orthonormal_on_the_box() -> None:
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    basis = legendre_products(torch.cartesian_prod(axis, axis), exponents(2, 4))
    assert (basis.T @ basis / len(basis) - torch.eye(15)).abs().max() < 1e-3


def test_on_a_torus_points_and_supernodes_move_together() -> None:
    """Moved by one spacing of the lattice, the same tokens stand one place further."""
    model = encoder({"lattice": (8, 4), "degree": 150}, (True, True))
    given = points(1)
    moved = given._replace(positions=torch.remainder(given.positions + torch.tensor([0.25, 0.0]), 2.0))
    plain, shifted = model(given).tokens.view(8, 4, 16), model(moved).tokens.view(8, 4, 16)
    assert (plain.roll(1, 0) - shifted).abs().max() < 2e-5


def test_what_was_prepared_gives_the_same_and_goes_through_parts_of_batches() -> None:
    model, given = encoder({"supernodes": 32}), points(3)
    prepared = model.preparation(given)
    assert torch.equal(model(prepared).tokens, model(given).tokens)
    again = joined_points([points_part(prepared, slice(1, 3)), points_part(prepared, slice(0, 1))])
    assert again.supernodes is not None
    assert again.supernodes.lattice == (8, 4)
    assert (model(again).tokens[2] - model(given).tokens[0]).abs().max() < 1e-6


def test_a_lattice_of_tokens_stands_at_the_centres_of_its_cells() -> None:
    latent = encoder({"lattice": (4, 2)})(points())
    assert latent.grid == (4, 2)
    assert latent.anchors is not None
    assert latent.anchors[0].tolist() == [0.25, 0.25]
    assert latent.anchors[-1].tolist() == [1.75, 0.75]


def test_a_pooled_latent_has_its_number_of_tokens_and_no_places() -> None:
    latent = encoder({"supernodes": 32}, tokens=6)(points())
    assert latent.tokens.shape == (2, 6, 16)
    assert latent.anchors is None
    assert latent.grid is None


def test_a_conditioned_encoder_hears_its_condition_and_misses_it() -> None:
    model = encoder({"supernodes": 32, "modulation": "low_rank"})
    given = points()
    one, other = (model(given._replace(condition=torch.full((2, 1), value))).tokens for value in (0.0, 1.0))
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(DataError, match="without a condition"):
        model(given)


def test_every_part_of_the_encoder_is_reached_by_a_gradient() -> None:
    model = encoder({"supernodes": 32}, tokens=6)
    model(points()).tokens.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_tokens_that_would_move_with_particles_are_refused() -> None:
    moving = FieldSpec(
        (Field("velocity", 2),), BOX, (True, True), "particles", None, 0.1, counts=(40, 40), moves_with="velocity"
    )
    config = ParticleEncoderConfig(choice="farthest", supernodes=16)
    assert [key for key, _ in config.check(moving, LatentSpec(16))] == ["choice"]
    assert not list(config.check(moving, LatentSpec(16, 8)))
    assert not list(ParticleEncoderConfig(supernodes=16).check(moving, LatentSpec(16)))


@pytest.mark.parametrize(
    ("keys", "tokens", "key", "words"),
    [
        ({"lattice": (0, 4)}, None, "lattice", "expected whole numbers of at least 1, got [0, 4]"),
        ({"lattice": (-1, 4)}, None, "lattice", "expected whole numbers of at least 1, got [-1, 4]"),
        (
            {"lattice": (4, 4), "supernodes": 20},
            None,
            "supernodes",
            "20 supernodes, and lattice = [4, 4] has 16; leave one of the two out",
        ),
        (
            {"lattice": (4, 4)},
            20,
            "lattice",
            "latent.tokens = 20 are more than the 16 supernodes that they are pooled from; nearest: latent.tokens = 16",
        ),
    ],
)
def test_supernodes_that_clash_are_refused(keys: dict[str, Any], tokens: int | None, key: str, words: str) -> None:
    still = FieldSpec((Field("u"),), BOX, (False, False), "mesh", None, 0.1, counts=(40, 60))
    assert list(MeshEncoderConfig(**keys).check(still, LatentSpec(16, tokens))) == [(key, words)]


def test_a_radius_too_small_for_any_number_hears_nothing() -> None:
    places = torch.rand(1, 30, 2)
    table = neighbour_table(
        places, places + 0.5, radius=1e-300, domain=BOX, periodic=(False, False), most=4, pick="spread"
    )
    assert not table.mask.any()


def test_a_network_has_one_unit_at_least() -> None:
    assert Block(16, 2, mlp_ratio=1e-9).up.out_features == 1
