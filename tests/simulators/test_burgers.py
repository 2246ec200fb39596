"""The Burgers solver against the Cole-Hopf solution, and what the equation conserves or lets only fall."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ups_plugins.simulators import burgers
from ups_plugins.simulators.burgers import advance

MODES = ((1, 0.7, 0.4), (2, 0.4, 1.9))  # wave number, amplitude, phase
MEAN = 0.3


def initial_averages(cells: int) -> NDArray[np.float64]:
    """Exact cell averages of MEAN + Σ a sin(2π k x + φ)."""
    edges = np.arange(cells + 1) / cells
    integral = MEAN * edges - sum(a / (2 * np.pi * k) * np.cos(2 * np.pi * k * edges + p) for k, a, p in MODES)
    return np.diff(integral) * cells


def cole_hopf_averages(cells: int, viscosity: float, time: float) -> NDArray[np.float64]:
    """Exact cell averages of the solution: u = c + v(x - c t, t), v = -2ν (ln φ)_x with φ_t = ν φ_xx.

    φ(x, 0) = exp(-∫v dx / 2ν) is periodic as v has no mean; the heat equation is solved in Fourier space.
    """
    points = 1024
    x = np.arange(points) / points
    potential = -sum(a / (2 * np.pi * k) * np.cos(2 * np.pi * k * x + p) for k, a, p in MODES)
    numbers = np.fft.fftfreq(points, 1 / points)
    coefficients = np.fft.fft(np.exp(-potential / (2 * viscosity))) / points
    coefficients = coefficients * np.exp(-viscosity * (2 * np.pi * numbers) ** 2 * time)
    edges = np.arange(cells + 1) / cells - MEAN * time
    phi = (np.exp(2j * np.pi * np.outer(edges, numbers)) @ coefficients).real
    return MEAN - 2 * viscosity * np.diff(np.log(phi)) * cells


@pytest.mark.parametrize("viscosity", [0.1, 0.02])
def test_second_order_against_cole_hopf(viscosity: float) -> None:
    time, errors = 0.4, []
    for cells in (64, 128, 256):
        state = torch.from_numpy(initial_averages(cells))[None]
        solved = advance(state, torch.tensor([viscosity], dtype=torch.float64), time, cfl=0.8)[0].numpy()
        errors.append(np.abs(solved - cole_hopf_averages(cells, viscosity, time)).mean())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 2e-4
    assert (orders > 1.8).all(), (errors, orders)
    assert (orders < 2.8).all(), (errors, orders)


def random_states(rows: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    smooth = torch.randn(rows, cells, dtype=torch.float64, generator=generator)
    smooth = torch.fft.irfft(torch.fft.rfft(smooth) * (torch.arange(cells // 2 + 1) < 6), cells)
    state = 4 * smooth + torch.randn(rows, 1, dtype=torch.float64, generator=generator)
    return state, torch.logspace(-5, 1, rows, dtype=torch.float64)


def test_mass_is_conserved_through_shocks() -> None:
    state, viscosity = random_states(12, 128)
    after = advance(state, viscosity, 1.0)
    drift = (after.sum(1) - state.sum(1)).abs() / state.abs().sum(1)
    assert drift.max() < 1e-12


def test_no_new_extrema_and_no_more_variation() -> None:
    state, viscosity = random_states(12, 128)

    def variation(values: torch.Tensor) -> torch.Tensor:
        return (values.roll(1, 1) - values).abs().sum(1)

    for _ in range(4):
        after = advance(state, viscosity, 0.1, cfl=0.8)
        assert (after.amax(1) <= state.amax(1) + 1e-12).all()
        assert (after.amin(1) >= state.amin(1) - 1e-12).all()
        assert (variation(after) <= variation(state) + 1e-10).all()
        state = after


def test_a_moving_shock_has_the_right_speed() -> None:
    """u jumps from 1 to 0: by Rankine and Hugoniot the shock moves at 1/2, and meets no rarefaction yet."""
    cells = 400
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    state = ((x > 0.1) & (x < 0.4)).double()[None]
    after = advance(state, torch.tensor([1e-8], dtype=torch.float64), 0.4)[0]
    crossing = x[torch.nonzero(after > 0.5).max()]
    assert abs(float(crossing) - 0.6) < 2 / cells


def test_a_row_does_not_depend_on_its_company(monkeypatch: pytest.MonkeyPatch) -> None:
    state, viscosity = random_states(20, 64)
    whole = advance(state, viscosity, 0.3)
    alone = torch.cat([advance(state[row : row + 1], viscosity[row : row + 1], 0.3) for row in range(20)])
    monkeypatch.setattr(burgers, "CACHED_VALUES", 64 * 8)
    with ThreadPoolExecutor(3) as pool:
        threaded = advance(state, viscosity, 0.3, pool=pool)
    assert torch.equal(whole, alone)
    assert torch.equal(whole, threaded)


def test_a_constant_stays() -> None:
    state = torch.full((2, 32), 0.7, dtype=torch.float64)
    state[1] = 0
    torch.testing.assert_close(advance(state, torch.tensor([0.1, 0.1]).double(), 1.0), state, rtol=1e-13, atol=0)
