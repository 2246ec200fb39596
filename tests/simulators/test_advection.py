"""Advection is exact: what is stored is the initial condition, moved."""

from __future__ import annotations

import numpy as np

from ups_plugins.simulators.config import Advection1DConfig


def test_moves_by_whole_cells() -> None:
    """With β Δt = 3 cells the frames are the first one, rolled, to the last bit of float32."""
    config = Advection1DConfig(trajectories=8, points=64, frames=5, duration=4 * 3 / 64 / 0.5, beta=0.5, device="cpu")
    values = config.build().solve(0, 8, lambda share: None)["tensor"]
    for frame in range(5):
        np.testing.assert_allclose(values[:, frame], np.roll(values[:, 0], 3 * frame, axis=1), rtol=0, atol=2e-6)


def test_the_speed_has_a_sign() -> None:
    config = Advection1DConfig(trajectories=4, points=64, frames=2, duration=1 / 64, beta=-1.0, device="cpu")
    values = config.build().solve(0, 4, lambda share: None)["tensor"]
    np.testing.assert_allclose(values[:, 1], np.roll(values[:, 0], -1, axis=1), rtol=0, atol=2e-6)


def test_eight_modes() -> None:
    """Two of the wave numbers 1 … 8 are drawn, and twice the same one doubles it: modes up to 16, and some above 4."""
    config = Advection1DConfig(trajectories=200, points=64, frames=2, device="cpu")
    values = config.build().solve(0, 200, lambda share: None)["tensor"][:, 0]
    spectrum = np.abs(np.fft.rfft(values))
    strongest = 1 + spectrum[:, 1:].argmax(1)
    assert strongest.max() > 8
    assert set(range(1, 9)) <= set(strongest)
