"""PDEBench's random initial conditions of its 1D advection and Burgers files (Takamoto et al., arXiv:2210.07182)."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

DRAWS = 2
ABSOLUTE, WINDOWED = 0.1, 0.1  # shares of the trajectories
WINDOW_EDGE = 0.01  # width of the window's edges


@frozen
class Waves:
    """One initial condition, u(x) = w(x) · sign · [|]Σ_j a_j sin(2π k_j x + φ_j)[|], before it is put on a grid.

    The sum has `modes` terms. The mode numbers 1 … modes are drawn twice, with replacement: k_j is j times the number
    of times that j was drawn, so a mode that was not drawn has k_j = 0 and adds the constant a_j sin φ_j.
    """

    wave_numbers: NDArray[np.float64]
    amplitudes: NDArray[np.float64]
    phases: NDArray[np.float64]
    absolute: bool
    sign: float
    window: tuple[float, float] | None

    @classmethod
    def drawn(cls, generator: np.random.Generator, modes: int = 4) -> Waves:
        """Draw one; the number of draws from the generator is always the same."""
        draws = generator.integers(0, modes, DRAWS)
        amplitudes, phases = generator.random(modes), 2 * np.pi * generator.random(modes)
        absolute, negative, windowed = generator.random(3)
        edges = generator.uniform(0.1, 0.45), generator.uniform(0.55, 0.9)
        return cls(
            wave_numbers=np.bincount(draws, minlength=modes) * np.arange(1.0, modes + 1),
            amplitudes=amplitudes,
            phases=phases,
            absolute=bool(absolute < ABSOLUTE),
            sign=-1.0 if negative < 0.5 else 1.0,
            window=edges if windowed < WINDOWED else None,
        )

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """u at positions (points,) in [0, 1)."""
        angles = 2 * np.pi * np.outer(positions, self.wave_numbers) + self.phases
        values = np.sin(angles) @ self.amplitudes
        values = self.sign * (np.abs(values) if self.absolute else values)
        if self.window is not None:
            low, high = self.window
            values = values * (np.tanh((positions - low) / WINDOW_EDGE) - np.tanh((positions - high) / WINDOW_EDGE)) / 2
        return values

    def averages(self, cells: int, samples: int = 4) -> NDArray[np.float64]:
        """Averages over equal cells of [0, 1), each from `samples` midpoints."""
        positions = (np.arange(cells * samples) + 0.5) / (cells * samples)
        averages: NDArray[np.float64] = self.at(positions).reshape(cells, samples).mean(1)
        return averages
