"""Laws of the model's parts: what they must not depend on, where they start, what they can represent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ups_kit import Field, FieldSpec, Latent, LatentSpec, PointSet, Queries
from ups_kit.interfaces import DecoderConfig, Example
from ups_kit.layers import Attention, Rotary
from ups_kit.model import LatentModel
from ups_plugins.decoders.config import LocalConfig, PartitionConfig, PerceiverConfig
from ups_plugins.decoders.partition import MOST_UNKNOWNS
from ups_plugins.grid.config import GridEncoderConfig
from ups_plugins.operators.config import TransformerConfig

GRIDS = [((32,), 4), ((16, 24), 4), ((4, 8, 8), 2), ((35,), 5)]
DECODERS = [PartitionConfig(modes=4), LocalConfig(), PerceiverConfig(frequencies=4)]
WIDTH = LatentSpec(16)


def spec(grid: tuple[int, ...], periodic: bool = True, history: int = 1, statics: int = 0) -> FieldSpec:
    return FieldSpec(
        targets=(Field("u"), Field("v", 2)),
        statics=tuple(Field(f"s{number}") for number in range(statics)),
        domain=((0.0, 2.0),) * len(grid),
        periodic=(periodic,) * len(grid),
        layout="grid",
        grid=grid,
        dt=0.1,
        history=history,
        conditions=("dt", "nu"),
    )


def places(grid: tuple[int, ...], batch: int = 2) -> Tensor:
    axes = [2.0 * (torch.arange(size) + 0.5) / size for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, len(grid)).expand(batch, -1, -1)


def points(fields: FieldSpec, batch: int = 2) -> PointSet:
    assert fields.grid is not None
    values = torch.randn(batch, math.prod(fields.grid), fields.input_channels)
    return PointSet(places(fields.grid, batch), values, grid=fields.grid)


def awake(module: torch.nn.Module) -> torch.nn.Module:
    """With its zeros replaced, so that every part of it does something."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return module


# -- encoder ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("grid", "patch"), GRIDS)
@pytest.mark.parametrize("periodic", [True, False])
def test_encoder_puts_one_anchored_token_in_the_middle_of_each_patch(
    grid: tuple[int, ...], patch: int, periodic: bool
) -> None:
    fields = spec(grid, periodic)
    latent = GridEncoderConfig(patch_size=patch).build(fields, WIDTH)(points(fields))
    assert latent.grid == tuple(size // patch for size in grid)
    assert latent.tokens.shape == (2, math.prod(latent.grid), 16)
    assert latent.anchors is not None
    first = places(grid)[0].reshape(*grid, -1)[tuple(slice(0, patch) for _ in grid)].reshape(-1, len(grid)).mean(0)
    torch.testing.assert_close(latent.anchors[0], first)


@pytest.mark.parametrize("depth", [0, 2])
def test_a_shift_by_whole_patches_shifts_tokens(depth: int) -> None:
    fields = spec((32,))
    encoder = awake(GridEncoderConfig(patch_size=4, depth=depth).build(fields, WIDTH))
    inputs = points(fields)
    shifted = inputs._replace(values=inputs.values.roll(12, dims=1))
    torch.testing.assert_close(encoder(shifted).tokens, encoder(inputs).tokens.roll(3, dims=1), rtol=1e-4, atol=1e-4)


def test_a_local_encoder_sees_its_own_surroundings_only() -> None:
    fields = spec((32,))
    encoder = awake(GridEncoderConfig(patch_size=4, depth=0, overlap=1).build(fields, WIDTH))
    inputs = points(fields)
    changed = inputs.values.clone()
    changed[:, 0] += 1.0
    difference = (encoder(inputs._replace(values=changed)).tokens - encoder(inputs).tokens).abs().amax((0, 2))
    assert (difference[[0, 1, 7]] > 1e-3).all()
    assert (difference[2:7] == 0).all()


# -- operator ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("modulation", ["shared", "low_rank"])
def test_operator_starts_as_the_identity_with_gradient_to_every_weight_after_one_step(modulation: str) -> None:
    fields = spec((32,))
    with torch.no_grad():
        latent = GridEncoderConfig().build(fields, WIDTH)(points(fields))
    operator = TransformerConfig(modulation=modulation, depth=2).build(fields, WIDTH)  # type: ignore[arg-type]
    condition = torch.randn(2, 2)
    assert torch.equal(operator(latent, condition).tokens, latent.tokens)
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.1)  # type: ignore[attr-defined]
    for _ in range(3):
        optimizer.zero_grad()
        operator(latent, condition).tokens.sub(torch.randn(16)).square().mean().backward()
        optimizer.step()
    silent = [name for name, weight in operator.named_parameters() if not weight.grad.abs().sum() > 0]  # type: ignore[attr-defined]
    assert silent == []


def test_operator_commutes_with_shifts_of_a_periodic_lattice() -> None:
    fields = spec((32,))
    operator = awake(TransformerConfig(depth=2).build(fields, WIDTH))
    latent = GridEncoderConfig().build(fields, WIDTH)(points(fields))
    condition = torch.randn(2, 2)
    shifted = latent._replace(tokens=latent.tokens.roll(3, 1))
    expected = operator(latent, condition).tokens.roll(3, 1)
    torch.testing.assert_close(operator(shifted, condition).tokens, expected, rtol=1e-3, atol=1e-3)


def test_condition_changes_the_step_and_each_sample_has_its_own() -> None:
    fields = spec((32,))
    operator = awake(TransformerConfig(depth=1).build(fields, WIDTH))
    latent = GridEncoderConfig().build(fields, WIDTH)(points(fields))
    both = operator(latent, torch.tensor([[0.0, 1.0], [0.0, -1.0]])).tokens
    swapped = operator(latent, torch.tensor([[0.0, -1.0], [0.0, -1.0]])).tokens
    assert not torch.allclose(both[0], swapped[0], atol=1e-3)
    torch.testing.assert_close(both[1], swapped[1])


def test_rotary_attention_depends_on_displacement_round_the_circle() -> None:
    rotary, attention = Rotary(8, [(0.0, 2.0)], [True]), awake(Attention(16, 2))
    tokens, anchors = torch.randn(1, 5, 16), torch.rand(5, 1) * 2
    moved = (anchors + 1.3) % 2.0
    before, after = attention(tokens, rotary(anchors)), attention(tokens, rotary(moved))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


# -- decoders ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("grid", "patch"), GRIDS)
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("config", DECODERS, ids=lambda config: type(config).__name__)
def test_dense_decoding_equals_queries_one_by_one(
    config: DecoderConfig, grid: tuple[int, ...], patch: int, periodic: bool
) -> None:
    fields = spec(grid, periodic)
    latent = GridEncoderConfig(patch_size=patch).build(fields, WIDTH)(points(fields))
    decoder = config.build(fields, WIDTH)
    where = places(grid)
    dense = decoder(latent, Queries(where, grid))
    order = torch.randperm(where.shape[1])
    torch.testing.assert_close(decoder(latent, Queries(where[:, order])), dense[:, order], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("config", DECODERS[1:], ids=lambda config: type(config).__name__)
def test_scattered_tokens_may_come_in_any_order(config: DecoderConfig) -> None:
    fields = spec((16, 16))
    latent = Latent(torch.randn(2, 30, 16), torch.rand(2, 30, 2) * 2)
    decoder, where = config.build(fields, WIDTH), Queries(torch.rand(2, 40, 2) * 2)
    order = torch.randperm(30)
    assert latent.anchors is not None
    mixed = Latent(latent.tokens[:, order], latent.anchors[:, order])
    torch.testing.assert_close(decoder(mixed, where), decoder(latent, where), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("periodic", [True, False])
def test_equal_local_expansions_give_a_constant_without_seams(periodic: bool) -> None:
    fields = spec((16, 16), periodic)
    decoder = PartitionConfig(modes=3, hidden=0).build(fields, WIDTH)
    with torch.no_grad():
        decoder.linear.weight.zero_()  # type: ignore[attr-defined]
        decoder.linear.bias.zero_()  # type: ignore[attr-defined]
        decoder.linear.bias[0] = 1.5  # type: ignore[attr-defined]
    latent = GridEncoderConfig().build(fields, WIDTH)(points(fields))
    values = decoder(latent, Queries(torch.rand(2, 200, 2) * 2))
    torch.testing.assert_close(values[..., 0], torch.full((2, 200), 1.5))


def test_partition_is_continuous_across_the_seam_of_a_periodic_domain() -> None:
    fields = spec((32,))
    latent = GridEncoderConfig().build(fields, WIDTH)(points(fields))
    decoder = PartitionConfig().build(fields, WIDTH)
    ends = decoder(latent, Queries(torch.tensor([[[0.0], [2.0]]]).expand(2, -1, -1)))
    torch.testing.assert_close(ends[:, 0], ends[:, 1], rtol=1e-4, atol=1e-5)


# -- model ------------------------------------------------------------------------------------------------------------
def build(fields: FieldSpec) -> LatentModel:
    parts = GridEncoderConfig(), TransformerConfig(depth=1), PartitionConfig(modes=4)
    encoder, operator, decoder = (config.build(fields, WIDTH) for config in parts)
    return LatentModel(encoder, operator, decoder, fields)  # type: ignore[arg-type]


def test_history_moves_on_and_statics_stay() -> None:
    fields = spec((8,), history=3, statics=1)
    model, inputs, values = build(fields), points(fields), torch.randn(2, 8, 3)
    old = inputs.values
    expected = torch.cat([old[..., 3:6], old[..., 6:9], values, old[..., 9:]], -1)
    assert torch.equal(model.advance(inputs, values).values, expected)
    expected = torch.cat([old[..., :6], values, old[..., 9:]], -1)
    assert torch.equal(model.replace_newest(inputs, values).values, expected)


def test_a_rollout_is_its_steps_one_by_one() -> None:
    fields = spec((32,))
    model, inputs, condition = build(fields), points(fields), torch.randn(2, 2)
    awake(model.operator)
    latent = model.encode(inputs)
    twice = model.step(model.step(latent, condition), condition)
    assert torch.equal(model.rollout(latent, condition, 2)[1].tokens, twice.tokens)
    frames = model.reencoded_rollout(inputs, condition, 2)
    once = model.decode(model.step(latent, condition), Queries(inputs.positions, inputs.grid))
    assert torch.equal(frames[0], once)
    again = model.step(model.encode(model.advance(inputs, once)), condition)
    assert torch.equal(frames[1], model.decode(again, Queries(inputs.positions, inputs.grid)))


# -- calibration ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("grid", "patch"), [((64,), 4), ((16, 16), 4)])
def test_a_calibrated_decoder_undoes_a_fresh_encoder(grid: tuple[int, ...], patch: int) -> None:
    """On smooth fields that it was not fitted to."""
    torch.manual_seed(0)
    fields = FieldSpec(
        targets=(Field("u"),),
        domain=((0.0, 1.0),) * len(grid),
        periodic=(True,) * len(grid),
        layout="grid",
        grid=grid,
        dt=0.1,
    )
    width = LatentSpec(32)
    encoder = GridEncoderConfig(patch_size=patch, depth=1).build(fields, width)
    decoder = PartitionConfig(modes=5).build(fields, width)
    where = places(grid, 216) / 2.0
    waves = torch.randint(0, 3, (216, 1, len(grid)))
    values = torch.sin(2 * math.pi * ((where * waves).sum(-1) + torch.rand(216, 1))).unsqueeze(-1)
    latent = encoder(PointSet(where, values, grid=grid))
    before = decoder(latent, Queries(where, grid)) - values
    decoder.calibrate([Example(latent._replace(tokens=latent.tokens[:200]), Queries(where, grid), values[:200])])  # type: ignore[attr-defined]
    after = (decoder(latent, Queries(where, grid)) - values)[200:]
    assert before.square().mean() > 0.1
    assert after.square().mean().sqrt() < 5e-3


@pytest.mark.parametrize("periodic", [True, False])
def test_a_decoder_of_many_coefficients_is_calibrated_token_by_token(periodic: bool) -> None:
    """On tokens that know their surroundings, expansions fitted one by one blend into the field."""
    fields = spec((32, 32), periodic=periodic)
    decoder = PartitionConfig(modes=6).build(fields, LatentSpec(width=128))
    assert MOST_UNKNOWNS < (128 + 1) * 6**2
    x, y = torch.meshgrid(*((torch.arange(32) + 0.5) / 32,) * 2, indexing="ij")
    waves = [torch.cos(2 * math.pi * (a * x + b * y)) for a in range(3) for b in range(3)]
    values = torch.einsum("sw,wxy->sxy", torch.randn(64, 9), torch.stack(waves)).reshape(64, 1024, 1)
    values = torch.cat([values, 2 * values, -values], -1)
    patches = values[..., 0].view(64, 4, 8, 4, 8).permute(0, 1, 3, 2, 4).reshape(64, 16, 64)
    tokens = torch.cat([patches, torch.zeros_like(patches)], -1)
    positions = torch.stack([x, y], -1).reshape(1, 1024, 2).expand(64, -1, -1)
    decoder.calibrate([Example(Latent(tokens, None, (4, 4)), Queries(positions, (32, 32)), values)])  # type: ignore[attr-defined]
    decoded = decoder(Latent(tokens, None, (4, 4)), Queries(positions, (32, 32))).detach()
    assert float((decoded - values).square().mean() / values.var()) < 1e-3


def test_fields_stand_where_they_are_on_grids_whose_points_lie_elsewhere_in_their_cells() -> None:
    """Linear fields on every second cell centre of a finer grid: off by a quarter of a cell where that is missed."""
    torch.manual_seed(0)
    fields = FieldSpec(
        targets=(Field("u"),), domain=((1.0, 3.0),), periodic=(False,), layout="grid", grid=(32,), dt=0.1
    )
    encoder = GridEncoderConfig(patch_size=4, depth=0, overlap=0).build(fields, LatentSpec(16))
    with torch.no_grad():
        for weight in encoder.place[1].parameters():  # type: ignore[index,union-attr]
            weight.zero_()  # tokens are of slopes alone, and anchors say where
    decoder = PartitionConfig(modes=6).build(fields, LatentSpec(16))

    def seen(size: int, offset: float, slopes: Tensor) -> tuple[Latent, Tensor]:
        where = (1 + 2 * (torch.arange(size) + offset) / size)[None, :, None].expand(len(slopes), -1, -1)
        return encoder(PointSet(where, 1 + slopes * (where - 2), grid=(size,))), where

    slopes = torch.linspace(-4, 4, 20)[:, None, None]
    latent, where = seen(32, 0.5, slopes)
    decoder.calibrate([Example(latent, Queries(where, (32,)), 1 + slopes * (where - 2))])  # type: ignore[attr-defined]
    asked = torch.linspace(1.3, 2.7, 101)[None, :, None].expand(20, -1, -1)
    for size, offset in ((32, 0.5), (64, 0.5), (64, 0.25), (64, 0.0), (16, 0.75)):
        latent, where = seen(size, offset, slopes)
        assert latent.anchors is not None
        assert torch.allclose(latent.anchors[:, 0], where[0].unflatten(0, (-1, 4)).mean((1, 2)), atol=1e-6)
        moved = ((decoder(latent, Queries(asked)) - 1) / slopes - (asked - 2)).mean()
        assert abs(moved) < 0.03 * 2 / size  # of a cell; missing its offset is worth a quarter or a half
