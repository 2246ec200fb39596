"""What all operators have in common, and what each claims: one interface, whatever lattice the tokens form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ups_kit import Field, FieldSpec, Latent, LatentSpec
from ups_kit.errors import RecipeError
from ups_kit.layers import Block, Rotary
from ups_plugins.operators.config import (
    FNOConfig,
    PDETransformerConfig,
    PersistenceConfig,
    TransformerConfig,
    UNetConfig,
)
from ups_plugins.operators.unet import ResidualBlock
from ups_plugins.optim.optimizers import hidden_matrices

WIDTH = 8
PDE = {"depths": (1, 1), "window": 4, "heads": 1, "rank": 4}
LEARNED = {
    "transformer": TransformerConfig(depth=2, heads=1, rank=4),
    "fno": FNOConfig(modes=2, layers=2),
    "pde_transformer": PDETransformerConfig(**PDE),
    "pde_transformer, groups": PDETransformerConfig(**PDE, channel_groups=2, widening=2, neighbours=False),
    "unet": UNetConfig(hidden=8, levels=2),
}
HALVING = {name: config for name, config in LEARNED.items() if name.startswith(("pde", "unet"))}
EVERY = {**LEARNED, "persistence": PersistenceConfig()}
LATTICES = [(16,), (8, 12), (4, 6, 8), (11,), (5, 7)]
CONDITION = torch.tensor([[0.1, 0.4], [0.2, -1.0]])


def spec(dims: int, periodic: bool = True, grid: tuple[int, ...] | None = None) -> FieldSpec:
    return FieldSpec(
        (Field("u"),), ((0.0, 2.0),) * dims, (periodic,) * dims, "grid", grid, 0.1, conditions=("dt", "nu")
    )


def built(config: Any, dims: int, periodic: bool = True, trained: bool = True) -> nn.Module:
    torch.manual_seed(0)
    operator = config.build(spec(dims, periodic), LatentSpec(WIDTH))
    assert isinstance(operator, nn.Module)
    if trained:
        for parameter in operator.parameters():
            nn.init.normal_(parameter, std=0.2)
    return operator


def latent(lattice: tuple[int, ...], seed: int = 1) -> Latent:
    tokens = torch.randn(2, math.prod(lattice), WIDTH, generator=torch.Generator().manual_seed(seed))
    axes = [2.0 * (torch.arange(size) + 0.5) / size for size in lattice]
    anchors = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return Latent(tokens, anchors, lattice)


def moved(tokens: torch.Tensor, lattice: tuple[int, ...], shift: int) -> torch.Tensor:
    axes = tuple(range(1, 1 + len(lattice)))
    return tokens.unflatten(1, lattice).roll((shift,) * len(lattice), axes).flatten(1, len(lattice))


@pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("periodic", [True, False])
def test_every_operator_starts_as_the_identity(config: Any, lattice: tuple[int, ...], periodic: bool) -> None:
    before = latent(lattice)
    after = built(config, len(lattice), periodic, trained=False)(before, CONDITION)
    assert torch.equal(after.tokens, before.tokens)
    assert after.grid == lattice
    assert after.anchors is before.anchors


@pytest.mark.parametrize("config", LEARNED.values(), ids=LEARNED)
@pytest.mark.parametrize("lattice", LATTICES)
def test_a_trained_one_changes_tokens_on_any_lattice(config: Any, lattice: tuple[int, ...]) -> None:
    before = latent(lattice)
    after = built(config, len(lattice))(before, CONDITION).tokens
    assert after.shape == before.tokens.shape
    assert after.isfinite().all()
    assert ((after - before.tokens).abs().amax((0, 2)) > 1e-3).all(), "no token is left out"


@pytest.mark.parametrize("config", LEARNED.values(), ids=LEARNED)
@pytest.mark.parametrize("lattice", [(16,), (8, 16), (8, 8, 8)])
def test_operators_commute_with_shifts_of_periodic_lattices(config: Any, lattice: tuple[int, ...]) -> None:
    """By whole windows of the coarsest level, which are 8 tokens of the finest; exactly, as far as rounding goes."""
    operator, before = built(config, len(lattice)), latent(lattice)
    after = operator(before, CONDITION).tokens
    shift = 8 if max(lattice) > 8 else 4
    other = operator(before._replace(tokens=moved(before.tokens, lattice, shift)), CONDITION).tokens
    torch.testing.assert_close(other, moved(after, lattice, shift), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", HALVING.values(), ids=HALVING)
def test_shifts_by_less_than_a_coarse_cell_are_seen(config: Any) -> None:
    operator, before = built(config, 1), latent((16,))
    other = operator(before._replace(tokens=moved(before.tokens, (16,), 1)), CONDITION).tokens
    assert (other - moved(operator(before, CONDITION).tokens, (16,), 1)).abs().max() > 1e-3


@pytest.mark.parametrize(("periodic", "far"), [(True, True), (False, False)])
def test_the_ends_of_an_axis_hear_each_other_only_where_it_wraps(periodic: bool, far: bool) -> None:
    """One level, two blocks: windows of 4, then shifted ones; only over the seam is the other end of 32 tokens near."""
    operator = built(PDETransformerConfig(**{**PDE, "depths": (2,)}), 1, periodic)
    before = latent((32,))
    tokens = before.tokens.clone()
    tokens[:, 0] += 1.0
    changed = (operator(before._replace(tokens=tokens), CONDITION).tokens - operator(before, CONDITION).tokens).abs()
    reached = changed.amax((0, 2)) > 0
    assert reached[0]
    assert bool(reached[-1]) is far
    assert not reached[8:24].any(), "nor is anything reached that is further than windows and neighbours go"


def test_coarse_levels_carry_further_than_windows_do() -> None:
    tokens = latent((32,)).tokens.clone()
    tokens[:, 0] += 1.0
    for depths, far in (((1,), False), ((1, 1, 1, 1), True)):
        operator = built(PDETransformerConfig(**{**PDE, "depths": depths}), 1, periodic=False)
        before = latent((32,))
        changed = operator(before._replace(tokens=tokens), CONDITION).tokens - operator(before, CONDITION).tokens
        assert bool((changed[:, -1] != 0).any()) is far


def test_convolutions_do_not_wrap_where_the_domain_does_not() -> None:
    """A residual block alone. Its norms hear every token, but an impulse that keeps the mean hardly."""
    values = torch.randn(1, 4, 16)
    for periodic in (True, False):
        torch.manual_seed(0)
        block = ResidualBlock(4, (periodic,))
        nn.init.normal_(block.second.weight)
        block.groups = 1
        impulse = torch.zeros_like(values)
        impulse[:, 0, 0], impulse[:, 1, 0] = 1e-3, -1e-3
        zero = torch.zeros(1, 1, 1)
        changed = (block(values + impulse, zero, zero) - block(values, zero, zero)).abs().amax((0, 1))
        assert bool(changed[-1] > 0.2 * changed[0]) is periodic


@pytest.mark.parametrize("config", LEARNED.values(), ids=LEARNED)
def test_the_condition_matters_once_trained_and_every_weight_is_reached(config: Any) -> None:
    operator, tokens = built(config, 1, trained=False), latent((16,))
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.01)
    others = CONDITION.flip(0)
    reached: set[str] = set()
    assert torch.equal(operator(tokens, CONDITION).tokens, operator(tokens, others).tokens)
    for _ in range(4):  # zero outputs move first, then what lies before them
        optimiser.zero_grad()
        (operator(tokens, CONDITION).tokens - tokens.tokens.roll(1, 1)).square().mean().backward()
        reached |= {name for name, value in operator.named_parameters() if value.grad is not None and value.grad.any()}
        optimiser.step()
    assert reached == {name for name, _ in operator.named_parameters()}
    assert (operator(tokens, CONDITION).tokens - operator(tokens, others).tokens).abs().max() > 1e-6


@pytest.mark.parametrize("config", [config for name, config in HALVING.items() if name.startswith("pde")])
def test_all_levels_learn_from_the_first_step_on(config: Any) -> None:
    """The coarse correction is a difference, so that it is nothing at first and yet is heard."""
    operator, tokens = built(config, 1, trained=False), latent((16,))
    (operator(tokens, CONDITION).tokens - tokens.tokens.roll(1, 1)).square().mean().backward()
    for block in (module for module in operator.modules() if isinstance(module, Block)):
        assert block.down.weight.grad is not None
        assert block.down.weight.grad.any()
        assert block.attention.out.weight.grad is not None
        assert block.attention.out.weight.grad.any()


def test_muon_takes_the_matrices_of_all_blocks_alike() -> None:
    operator = built(PDETransformerConfig(**PDE), 1)
    taken = {id(weight) for weight in hidden_matrices(operator)}
    mine = {name: id(weight) for name, weight in operator.named_parameters() if name.endswith("weight")}
    inside = {name for name in mine if "blocks" in name and "neighbours" not in name}
    assert {name for name, number in mine.items() if number in taken} == inside
    assert len(inside) == 4 * 3, "qkv, out, up and down of three blocks"


@pytest.mark.parametrize("config", LEARNED.values(), ids=LEARNED)
def test_weights_survive_a_file(config: Any, tmp_path: Any) -> None:
    operator, tokens = built(config, 2), latent((8, 12))
    save_file(operator.state_dict(), tmp_path / "operator.safetensors")
    other = built(config, 2, trained=False)
    other.load_state_dict(load_file(tmp_path / "operator.safetensors"))
    assert torch.equal(other(tokens, CONDITION).tokens, operator(tokens, CONDITION).tokens)


@pytest.mark.parametrize("config", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("periodic", [True, False])
def test_bfloat16_autocast_gives_finite_tokens_close_to_those_of_float32(config: Any, periodic: bool) -> None:
    operator, before = built(config, 2, periodic), latent((8, 12))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = operator(before, CONDITION).tokens
    full = operator(before, CONDITION).tokens
    assert half.isfinite().all()
    assert half.dtype == torch.float32
    assert (half - full).square().mean() <= 1e-3 * (full - before.tokens).square().mean()


def test_positions_are_as_precise_under_autocast() -> None:
    rotary = Rotary(32, ((0.0, 1.0),), (True,))
    anchors = torch.rand(64, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cos, sin = rotary(anchors)
    assert torch.equal(cos, rotary(anchors)[0])
    assert torch.equal(sin, rotary(anchors)[1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            PDETransformerConfig(depths=(1,) * 6, heads=1),
            r"operator.depths: expected at most 5 levels .* \(16,\); got 6",
        ),
        (UNetConfig(levels=7), r"operator.levels: expected at most 5 levels .* \(16,\); got 7"),
    ],
)
def test_what_the_lattice_cannot_be_is_told_when_there_is_one(config: Any, message: str) -> None:
    operator = built(config, 1)
    with pytest.raises(RecipeError, match=message):
        operator(latent((16,)), CONDITION)
    with pytest.raises(RecipeError, match="needs tokens on a lattice"):
        operator(latent((16,))._replace(grid=None), CONDITION)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PDETransformerConfig(), {}),
        (UNetConfig(), {}),
        (
            PDETransformerConfig(heads=3),
            {"heads": "3 heads do not cut latent.width = 8 into even parts; nearest: heads"},
        ),
        (PDETransformerConfig(channel_groups=3), {"channel_groups": "nearest: channel_groups = 2"}),
        (PDETransformerConfig(channel_groups=2, heads=4), {"heads": "latent.width / 2 groups = 4 into even parts"}),
        (PDETransformerConfig(window=33), {"window": "expected at most 32 tokens, on the grid 32; got 33"}),
        (PDETransformerConfig(depths=(1,) * 7), {"depths": "expected at most 6 levels"}),
        (UNetConfig(levels=8), {"levels": "expected at most 6 levels, which halve the grid 32 to one point; got 8"}),
    ],
)
def test_keys_are_held_against_the_data(config: Any, expected: dict[str, str]) -> None:
    problems = dict(config.check(spec(1, grid=(32,)), LatentSpec(8)))
    assert problems.keys() == expected.keys()
    assert all(text in problems[key] for key, text in expected.items())
    assert not any(key in ("window", "depths", "levels") for key, _ in config.check(spec(1), LatentSpec(8)))


class Stepped(nn.Module):
    """An operator as a function of tensors, for export."""

    def __init__(self, operator: nn.Module, like: Latent) -> None:
        super().__init__()
        self.operator, self.like = operator, like

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        after: Latent = self.operator(self.like._replace(tokens=tokens), condition)
        return after.tokens


@pytest.mark.parametrize("name", ["pde_transformer", "unet"])
def test_operators_are_exported_for_any_number_of_samples(name: str) -> None:
    like, batch = latent((8, 12)), torch.export.Dim("batch", min=2, max=64)
    model = Stepped(built(LEARNED[name], 2, periodic=False), like).eval()
    exported = torch.export.export(model, (like.tokens, CONDITION), dynamic_shapes=({0: batch}, {0: batch}))
    tokens, condition = torch.randn(5, 96, WIDTH), torch.randn(5, 2)
    torch.testing.assert_close(exported.module()(tokens, condition), model(tokens, condition), atol=1e-5, rtol=1e-5)
