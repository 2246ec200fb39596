"""The two constraints on fields whose totals and divergences are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ups_kit import Field, FieldSpec, Latent
from ups_kit.interfaces import Constraint
from ups_plugins.physics.constraint_keys import DivergenceFreeConfig, TotalConfig

from .waves import linear, places, spec

NOTHING = Latent(torch.zeros(1, 1, 1), None)
SHAPES = {
    "even": ((16, 12), (1.0, 1.0)),
    "odd": ((15, 9), (2.0, 0.5)),
    "mixed": ((8, 21), (6.28, 1.0)),
    "space": ((8, 6, 10), (1.0, 3.0, 0.7)),
}


def projection(
    grid: Sequence[int], lengths: Sequence[float], deviations: Sequence[float]
) -> tuple[FieldSpec, Constraint]:
    fields = spec(grid, (Field("p"), Field("velocity", len(grid))), lengths)
    means = [0.3 * channel for channel in range(len(grid) + 1)]
    return fields, DivergenceFreeConfig(field="velocity").build(fields, linear(means, (2.0, *deviations)))


def derivatives(values: Tensor, fields: FieldSpec) -> Tensor:
    """∂_j of each channel of (B, N, C), by the Fourier series in real lengths: (B, *grid, C, D)."""
    assert fields.grid is not None
    axes = tuple(range(1, 1 + len(fields.grid)))
    modes = torch.fft.fftn(values.double().unflatten(1, fields.grid), dim=axes)
    found = []
    for axis, (size, length) in enumerate(zip(fields.grid, fields.extent)):
        wave = torch.fft.fftfreq(size, length / size, dtype=torch.float64) * 2 * math.pi
        shape = [size if other == axis else 1 for other in range(len(fields.grid))]
        found.append(torch.fft.ifftn(1j * wave.view(1, *shape, 1) * modes, dim=axes).real)
    return torch.stack(found, -1)


def divergence(velocity: Tensor, fields: FieldSpec) -> tuple[float, float]:
    """Root mean squares of ∇·u, and of |∇u|."""
    gradients = derivatives(velocity, fields)
    of = gradients.diagonal(dim1=-2, dim2=-1).sum(-1)
    return float(of.square().mean().sqrt()), float(gradients.square().sum((-1, -2)).mean().sqrt())


def noise(fields: FieldSpec, samples: int = 3) -> Tensor:
    return torch.randn(samples, fields.points or 0, fields.target_channels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SHAPES)
def test_projected_noise_has_no_divergence_in_real_lengths_and_units(name: str) -> None:
    """Noise has waves of every length, those of two points too; deviations differ by 100."""
    grid, lengths = SHAPES[name]
    fields, constraint = projection(grid, lengths, (0.1, 10.0, 1.0)[: len(grid)])
    normaliser, values = linear((0.0,) * (len(grid) + 1), (2.0, *(0.1, 10.0, 1.0)[: len(grid)])), noise(fields)
    before, size = divergence(normaliser.physical(values)[..., 1:], fields)
    added = constraint.correction(values, NOTHING)
    kept = (values + added).float()
    after, _ = divergence(normaliser.physical(kept)[..., 1:], fields)
    assert before > 0.1 * size
    assert after < 1e-6 * size
    assert torch.equal(kept[..., 0], values[..., 0])
    torch.testing.assert_close(added.mean(1), torch.zeros_like(added[:, 0]), atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_a_field_without_divergence_stays(name: str) -> None:
    grid, lengths = SHAPES[name]
    fields, constraint = projection(grid, lengths, (0.1, 10.0, 1.0)[: len(grid)])
    once = noise(fields).double()
    once = once + constraint.correction(once, NOTHING)
    assert constraint.correction(once, NOTHING).abs().max() < 1e-13


def test_the_curl_of_a_stream_function_stays_and_a_gradient_goes() -> None:
    fields, constraint = projection((32, 20), (1.0, 2.5), (0.5, 4.0))
    x, y = ((places(fields, 1)[..., axis] * 2 * math.pi / fields.extent[axis]) for axis in range(2))
    normaliser = linear((0.0, 0.3, 0.6), (2.0, 0.5, 4.0))
    # ψ = sin(x) cos(2y) + cos(3x + y): u = ∂ψ/∂y, v = −∂ψ/∂x; φ = sin(2x) sin(y)
    u = (-2 * x.sin() * (2 * y).sin() - (3 * x + y).sin()) / 2.5
    v = -(x.cos() * (2 * y).cos() - 3 * (3 * x + y).sin())
    curl = torch.stack([torch.ones_like(u), u + 0.7, v - 0.2], -1)
    gradient = torch.stack([torch.zeros_like(u), 2 * (2 * x).cos() * y.sin(), (2 * x).sin() * y.cos() / 2.5], -1)
    values = normaliser.targets(curl)
    assert constraint.correction(values, NOTHING).abs().max() < 1e-13
    both = normaliser.targets(curl + gradient)
    torch.testing.assert_close(both + constraint.correction(both, NOTHING), values, atol=1e-13, rtol=0)


def test_of_fields_without_divergence_it_is_the_nearest() -> None:
    """What is added is orthogonal to every field without divergence, in physical units."""
    fields, constraint = projection((12, 16), (1.0, 2.0), (0.2, 3.0))
    deviations = torch.tensor([2.0, 0.2, 3.0], dtype=torch.float64)
    other = noise(fields, 1).double()
    other = other + constraint.correction(other, NOTHING)
    added = constraint.correction(noise(fields, 2)[1:].double(), NOTHING)
    product = ((added * deviations)[..., 1:] * (other * deviations)[..., 1:]).mean()
    assert product.abs() < 1e-13


@pytest.mark.parametrize("name", SHAPES)
def test_between_points_what_is_added_is_its_fourier_series(name: str) -> None:
    grid, lengths = SHAPES[name]
    fields, constraint = projection(grid, lengths, (0.1, 10.0, 1.0)[: len(grid)])
    added = constraint.correction(noise(fields), NOTHING)
    shuffled = torch.randperm(fields.points or 0, generator=torch.Generator().manual_seed(2))
    found = constraint.elsewhere(added, places(fields, 3)[:, shuffled])
    torch.testing.assert_close(found, added[:, shuffled], atol=1e-11, rtol=0)
    x = places(fields, 1)[0] * 2 * math.pi / torch.tensor(fields.extent, dtype=torch.float64)
    asked = torch.rand(1, 50, len(grid), dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 9 - 4
    phase = asked[0] * 2 * math.pi / torch.tensor(fields.extent, dtype=torch.float64)
    waves = [torch.cos(at[:, 0] * 2 + 1) * torch.sin(at[:, 1] + 0.3) for at in (x, phase)]
    on_grid, wanted = (wave[None, :, None] * torch.ones(len(grid) + 1) for wave in waves)
    torch.testing.assert_close(constraint.elsewhere(on_grid, asked)[..., 1:], wanted[..., 1:], atol=1e-12, rtol=0)


def test_queries_are_taken_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    fields, constraint = projection((12, 16), (1.0, 2.0), (0.2, 3.0))
    added, asked = constraint.correction(noise(fields), NOTHING), torch.rand(3, 101, 2)
    whole = constraint.elsewhere(added, asked)
    monkeypatch.setattr("ups_plugins.physics.constraints.PRODUCTS_TOGETHER", 1000)
    torch.testing.assert_close(constraint.elsewhere(added, asked), whole, atol=1e-12, rtol=0)


def test_components_may_be_fields_of_their_own() -> None:
    fields = spec((8, 10), (Field("v"), Field("p"), Field("u")))
    constraint = DivergenceFreeConfig(fields=("u", "v")).build(fields, linear((0.0,) * 3, (1.0, 1.0, 2.0)))
    values = noise(fields)
    physical = (values + constraint.correction(values, NOTHING)) * torch.tensor([1.0, 1.0, 2.0])
    after, size = divergence(physical[..., [2, 0]], fields)
    assert after < 1e-12 * size


def test_gradients_pass_and_lie_among_fields_without_divergence() -> None:
    fields, constraint = projection((8, 10), (1.0, 1.0), (1.0, 1.0))
    values = noise(fields).double().requires_grad_()
    target = noise(fields, 6)[3:].double()
    (values + constraint.correction(values, NOTHING) - target)[..., 1:].square().sum().backward()
    assert values.grad is not None
    after, size = divergence(values.grad[..., 1:], fields)
    assert size > 1
    assert after < 1e-12 * size


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_total_is_kept_to_the_rounding(offset: float) -> None:
    """Of float32 fields: each number is rounded by 6e-8 of itself, and their mean by less."""
    fields = spec((64,), (Field("u"), Field("v")))
    constraint = TotalConfig(fields=("v",)).build(fields, linear((0.0, 0.0), (1.0, 1.0)))
    values = noise(fields) + offset
    wanted = torch.tensor([[0.1, 0.2], [0.3, -0.4], [7.0, 2.5]], dtype=torch.float64) + offset
    kept = (values + constraint.correction(values, NOTHING._replace(totals=wanted))).float()
    assert torch.equal(kept[..., 0], values[..., 0])
    assert ((kept.double().mean(1) - wanted)[:, 1].abs() < 5e-8 * (offset + 2)).all()
    spread = (kept - values)[..., 1].std(1)
    assert spread.max() < 1e-6 * (offset + 1)


def test_a_given_value_is_one_in_physical_units() -> None:
    fields, normaliser = spec((6, 6), (Field("u"), Field("v", 2))), linear((1.0, 2.0, -3.0), (0.5, 4.0, 2.0))
    constraint = TotalConfig(fields=("v",), value=0.25).build(fields, normaliser)
    values = noise(fields)
    kept = normaliser.physical((values + constraint.correction(values, NOTHING)).float())
    torch.testing.assert_close(kept.mean(1)[:, 1:], torch.full((3, 2), 0.25), atol=1e-6, rtol=0)
