"""Korteweg-de Vries and Kuramoto-Sivashinsky: a soliton's travel, what is conserved, and the order in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attrs import evolve

from ups_plugins.simulators.config import KdV1DConfig, KS1DConfig
from ups_plugins.simulators.dispersive import SteepeningWaves
from ups_plugins.simulators.etdrk import ETDRK4

KDV = KdV1DConfig(device="cpu")
KS = KS1DConfig(device="cpu")


def waves(config: KdV1DConfig | KS1DConfig) -> SteepeningWaves:
    built: SteepeningWaves = config.build().equation  # type: ignore[attr-defined]
    return built


def soliton(points: int, height: float, delta: float, moved: float, length: float = 64.0) -> torch.Tensor:
    """u = A sech²(√(A / 12 δ) (x - A t / 3)), with enough images for a period."""
    x = (torch.arange(points, dtype=torch.float64) + 0.5) * length / points - length / 2
    away = [x - moved + image * length for image in (-2, -1, 0, 1, 2)]
    return torch.stack([height / torch.cosh((height / 12 / delta) ** 0.5 * way) ** 2 for way in away]).sum(0)[None]


@pytest.mark.parametrize(("height", "delta"), [(1.0, 1.0), (2.0, 2.0)])
def test_a_soliton_keeps_its_shape_and_travels(height: float, delta: float) -> None:
    """Once around and more, A t / 3 = 80: to six digits."""
    time = 240.0 / height
    found = waves(evolve(KDV, step=0.05)).advance(soliton(128, height, delta, 0), torch.tensor([delta]).double(), time)
    exact = soliton(128, height, delta, height * time / 3)
    assert float((found - exact).abs().max()) < 1e-5 * height


def drawn(config: KdV1DConfig | KS1DConfig, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    solved = evolve(config, frames=2, duration=0.01).build().solve(0, count, lambda share: None)
    name = "delta" if isinstance(config, KdV1DConfig) else "nu"
    return torch.from_numpy(solved["tensor"][:, 0]).double(), torch.from_numpy(solved[name])


@pytest.mark.parametrize(("config", "coarsest"), [(KDV, 0.2), (evolve(KS, warmup=20.0), 0.0125)], ids=["kdv1d", "ks1d"])
def test_fourth_order_in_time(config: KdV1DConfig | KS1DConfig, coarsest: float) -> None:
    """With stiff modes, as ks1d has them, the order comes down to 3 at larger steps, and is 4 at smaller ones."""
    state, parameter = drawn(config)
    steps = [coarsest / part for part in (1, 2, 4, 16)]
    solutions = [waves(evolve(config, step=step)).advance(state, parameter, 20 * coarsest) for step in steps]
    errors = [float((solution - solutions[-1]).abs().max()) for solution in solutions[:-1]]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 1e-5 * float(state.abs().max()), errors
    assert (orders > 3.6).all(), (errors, orders)


def test_the_default_step_is_small_enough() -> None:
    """An eighth of it changes a chaotic flame by less than 1e-5 of its height in the time between two frames."""
    state, nu = drawn(evolve(KS, warmup=20.0))
    one, other = (waves(evolve(KS, step=step)).advance(state, nu, 0.5) for step in (KS.step, KS.step / 8))
    assert float((one - other).abs().max()) < 1e-5 * float(state.abs().max())


def test_what_is_conserved() -> None:
    state, parameter = drawn(KDV)
    after = waves(KDV).advance(state, parameter, 40.0)
    assert float((after.mean(1) - state.mean(1)).abs().max()) < 1e-13
    assert float((after.square().mean(1) / state.square().mean(1) - 1).abs().max()) < 1e-6
    chaotic, nu = drawn(evolve(KS, warmup=20.0))
    onward = waves(KS).advance(chaotic, nu, 20.0)
    assert float((onward.mean(1) - chaotic.mean(1)).abs().max()) < 1e-12


def test_energy_of_the_chaotic_flame() -> None:
    """½ d/dt <u²> = <u_x²> - ν <u_xx²>: the balance over a short time, and a mean square near 1.7 on the attractor."""
    state, nu = drawn(evolve(KS, warmup=100.0), count=16)
    number = 2 * np.pi / KS.length * torch.arange(65, dtype=torch.float64)

    def power(u: torch.Tensor) -> torch.Tensor:
        first, second = (torch.fft.irfft((1j * number) ** order * torch.fft.rfft(u), 128) for order in (1, 2))
        return first.square().mean(1) - nu * second.square().mean(1)

    step, solver = 0.01, waves(evolve(KS, step=0.005))
    before = solver.advance(state, nu, step)
    after = solver.advance(before, nu, step)
    gained = (after.square().mean(1) - solver.advance(state, nu, 1e-9).square().mean(1)) / 2 / (2 * step)
    torch.testing.assert_close(gained, power(before), rtol=1e-3, atol=1e-3)
    assert 1.2 < float(state.square().mean()) < 2.2


def test_the_mode_that_grows_fastest() -> None:
    """Small waves grow with k² - ν k⁴."""
    k = 2 * np.pi * 7 / KS.length
    x = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    state = (1e-8 * torch.sin(2 * np.pi * 7 * x))[None]
    grown = waves(KS).advance(state, torch.tensor([1.2]).double(), 5.0)
    torch.testing.assert_close(grown, state * np.exp(5 * (k**2 - 1.2 * k**4)), rtol=1e-6, atol=1e-16)


@pytest.mark.parametrize("rate", [0.0, -1e-9, -0.3, -4.0, -300.0, 2.0j, 500.0j])
def test_coefficients_without_cancellation(rate: complex) -> None:
    """u' = L u + 1 from 0: the constant part is integrated exactly, whatever the size of L h."""
    scheme = ETDRK4.of(torch.tensor([rate], dtype=torch.complex128), 1.0)
    found = scheme.step(torch.zeros(1, dtype=torch.complex128), torch.ones_like)
    exact = np.expm1(rate) / rate if abs(rate) > 1e-6 else 1 + rate / 2
    assert abs(complex(found[0]) - exact) < 1e-13


def test_initial_waves() -> None:
    config = evolve(KDV, modes=3, amplitude=2.5, frames=2, duration=0.1)
    first = config.build().solve(0, 20, lambda share: None)["tensor"][:, 0]
    np.testing.assert_allclose(np.abs(first).max(1), 2.5, rtol=1e-6)
    np.testing.assert_allclose(first.mean(1), 0, atol=1e-6)
    assert np.abs(np.fft.rfft(first)[:, 4:]).max() < 1e-4 < np.abs(np.fft.rfft(first)[:, 3]).max()
