"""Smoothed particle hydrodynamics, piece by piece: the kernel, the pairs, the forces, and what they conserve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ups_kit import DataError
from ups_plugins.particles.sph.fluid import Fluid, Medium, Walls
from ups_plugins.particles.sph.kernel import Kernel
from ups_plugins.particles.sph.neighbours import Crowd, Pairs, near_by_all, near_in_tree
from ups_plugins.particles.sph.simulation import lattice, wrapped

SOME = 64  # particles whose forces are compared
Array = NDArray[np.float64]


def scattered(count: int, dims: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((dims, count)))


def fluid_of(positions: torch.Tensor, side: int, trajectories: int = 1, sound: float = 10.0, nu: float = 0.02) -> Fluid:
    """`trajectories` fluids of side^D particles each in periodic unit boxes."""
    dims, count = positions.shape
    crowd = Crowd(range(trajectories), count // trajectories, 1.0)
    medium = Medium(1 / side, sound, torch.full((count,), nu, dtype=torch.float64))
    support = 3.0 / side
    return Fluid(medium, Kernel(support, dims), Pairs(crowd, support, 0.3 / side), positions)


@pytest.mark.parametrize("dims", [2, 3])
def test_kernel_has_unit_integral_and_its_own_slope(dims: int) -> None:
    kernel, size = Kernel(0.3, dims), 20001
    r = torch.linspace(0, 0.4, size, dtype=torch.float64)
    value, slope = kernel.at(r)
    shell = 2 * math.pi * r if dims == 2 else 4 * math.pi * r**2
    assert torch.trapezoid(value * shell, r).item() == pytest.approx(1, rel=1e-6)
    assert value[0].item() == pytest.approx(kernel.centre)
    assert value[r > 0.3].abs().max() == slope[r > 0.3].abs().max() == 0
    measured = torch.gradient(value, spacing=(r,))[0]
    torch.testing.assert_close((slope * r)[1:-1], measured[1:-1], rtol=1e-3, atol=1e-2 * kernel.centre)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("box", [1.0, None])
def test_both_searches_find_the_same_pairs(dims: int, box: float | None) -> None:
    points = scattered(300, dims) + (0.0 if box is None else 7.0)
    one, other = (near(points, 0.21, box) for near in (near_in_tree, near_by_all))
    assert {frozenset(pair) for pair in one.T.tolist()} == {frozenset(pair) for pair in other.T.tolist()}
    assert one.shape == other.shape
    assert one.shape[1] > 300


def test_lists_hold_while_particles_move_and_are_renewed_in_time() -> None:
    positions = scattered(400)
    pairs = Pairs(Crowd(range(2), 200, 1.0), 0.15, 0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        pairs.renew(positions)
        for row in range(2):
            inside = slice(200 * row, 200 * row + 200)
            near = {frozenset(pair) for pair in (near_by_all(positions[:, inside], 0.15, 1.0) + 200 * row).T.tolist()}
            assert near <= {frozenset(pair) for pair in torch.stack([pairs.first, pairs.second]).T.tolist()}
        apart = pairs.of_first(positions) - pairs.of_second(positions) + pairs.shift
        assert apart.abs().max() <= 0.5
        positions = positions + 0.02 * (torch.rand(positions.shape, generator=generator, dtype=torch.float64) - 0.5)
    assert 1 < pairs.renewals < 12


def test_pairs_of_particles_that_never_move_are_left_out() -> None:
    fixed = np.arange(100) < 60
    pairs = Pairs(Crowd(range(1), 100, None, fixed), 0.3, 0.03)
    pairs.renew(scattered(100))
    assert not (fixed[pairs.first.numpy()] & fixed[pairs.second.numpy()]).any()
    assert len(pairs.first) > 100


def directly(positions: Array, velocity: Array, slip: Array, spacing: float, nu: float) -> tuple[Array, Array]:
    """Both accelerations of Adami et al. (2013), eqs. 8 and 13, by loops over all particles; sound 10, p_b = 100."""
    dims, count = positions.shape
    kernel, mass = Kernel(3 * spacing, dims), spacing**dims
    apart = positions[:, :, None] - positions[:, None, :]
    apart -= np.round(apart)
    r = np.sqrt((apart**2).sum(0))
    value, slope = (each.numpy() for each in kernel.at(torch.from_numpy(r)))
    density = mass * value.sum(1)
    pressure, volume = 100 * (density - 1), mass / density
    forces, spreading = np.zeros_like(positions), np.zeros_like(positions)
    for i in range(min(count, SOME)):
        for j in np.flatnonzero((r[i] < 3 * spacing) & (np.arange(count) != i)):
            x, weight = apart[:, i, j], (volume[i] ** 2 + volume[j] ** 2) * slope[i, j] / mass
            mean = (density[j] * pressure[i] + density[i] * pressure[j]) / (density[i] + density[j])
            stress = sum(density[k] * np.outer(velocity[:, k], slip[:, k]) for k in (i, j)) / 2
            forces[:, i] += weight * (-mean * x + nu * (velocity[:, i] - velocity[:, j]) + stress @ x)
            spreading[:, i] -= 100 * weight * x
    return forces, spreading


@pytest.mark.parametrize("dims", [2, 3])
def test_forces_are_those_of_a_direct_sum(dims: int) -> None:
    side, generator = 8, np.random.default_rng(1)
    points = lattice(side, dims).T + generator.uniform(-0.04, 0.04, (dims, side**dims))
    velocity, slip = generator.normal(size=points.shape), 0.1 * generator.normal(size=points.shape)
    fluid = fluid_of(torch.from_numpy(points), side)
    fluid.start(torch.from_numpy(velocity))
    fluid._slip = torch.from_numpy(slip)
    fluid._forces()
    some = slice(0, SOME)
    forces, spreading = directly(points, velocity, slip, 1 / side, 0.02)
    np.testing.assert_allclose(fluid._acceleration.numpy()[:, some], forces[:, some], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fluid._spreading.numpy()[:, some], spreading[:, some], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_momentum_is_conserved_to_rounding(dims: int) -> None:
    side = 10
    rest = torch.from_numpy(np.ascontiguousarray(lattice(side, dims).T))
    fluid = fluid_of(rest + 0.02 * scattered(side**dims, dims), side)
    velocity = 0.5 * scattered(side**dims, dims, seed=2)
    fluid.start(velocity)
    fluid.advance(2e-3, 50)
    drift = (fluid.velocity - velocity).mean(1).abs().max().item()
    assert (fluid.velocity - velocity).abs().mean() > 0.01
    assert drift < 1e-15


def test_settled_particles_are_evenly_spread_and_in_no_lattice() -> None:
    side = 20
    rest = torch.from_numpy(np.ascontiguousarray(lattice(side, 2).T))
    fluid = fluid_of(rest + (scattered(400) - 0.5) * 2 / side, side)
    before, after = np.inf, np.inf
    fluid.start(torch.zeros_like(rest))
    before = fluid.pressure.std().item() / 100
    fluid.settle()
    fluid.start(torch.zeros_like(rest))
    after = fluid.pressure.std().item() / 100
    moved = (fluid.positions * side - 0.5) % 1
    assert before > 0.1
    assert after < 3e-3
    assert (torch.minimum(moved, 1 - moved) > 0.2).double().mean() > 0.4  # of any place 0.6, of a lattice's 0


def test_trajectories_beside_each_other_do_not_meet() -> None:
    side, alone = 10, scattered(100, seed=3)
    other = scattered(100, seed=4)
    one, two = fluid_of(alone, side), fluid_of(torch.cat([other, alone], 1), side, trajectories=2)
    for fluid in (one, two):
        fluid.settle(20)
        fluid.start(torch.zeros_like(fluid.positions) + torch.tensor([[0.3], [0.1]]))
        fluid.advance(1e-3, 30)
    assert torch.equal(one.positions, two.positions[:, 100:])
    assert torch.equal(one.velocity, two.velocity[:, 100:])


def test_fluid_between_sliding_walls_becomes_couette_flow() -> None:
    """Walls below y = 0.2 and above y = 0.8, the upper one with the velocity 1 along x: u = (y - 0.2) / 0.6."""
    side = 20
    rest = torch.from_numpy(np.ascontiguousarray(lattice(side, 2).T))
    here, slide = (rest[1] < 0.2) | (rest[1] > 0.8), torch.zeros_like(rest)
    slide[0] = (rest[1] > 0.8).double()
    fluid = fluid_of(rest, side)
    fluid.medium = Medium(1 / side, 10.0, torch.full((side**2,), 0.3, dtype=torch.float64), Walls(here, slide))
    fluid.pairs = Pairs(Crowd(range(1), side**2, 1.0, here.numpy()), 3 / side, 0.3 / side)
    fluid.start(torch.zeros_like(rest))
    fluid.advance(1.5e-3, 400)
    u, v = fluid.velocity[:, ~here]
    assert torch.equal(fluid.positions[:, here], rest[:, here])
    assert (u - (fluid.positions[1, ~here] - 0.2) / 0.6).abs().max() < 0.02
    assert v.abs().max() < 0.02


def test_a_trajectory_that_blows_up_is_named() -> None:
    positions = torch.cat([scattered(100), scattered(100, seed=1)], 1)
    fluid = fluid_of(positions, 10, trajectories=2)
    speeds = torch.zeros_like(positions)
    speeds[0, 150] = 11.0
    fluid.start(speeds)
    with pytest.raises(DataError, match=r"trajectory 1 reaches the speed 11, and its sound has 10") as error:
        fluid.check()
    assert error.value.key == "simulate"
    speeds[0, 150] = np.nan
    fluid.start(speeds)
    with pytest.raises(DataError, match="trajectory 1 does not stay finite"):
        fluid.advance(1e-3, 2)


def test_wrapped_positions_are_inside_of_the_box() -> None:
    places = np.array([-1e-20, -1e-9, 1 - 1e-12, 2.25, -0.25])
    inside = wrapped(places, 1.0)
    assert (inside >= 0).all()
    assert (inside < 1).all()
    np.testing.assert_allclose(inside[3:], [0.25, 0.75])
