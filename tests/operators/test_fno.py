"""The FNO operator: identity at first, shift-equivariant, independent of resolution, conditioned."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from ups_kit import Field, FieldSpec, Latent, LatentSpec
from ups_kit.errors import RecipeError
from ups_plugins.operators.config import FNOConfig
from ups_plugins.operators.fno import FNOOperator, SpectralConvolution

LATTICES = [(16,), (8, 12), (8, 6, 10)]


def operator(dims: int = 1, modes: int = 3, periodic: bool = True, trained: bool = True, **keys: int) -> FNOOperator:
    torch.manual_seed(0)
    made = FNOOperator(5, 2, (periodic,) * dims, modes=modes, layers=2, padding=0.25, **keys)
    if trained:
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return made.double()


def latent(lattice: tuple[int, ...], width: int = 5) -> Latent:
    tokens = torch.randn(3, math.prod(lattice), width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Latent(tokens, None, lattice)


CONDITION = torch.tensor([[0.1, 0.4], [0.2, -1.0], [0.3, 2.0]], dtype=torch.float64)


@pytest.mark.parametrize("lattice", LATTICES)
def test_the_operator_starts_as_the_identity(lattice):
    tokens = latent(lattice)
    after = operator(len(lattice), trained=False)(tokens, CONDITION)
    assert torch.equal(after.tokens, tokens.tokens)
    assert after.grid == lattice


@pytest.mark.parametrize("lattice", LATTICES)
def test_the_operator_commutes_with_shifts_of_a_periodic_lattice(lattice):
    before = latent(lattice)
    shift, axes = tuple(range(1, 1 + len(lattice))), tuple(range(1, 1 + len(lattice)))

    def shifted(tokens):
        return tokens.view(3, *lattice, 5).roll(shift, axes).reshape(tokens.shape)

    model = operator(len(lattice))
    after = model(before, CONDITION).tokens
    other = model(before._replace(tokens=shifted(before.tokens)), CONDITION).tokens
    assert (after - before.tokens).abs().max() > 0.1
    torch.testing.assert_close(other, shifted(after), atol=1e-5, rtol=1e-5)


def test_an_axis_that_is_not_periodic_breaks_the_shift():
    before = latent((16,))
    model = operator(periodic=False)
    after = model(before, CONDITION).tokens
    other = model(before._replace(tokens=before.tokens.roll(3, 1)), CONDITION).tokens
    assert (other - after.roll(3, 1)).abs().max() > 0.01


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_band_limited_tokens_give_the_same_on_a_finer_lattice(dims):
    """One layer without GELU's overtones is exact: the spectral convolution alone."""
    torch.manual_seed(0)
    layer = SpectralConvolution(dims, 4, modes=3)

    def wave(size):
        axis = torch.arange(size) * (2 * math.pi / size)
        mesh = torch.meshgrid(*[axis] * dims, indexing="ij")
        phase = sum((place + 1) * x for place, x in enumerate(mesh) if place < 2)
        return torch.stack([torch.cos(phase + channel) for channel in range(4)], dim=-1)[None]

    coarse, fine = layer(wave(8)), layer(wave(16))
    assert coarse.abs().max() > 0.1
    torch.testing.assert_close(fine[(slice(None), *[slice(None, None, 2)] * dims)], coarse, atol=2e-6, rtol=1e-5)


def test_the_whole_operator_hardly_depends_on_the_resolution():
    model = operator()

    def tokens(size):
        x = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
        return Latent(torch.stack([torch.sin(x + c) for c in range(5)], -1)[None], None, (size,))

    coarse, fine = (model(tokens(size), CONDITION[:1]).tokens for size in (32, 64))
    torch.testing.assert_close(fine[:, ::2], coarse, atol=1e-4, rtol=1e-4)


def test_a_spectral_convolution_is_a_matrix_for_each_mode():
    """cos(2x) through mode 2's matrix R: Re(R)·cos - Im(R)·sin, by hand."""
    layer = SpectralConvolution(1, 1, modes=4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[2, 0, 0] = torch.tensor([0.5, -2.0])
    x = torch.arange(16) * (2 * math.pi / 16)
    result = layer(torch.cos(2 * x).view(1, 16, 1)).flatten()
    torch.testing.assert_close(result, 0.5 * torch.cos(2 * x) + 2 * torch.sin(2 * x), atol=1e-6, rtol=1e-5)


def test_the_condition_matters_after_three_steps_and_not_before():
    model, tokens = operator(trained=False), latent((16,))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    others = CONDITION.flip(0)
    assert torch.equal(model(tokens, CONDITION).tokens, model(tokens, others).tokens)
    for _ in range(3):  # the first step moves only the zero output, the next ones what lies before it
        optimiser.zero_grad()
        (model(tokens, CONDITION).tokens - tokens.tokens.roll(1, 1)).square().mean().backward()
        optimiser.step()
    assert (model(tokens, CONDITION).tokens - model(tokens, others).tokens).abs().max() > 1e-6


def test_every_parameter_is_reached():
    model = operator(2)
    model(latent((8, 12)), CONDITION).tokens.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_parameters_are_real_and_survive_a_file(tmp_path):
    model = operator(2)
    assert not any(parameter.is_complex() for parameter in model.parameters())
    save_file(model.state_dict(), tmp_path / "fno.safetensors")
    other = operator(2, trained=False)
    other.load_state_dict(load_file(tmp_path / "fno.safetensors"))
    assert torch.equal(other(latent((8, 12)), CONDITION).tokens, model(latent((8, 12)), CONDITION).tokens)


def test_bfloat16_autocast_gives_finite_tokens():
    model, tokens = operator().float(), latent((16,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = model(tokens._replace(tokens=tokens.tokens.float()), CONDITION.float())
    assert after.tokens.isfinite().all()
    assert after.tokens.dtype == torch.float32


def test_more_modes_than_half_the_lattice_are_refused():
    with pytest.raises(RecipeError, match=r"operator.modes: expected at most half .* 8 for a lattice \(16,\); got 9"):
        operator(modes=9)(latent((16,)), CONDITION)


def test_tokens_without_a_lattice_are_refused():
    with pytest.raises(RecipeError, match="needs tokens on a lattice"):
        operator()(latent((16,))._replace(grid=None), CONDITION)


def test_the_config_checks_the_data_and_sizes_the_operator():
    grid = FieldSpec((Field("u"),), ((0, 1),), (True,), "grid", (32,), 0.1, conditions=("dt", "epsilon"))
    mesh = FieldSpec((Field("u"),), ((0, 1),), (True,), "mesh", None, 0.1)
    assert list(FNOConfig(modes=16).check(grid, LatentSpec(8))) == []
    assert [key for key, _ in FNOConfig(modes=17).check(grid, LatentSpec(8))] == ["modes"]
    assert list(FNOConfig().check(mesh, LatentSpec(8))) == []  # its encoder's tokens may form a lattice
    made = FNOConfig(modes=4).build(grid, LatentSpec(8))
    assert made(Latent(torch.randn(2, 32, 8), None, (32,)), torch.zeros(2, 2)).tokens.shape == (2, 32, 8)
