"""Decoders on scattered anchors: windows that sum to one, no seams, no order of anchors, the lattice as a limit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ups_kit import Field, FieldSpec, Latent, LatentSpec, Queries
from ups_kit.errors import DataError
from ups_kit.interfaces import Example
from ups_kit.model import LatentModel
from ups_plugins.decoders import nearest, partition
from ups_plugins.decoders.config import LocalConfig, PartitionConfig, PerceiverConfig

WIDTH = LatentSpec(8)
SPACES = [(1, True), (1, False), (2, True), (2, False), (3, True)]
DECODERS = [PartitionConfig(modes=3), LocalConfig()]


def spec(dims: int, periodic: bool = True, side: float = 2.0) -> FieldSpec:
    fields, domain = (Field("u"), Field("v", 2)), ((0.0, side),) * dims
    return FieldSpec(fields, domain, (periodic,) * dims, "mesh", None, 0.1, counts=(1, 99))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scattered(count: int, dims: int, batch: int | None = None, seed: int = 1) -> Tensor:
    shape = (count, dims) if batch is None else (batch, count, dims)
    return 2 * torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def latent(anchors: Tensor, batch: int = 2) -> Latent:
    return Latent(torch.randn(batch, anchors.shape[-2], 8, generator=seeded(2), dtype=torch.float64), anchors)


def built(config: PartitionConfig | LocalConfig, fields: FieldSpec) -> torch.nn.Module:
    """A decoder with random weights, in float64."""
    torch.manual_seed(3)
    module = config.build(fields, WIDTH)
    assert isinstance(module, torch.nn.Module)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return module.double()


# -- the partition of unity -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dims", "periodic"), SPACES)
@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 9, 40])
def test_windows_sum_to_one_and_constants_are_exact(dims: int, periodic: bool, tokens: int) -> None:
    decoder = built(PartitionConfig(modes=3, hidden=0), spec(dims, periodic))
    with torch.no_grad():
        decoder.linear.weight.zero_()
        decoder.linear.bias.view(3, -1)[:, 1:] = 0  # what is left is the constant of every token's expansion
        wanted = decoder.linear.bias.view(3, -1)[:, 0]
    queries = Queries(torch.cat([scattered(200, dims, 2), scattered(tokens, dims).expand(2, -1, -1)], 1))
    values = decoder(latent(scattered(tokens, dims)), queries)
    torch.testing.assert_close(values, wanted.expand_as(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dims", "periodic"), SPACES)
def test_at_an_anchor_its_own_expansion_holds(dims: int, periodic: bool) -> None:
    decoder = built(PartitionConfig(modes=3), spec(dims, periodic))
    places = (torch.arange(4, dtype=torch.float64) + 0.5) / 2
    anchors = torch.stack(torch.meshgrid(*[places] * dims, indexing="ij"), -1).view(-1, dims)
    anchors = anchors + 0.15 * (scattered(len(anchors), dims) - 1)
    where = latent(anchors)
    values = decoder(where, Queries(anchors.expand(2, -1, -1)))
    coefficients = decoder._coefficients(where.tokens)
    middle = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)  # the cosines at ξ = 0
    basis = middle
    for _ in range(dims - 1):
        basis = (basis.unsqueeze(-1) * middle).flatten()
    torch.testing.assert_close(values, coefficients @ basis, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dims", "periodic"), SPACES)
@pytest.mark.parametrize("tokens", [2, 5, 40])
def test_a_field_has_no_seams(dims: int, periodic: bool, tokens: int) -> None:
    decoder, where = built(PartitionConfig(modes=3), spec(dims, periodic)), latent(scattered(tokens, dims), 1)

    def heard(places: Tensor) -> Tensor:
        return nearest.nearest_anchors(places, where.anchors, decoder.fields, 2**dims)[0].sort(-1).values

    first, second = scattered(300, dims, 1, seed=4), scattered(300, dims, 1, seed=5)
    others = (heard(first) != heard(second)).any(-1)[0]
    assert bool(others.any()) == (tokens > 2**dims)
    first, second = first[:, others], second[:, others]
    for _ in range(45):  # to a place between them where the anchors that are heard change
        middle = (first + second) / 2
        same = (heard(first) == heard(middle)).all(-1, keepdim=True)
        first, second = torch.where(same, middle, first), torch.where(same, second, middle)
    values = [decoder(where, Queries(places)) for places in (first, second)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_on_a_lattice_the_windows_agree_with_hats_where_expansions_agree(dims: int) -> None:
    """cos 2πξ is the same in the local coordinates of all anchors of a lattice: any partition of unity gives it."""
    fields = spec(dims)
    decoder = built(PartitionConfig(modes=5, hidden=0), fields)
    with torch.no_grad():
        decoder.linear.weight.zero_()
        kept = decoder.linear.bias.view(3, *(5,) * dims)
        for axis in range(dims):
            kept.index_fill_(1 + axis, torch.tensor([1, 2, 3]), 0)
    axis = (torch.arange(4, dtype=torch.float64) + 0.5) / 2
    anchors = torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"), -1).view(-1, dims)
    where, queries = latent(anchors), Queries(scattered(300, dims, 2))
    torch.testing.assert_close(
        decoder(where, queries), decoder(where._replace(grid=(4,) * dims), queries), rtol=0, atol=1e-9
    )


# -- both decoders with anchors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
@pytest.mark.parametrize(("dims", "periodic"), SPACES)
def test_the_order_of_anchors_does_not_matter(config, dims: int, periodic: bool) -> None:
    decoder, where = built(config, spec(dims, periodic)), latent(scattered(30, dims))
    queries, order = Queries(scattered(100, dims, 2, seed=7)), torch.randperm(30, generator=seeded())
    other = Latent(where.tokens[:, order], where.anchors[order])
    torch.testing.assert_close(decoder(where, queries), decoder(other, queries), rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_periodic_shift_of_anchors_and_queries_changes_nothing(config, dims: int) -> None:
    decoder, where = built(config, spec(dims)), latent(scattered(30, dims))
    places, shift = scattered(100, dims, 2, seed=7), scattered(1, dims, seed=9)[0]
    moved = decoder(where._replace(anchors=(where.anchors + shift) % 2), Queries((places + shift) % 2))
    torch.testing.assert_close(decoder(where, Queries(places)), moved, rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
@pytest.mark.parametrize("tokens", [3, 30, nearest.TREE_FROM])
def test_anchors_of_each_samples_own_are_as_one_by_one(config, tokens: int) -> None:
    decoder, where = built(config, spec(2)), latent(scattered(tokens, 2, 3), 3)
    places = scattered(50, 2, 3, seed=7)
    together = decoder(where, Queries(places))
    for sample in range(3):
        one = Latent(where.tokens[sample : sample + 1], where.anchors[sample])
        alone = decoder(one, Queries(places[sample : sample + 1]))
        torch.testing.assert_close(together[sample : sample + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
def test_all_points_of_a_grid_are_as_any_points(config) -> None:
    decoder = built(config, spec(2))
    axis = (torch.arange(6, dtype=torch.float64) + 0.5) / 3
    places = torch.cartesian_prod(axis, axis).expand(2, -1, -1)
    for anchors in (scattered(20, 2), scattered(20, 2, 2)):
        where = latent(anchors)
        on_grid, anywhere = decoder(where, Queries(places, (6, 6))), decoder(where, Queries(places))
        torch.testing.assert_close(on_grid, anywhere, rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
def test_gradients_are_finite_at_anchors(config) -> None:
    decoder, where = built(config, spec(2)), latent(scattered(20, 2))
    tokens, places = where.tokens.requires_grad_(), where.anchors.expand(2, -1, -1).clone().requires_grad_()
    decoder(where._replace(tokens=tokens), Queries(places)).square().sum().backward()
    assert tokens.grad.isfinite().all()
    assert places.grad.isfinite().all()
    assert (tokens.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("config", DECODERS, ids=["partition", "local"])
def test_tokens_without_a_place_are_told_as_such(config) -> None:
    with pytest.raises(DataError, match="needs anchored tokens"):
        built(config, spec(2))(Latent(torch.randn(1, 4, 8).double(), None), Queries(scattered(5, 2, 1)))


# -- the nearest anchors ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dims", "periodic"), SPACES)
@pytest.mark.parametrize("own", [False, True])
def test_trees_and_chunks_find_what_all_distances_do(monkeypatch, dims: int, periodic: bool, own: bool) -> None:
    fields, places = spec(dims, periodic), scattered(70, dims, 3, seed=7)
    anchors = scattered(25, dims, 3) if own else scattered(25, dims)
    whole = nearest.nearest_anchors(places, anchors, fields, 5)
    difference = places.unsqueeze(2) - (anchors.unsqueeze(1) if own else anchors)
    difference = difference - 2 * (difference / 2).round() if periodic else difference
    expected = difference.norm(dim=-1).sort(-1)
    assert torch.equal(whole[0], expected.indices[..., :5])
    spacing = 2 / 25 ** (1 / dims)
    torch.testing.assert_close(whole[1].norm(dim=-1), expected.values[..., :5] / spacing)
    for name, value in (("TOGETHER", 200), ("TREE_FROM", 1)):
        monkeypatch.setattr(nearest, name, value)
        again = nearest.nearest_anchors(places, anchors, fields, 5)
        assert all(torch.equal(first, second) for first, second in zip(whole, again))


# -- calibration ------------------------------------------------------------------------------------------------------
def waves(places: Tensor, phases: Tensor) -> Tensor:
    """Three channels of a wave of each sample (B, Q, 3)."""
    along = math.pi * (places[..., 0] + 2 * places[..., 1])
    return torch.stack([torch.sin(along + phases + 0.5 * channel) for channel in range(3)], -1)


def example(grid: bool, own: bool, points: int = 700) -> Example:
    """Tokens that know sine and cosine of their sample's wave where they stand; queries anywhere, and padding."""
    phases = 6 * torch.rand(6, 1, generator=seeded(11), dtype=torch.float64)
    axis = (torch.arange(6, dtype=torch.float64) + 0.5) / 3
    anchors = torch.cartesian_prod(axis, axis) if grid else scattered(40, 2, 6 if own else None)
    at = waves(anchors.expand(6, -1, -1), phases)
    slope = waves(anchors.expand(6, -1, -1), phases + math.pi / 2)
    tokens = torch.cat([at[..., :1], slope[..., :1], torch.zeros(6, at.shape[1], 6)], -1).float()
    places = scattered(points, 2, 6, seed=13)
    mask = torch.arange(points) < torch.tensor([points, points // 2, points - 1, points // 3, points, 90])[:, None]
    places = torch.where(mask[..., None], places, places[:, :1])
    values = torch.where(mask[..., None], waves(places, phases), torch.full_like(places[..., :1], 50.0))
    where = Latent(tokens, anchors.float(), (6, 6) if grid else None)
    return Example(where, Queries(places.float()), values.float(), mask=mask)


@pytest.mark.parametrize("unknowns", [4096, 1])
@pytest.mark.parametrize(("grid", "own"), [(True, False), (False, False), (False, True)])
def test_calibration_fits_points_anywhere_and_leaves_padding_out(monkeypatch, unknowns, grid, own) -> None:
    monkeypatch.setattr(partition, "MOST_UNKNOWNS", unknowns)
    torch.manual_seed(0)
    decoder = PartitionConfig(modes=4).build(spec(2), WIDTH)
    given = example(grid, own)
    decoder.calibrate([given])
    error = (decoder(given.latent, given.queries) - given.values)[given.mask]
    # scattered anchors leave gaps that are wider than the expansions are made for
    assert error.square().mean().sqrt() < (0.05 if grid else 0.2) * math.sqrt(0.5)


def test_points_of_many_are_fitted_at_some_of_each(monkeypatch) -> None:
    monkeypatch.setattr(partition, "ROWS_PER_UNKNOWN", 4)
    decoder = PartitionConfig(modes=3).build(spec(2), WIDTH)
    given = example(True, False, points=2000)
    decoder.calibrate([given])
    error = (decoder(given.latent, given.queries) - given.values)[given.mask]
    assert error.square().mean().sqrt() < 0.05 * math.sqrt(0.5)


# -- very many queries ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [*DECODERS, PerceiverConfig(frequencies=4)], ids=["partition", "local", "perceiver"])
@pytest.mark.parametrize("together", [7, 60, 130])
def test_queries_in_chunks_are_answered_as_all_at_once(monkeypatch, config, together: int) -> None:
    decoder, fields = built(config, spec(2)), spec(2)
    where, queries = latent(scattered(20, 2, 3), 3), Queries(scattered(50, 2, 3, seed=7))
    sizes: list[int] = []
    decoder.register_forward_hook(lambda part, given, values: sizes.append(values.shape[0] * values.shape[1]))
    whole = LatentModel(nn.Identity(), nn.Identity(), decoder, fields)
    expected = whole.decode(where, queries)
    monkeypatch.setattr("ups_kit.model.QUERIES_TOGETHER", together)
    with torch.no_grad():
        torch.testing.assert_close(whole.decode(where, queries), expected, rtol=0, atol=1e-12)
    assert max(sizes[1:]) <= together
    assert sum(sizes[1:]) == 150
