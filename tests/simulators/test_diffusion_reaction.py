"""Diffusion and reaction, in one and two dimensions: each part alone against its exact solution, together the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from ups_plugins.simulators.config import DiffusionReaction1DConfig, DiffusionReaction2DConfig
from ups_plugins.simulators.diffusion_reaction import FitzHughNagumo, heat_kernel
from ups_plugins.simulators.logistic import LogisticGrowth

ONE = DiffusionReaction1DConfig(points=64, device="cpu")
TWO = DiffusionReaction2DConfig(points=32, device="cpu")


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def wave(points: int) -> torch.Tensor:
    x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return (0.5 + 0.3 * torch.sin(2 * np.pi * x) + 0.1 * torch.cos(6 * np.pi * x))[None]


# ---------------------------------------------------------------------------------------------------------------------
# One dimension
# ---------------------------------------------------------------------------------------------------------------------
def test_growth_alone_is_the_logistic_curve() -> None:
    start = wave(64)
    found = LogisticGrowth(evolve(ONE, step=0.3)).advance(start, tensor(0.0), tensor(3.0), 0.7)
    exact = 1 / (1 + (1 / start - 1) * np.exp(-3.0 * 0.7))
    torch.testing.assert_close(found, exact, rtol=1e-13, atol=0)


def test_diffusion_alone_is_the_heat_kernel() -> None:
    x = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    found = LogisticGrowth(evolve(ONE, step=0.3)).advance(wave(64), tensor(0.01), tensor(1e-300), 0.7)
    decay = [np.exp(-0.01 * (2 * np.pi * k) ** 2 * 0.7) for k in (1, 3)]
    exact = 0.5 + 0.3 * decay[0] * torch.sin(2 * np.pi * x) + 0.1 * decay[1] * torch.cos(6 * np.pi * x)
    torch.testing.assert_close(found[0], exact, rtol=0, atol=1e-14)


def test_together_of_second_order_and_right() -> None:
    """Against scipy's integrator on the same Fourier modes, to nine digits."""
    points, nu, rho, time = 64, 0.02, 4.0, 0.5
    rate = -nu * (2 * np.pi * np.arange(points // 2 + 1)) ** 2

    def slope(_: float, u: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.fft.irfft(rate * np.fft.rfft(u), points) + rho * u * (1 - u)

    exact = solve_ivp(slope, (0, time), wave(points)[0].numpy(), method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
    errors = []
    for steps in (10, 20, 40):
        solver = LogisticGrowth(evolve(ONE, step=time / steps))
        errors.append(np.abs(solver.advance(wave(points), tensor(nu), tensor(rho), time)[0].numpy() - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 1e-4
    assert (np.abs(orders - 2) < 0.1).all(), errors


def test_initial_values_are_from_0_to_1() -> None:
    values = ONE.build().solve(0, 50, lambda share: None)["tensor"]
    np.testing.assert_allclose(values[:, 0].min(1), 0, atol=1e-7)
    np.testing.assert_allclose(values[:, 0].max(1), 1, atol=1e-7)
    assert values.min() > -0.02
    assert values.max() < 1.02


# ---------------------------------------------------------------------------------------------------------------------
# Two dimensions
# ---------------------------------------------------------------------------------------------------------------------
def test_no_flow_cosines_decay_exactly() -> None:
    """D_u and D_v act on their own fields; in [-1, 1] the cosine with number n decays with D (πn / 2)²."""
    points, time = 32, 1.3
    kernel = heat_kernel(points, 2.0, 0.01 * time)
    x = -1 + (np.arange(points) + 0.5) * 2 / points
    for number in (0, 1, 4):
        mode = np.cos(np.pi * number * (x + 1) / 2)
        np.testing.assert_allclose(kernel @ mode, mode * np.exp(-0.01 * (np.pi * number / 2) ** 2 * time), atol=1e-13)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-15)
    np.testing.assert_allclose(kernel.sum(0), 1, atol=1e-13)  # nothing flows out


def smooth(points: int) -> torch.Tensor:
    x = -1 + (torch.arange(points, dtype=torch.float64) + 0.5) * 2 / points
    a, b = (torch.cos(np.pi * n * (x + 1) / 2) for n in (1, 2))
    return torch.stack([torch.outer(a, b), 0.5 * torch.outer(b, a) - 0.2])[None]


def test_reaction_alone_against_an_integrator() -> None:
    config = evolve(TWO, activator_diffusion=0.0, inhibitor_diffusion=0.0, step=0.01)
    found = FitzHughNagumo(config).advance(smooth(8), tensor(0.05), 0.5)[0]

    def slope(_: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
        u, v = values.reshape(2, -1)
        return np.concatenate([u - u**3 - 0.05 - v, u - v])

    exact = solve_ivp(slope, (0, 0.5), smooth(8)[0].numpy().reshape(-1), rtol=1e-11, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(found.numpy().reshape(-1), exact, atol=1e-9)


def test_two_dimensions_of_second_order_and_right() -> None:
    """Against scipy's integrator of the cosines' equations: diffusion, reaction and k together."""
    points, time, k = 8, 1.0, 0.05
    config = evolve(TWO, activator_diffusion=0.05, inhibitor_diffusion=0.1)
    generators = [(heat_kernel(points, 2.0, 1e-6 * rate) - np.eye(points)) / 1e-6 for rate in (0.05, 0.1)]

    def slope(_: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
        u, v = values.reshape(2, points, points)
        flows = [g @ field + field @ g for g, field in zip(generators, (u, v), strict=True)]
        return np.stack([flows[0] + u - u**3 - k - v, flows[1] + u - v]).reshape(-1)

    start = smooth(points)
    exact = solve_ivp(slope, (0, time), start[0].numpy().reshape(-1), rtol=1e-10, atol=1e-12).y[:, -1]
    errors = []
    for steps in (5, 10, 20):
        solver = FitzHughNagumo(evolve(config, step=time / steps))
        errors.append(np.abs(solver.advance(start, tensor(k), time)[0].numpy().reshape(-1) - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 1e-3
    assert (np.abs(orders - 2) < 0.15).all(), errors


def test_the_time_step_of_the_default_is_small_enough() -> None:
    """From noise, as it is drawn: a four times smaller step changes what is stored by less than 1 percent."""
    config = evolve(TWO, trajectories=2, frames=6)
    found = [evolve(config, step=step).build().solve(0, 2, lambda share: None)["data"] for step in (0.02, 0.005)]
    change = np.sqrt(((found[0] - found[1]) ** 2).mean((0, 2, 3, 4)) / (found[1] ** 2).mean((0, 2, 3, 4)))
    assert change[1:].max() < 0.01, change


def test_noise_at_first() -> None:
    first = evolve(TWO, frames=2, duration=0.01).build().solve(0, 8, lambda share: None)["data"][:, 0]
    assert abs(first.mean()) < 0.03
    assert first.std() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(first[..., 0].reshape(-1), first[..., 1].reshape(-1))[0, 1]) < 0.03
