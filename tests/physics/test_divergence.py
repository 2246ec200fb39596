"""The divergence of fields whose divergence is known, on grids and on any points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from ups_kit import Field, LatentSpec
from ups_kit.derivatives import STENCIL, Stencils, central_difference, divergence, spectral_derivative
from ups_plugins.physics.config import DivergenceConfig

from .seeing import cell_centres, look, spec, value, waves

EXTENT = (2.0, 1.0, 1.0)


def flow(places: torch.Tensor, divergent: bool) -> torch.Tensor:
    """A velocity and a density at places (N, D), (1, 1, N, D + 1): sin x_i, or Taylor and Green's vortices."""
    sin, cos = waves(places)
    if divergent:
        velocity = sin
    else:  # u = ∂ψ/∂y, v = −∂ψ/∂x of ψ = cos πx cos 2πy
        velocity = torch.stack([-2 * math.pi * cos[:, 0] * sin[:, 1], math.pi * sin[:, 0] * cos[:, 1]], -1)
    return torch.cat([velocity, torch.ones_like(velocity[:, :1])], -1)[None, None]


def expected(places: torch.Tensor) -> float:
    """mean (Σ k_i cos k_i x_i)² over the points."""
    waves_numbers = torch.tensor([math.pi, 2 * math.pi, 2 * math.pi][: places.shape[-1]], dtype=places.dtype)
    return float((waves(places)[1] * waves_numbers).sum(-1).square().mean())


@pytest.mark.parametrize("grid", [(12,), (16, 9), (9, 8, 12)])
def test_spectral_is_exact_for_waves(grid: tuple[int, ...]) -> None:
    fields = spec(grid)
    places = cell_centres(grid, fields.domain)
    found = flow(places, divergent=True).float().repeat(2, 2, 1, 1)
    config = DivergenceConfig(field="velocity", method="spectral", relative=False)
    assert value(config, fields, look(fields, found)) == pytest.approx(expected(places), rel=1e-5)
    assert DivergenceConfig(field="velocity").chosen(fields) == "spectral"


def test_vortices_have_none_whatever_the_normalisation() -> None:
    fields = spec((16, 24))
    found = flow(cell_centres(fields.grid, fields.domain), divergent=False).float().repeat(1, 2, 1, 1)
    seen = look(fields, found, std=[3.0, 0.2, 1.0], mean=[5.0, -1.0, 0.0])
    assert value(DivergenceConfig(field="velocity"), fields, seen) < 1e-10
    odd = value(DivergenceConfig(fields=("u", "v")), spec((16, 24), targets=NAMES), look(fields, found.flip(-2)))
    assert odd < 1e-10


NAMES = (Field("u"), Field("v"), Field("density"))


def test_components_may_be_fields_of_their_own_and_stand_in_any_order() -> None:
    fields = spec((8, 8), targets=(Field("density"), Field("v"), Field("u")))
    found = flow(cell_centres(fields.grid, fields.domain), divergent=True).float().repeat(1, 2, 1, 1)[..., [2, 1, 0]]
    config = DivergenceConfig(fields=("u", "v"), relative=False)
    places = cell_centres((8, 8), fields.domain)
    assert value(config, fields, look(fields, found)) == pytest.approx(expected(places), rel=1e-5)


def test_relative_is_over_the_gradients_of_the_truth() -> None:
    """(∇·u)² over |∇u|² + 0.01 Σ (s/L)²: of (sin πx, 0) both are (π cos πx)²."""
    fields = spec((16, 16))
    sin, _ = waves(cell_centres(fields.grid, fields.domain))
    truth = torch.stack([sin[:, 0], 0 * sin[:, 0], 0 * sin[:, 0]], -1)[None, None].repeat(1, 2, 1, 1)
    least = 0.01 * ((2.0 / 2.0) ** 2 + (0.5 / 1.0) ** 2)
    for factor in (1.0, 3.0):
        seen = look(fields, factor * truth, truth, std=[2.0, 0.5, 1.0])
        mean = math.pi**2 / 2
        wanted = factor**2 * mean / (mean + least)
        assert value(DivergenceConfig(field="velocity"), fields, seen) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("periodic", [True, False, (False, True)])
def test_finite_differences_are_of_second_order(periodic: bool | tuple[bool, ...]) -> None:
    errors = []
    for count in (24, 48, 96):
        fields = spec((count, count), periodic)
        places = cell_centres(fields.grid, fields.domain)
        sin, cos = waves(places + 0.1)  # nothing special at the ends
        loss = DivergenceConfig(field="velocity", method="finite_difference").build(fields)
        found = divergence(sin[None], loss.derivative)  # type: ignore[attr-defined]
        exact = (cos * torch.tensor([math.pi, 2 * math.pi])).sum(-1, keepdim=True)
        errors.append(float((found[0] - exact).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.6)
    assert errors[1] / errors[2] == pytest.approx(4, abs=0.4)


def test_differences_by_hand() -> None:
    squares = torch.tensor([0.0, 1, 4, 9, 16]).double()[:, None]
    assert central_difference(squares, 0, 1.0, periodic=False).flatten().tolist() == pytest.approx([0, 2, 4, 6, 8])
    assert central_difference(squares, 0, 1.0, periodic=True).flatten().tolist() == [-7.5, 2, 4, 6, -4.5]
    saw = torch.tensor([1.0, -1, 1, -1])[:, None]
    assert spectral_derivative(saw, 0, 1.0).abs().max() < 1e-6


def triangles(seed: int, count: int, dims: int = 2) -> torch.Tensor:
    """The nodes of a random triangulation of the box: a jittered lattice, and its boundary."""
    random = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*[np.linspace(0, 1, count)] * dims, indexing="ij"), -1).reshape(-1, dims)
    inside = ((lattice > 0) & (lattice < 1)).all(-1, keepdims=True)
    places = lattice + inside * random.uniform(-0.3, 0.3, lattice.shape) / count
    order = random.permutation(len(places))
    assert dims != 2 or len(Delaunay(places).simplices) > count**2
    return torch.from_numpy(places[order] * np.array(EXTENT[:dims])).float()[None]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_linear_fields_are_exact_on_random_meshes(dims: int) -> None:
    fields = spec(None, False, dims=dims)
    places = triangles(0, {1: 40, 2: 20, 3: 9}[dims], dims)
    slopes = torch.randn(dims, dims, generator=torch.Generator().manual_seed(1)).double()
    velocity = places.double() @ slopes + 3
    found = torch.cat([velocity, velocity[..., :1]], -1)[:, None].repeat(1, 2, 1, 1)
    config = DivergenceConfig(field="velocity", relative=False)
    wanted = float(slopes.trace()) ** 2
    assert value(config, fields, look(fields, found, places=places)) == pytest.approx(wanted, rel=1e-5)
    derivative = Stencils(fields.domain, fields.periodic, STENCIL[dims])(places, None)
    for axis in range(dims):
        assert (derivative(velocity, axis) - slopes[axis]).abs().max() < 1e-5 * float(slopes.abs().max()) * 10


def test_curved_fields_on_meshes_are_of_second_order() -> None:
    errors = []
    for count in (16, 32, 64):
        places = triangles(0, count).double()
        sin, cos = waves(places[0])
        derivative = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), STENCIL[2])(places, None)
        exact = (cos * torch.tensor([math.pi, 2 * math.pi])).sum(-1, keepdim=True)
        errors.append(float((divergence(sin[None], derivative)[0] - exact).square().mean().sqrt()))
    assert errors[0] / errors[1] > 2.5
    assert errors[1] / errors[2] > 3
    assert errors[2] < 0.05


def test_points_hear_across_a_periodic_seam() -> None:
    places = torch.rand(1, 4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 1.0])
    sin, cos = waves(places[0].double() + 0.3)
    exact = (cos * torch.tensor([math.pi, 2 * math.pi])).sum(-1, keepdim=True)
    seam = (places[0] < 0.02).any(-1)
    errors = {}
    for wraps in (True, False):
        derivative = Stencils(((0.0, 2.0), (0.0, 1.0)), (wraps, wraps), STENCIL[2])(places, None)
        errors[wraps] = float((divergence(sin[None], derivative)[0] - exact)[seam].square().mean().sqrt())
    assert errors[True] < 0.5 * errors[False]


def test_points_on_one_line_have_no_derivative_across_it() -> None:
    along = torch.linspace(0, 1, 30)[None, :, None]
    derivative = Stencils(((0.0, 1.0),) * 2, (False, False), 6)(torch.cat([along, 0 * along], -1), None)
    assert derivative(along, 0).flatten().tolist() == pytest.approx([1.0] * 30, abs=1e-4)
    assert not derivative(along, 1).any()


def test_padding_is_no_neighbour_and_points_at_one_place_do_no_harm() -> None:
    places = triangles(2, 8)
    alone = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), 12)(places, None)
    padded = torch.cat([places, places[:, :1].expand(-1, 9, -1)], 1)
    mask = torch.arange(padded.shape[1])[None] < places.shape[1]
    both = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), 12)(padded, mask)
    count = places.shape[1]
    assert torch.equal(both.neighbours[:, :count], alone.neighbours)
    assert torch.equal(both.weights[:, :count], alone.weights)
    assert not both.weights[:, count:].any()
    twins = torch.cat([places, places], 1)
    doubled = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), 12)(twins, None)
    assert torch.allclose(doubled(twins[..., :1], 0), torch.ones(1, 2 * count, 1), atol=1e-4)


def test_stencils_are_kept_by_where_points_are() -> None:
    stencils = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), 12)
    places = triangles(3, 8)
    first = stencils(places, None)
    again = stencils(places.clone().expand(2, -1, -1), None)
    assert (stencils.cache.misses, stencils.cache.hits) == (1, 2)
    assert torch.equal(again.weights[1], first.weights[0])
    stencils(places + 0.01, None)
    assert stencils.cache.misses == 2


def test_few_points_are_enough() -> None:
    for count in (1, 2, 3):
        places = triangles(0, 5)[:, :count]
        derivative = Stencils(((0.0, 2.0), (0.0, 1.0)), (False, False), 12)(places, None)
        assert derivative(torch.ones(1, count, 1), 0).tolist() == torch.zeros(1, count, 1).tolist()


@pytest.mark.parametrize(
    ("keys", "data", "wanted"),
    [
        ({}, {}, {"field": "missing key; name the vector field"}),
        ({"field": "velocty"}, {}, {"field": "did you mean 'velocity'"}),
        ({"field": "density"}, {}, {"field": "expected a vector of 2 components"}),
        ({"field": "depth"}, {"statics": (Field("depth"),)}, {"field": "is given and not predicted"}),
        ({"fields": ("density", "density")}, {}, {"fields": "named 2 times"}),
        ({"field": "velocity", "method": "spectral"}, {"periodic": (True, False)}, {"method": "and y is not"}),
        ({"field": "velocity", "method": "spectral"}, {"grid": None}, {"method": "needs a regular grid"}),
        ({"field": "velocity", "method": "finite_difference"}, {"grid": None}, {"method": "needs a regular grid"}),
        ({"field": "velocity", "neighbours": 8}, {}, {"neighbours": "is of 'least_squares' alone"}),
        ({"field": "velocity", "neighbours": 1}, {"grid": None}, {"neighbours": "expected at least 2"}),
        ({"field": "velocity"}, {"grid": (2, 8), "periodic": False}, {"method": "3 points along each axis"}),
        ({"field": "velocity"}, {"sampled": 8}, {"use": "dataset.points reads frames at random points alone"}),
        ({"field": "velocity"}, {"grid": None, "sampled_inputs": 8}, {"use": "dataset.input_points"}),
        ({"field": "velocity", "step": 0}, {"history": 0}, {"step": "expected 1"}),
        ({"field": "velocity", "step": 2}, {"history": 0}, {"step": "expected 1"}),
        ({"field": "velocity"}, {"conditions": ("dt", "task:a")}, {"use": "a mixture's tasks"}),
        (
            {"field": "densty", "method": "spectral", "step": 2},
            {"grid": None, "history": 0, "sampled": 8},
            {"field": "density", "method": "regular grid", "step": "steady", "use": "random points"},
        ),
    ],
)
def test_what_it_refuses(keys: dict, data: dict, wanted: dict[str, str]) -> None:
    data = dict(data)
    fields = spec(data.pop("grid", (16, 16)), data.pop("periodic", True), **({"dims": 2} | data))
    found = dict(DivergenceConfig(**keys).check(fields, LatentSpec(8)))
    assert set(found) == set(wanted)
    for key, part in wanted.items():
        assert part in found[key]


def test_field_and_fields_stand_for_each_other() -> None:
    with pytest.raises(ValueError, match="leave one of the two out"):
        DivergenceConfig(field="velocity", fields=("u", "v"))
