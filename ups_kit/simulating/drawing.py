"""What is drawn for a trajectory: a pure function of the seed and the trajectory's number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .keys import Range


def generator_of(seed: int, trajectory: int) -> np.random.Generator:
    """The generator of one trajectory."""
    return np.random.default_rng([seed, trajectory])


def uniform(bounds: Range, generator: np.random.Generator) -> float:
    """The number, or one between the two; one draw from the generator in any case."""
    share = generator.random()
    return bounds[0] + (bounds[1] - bounds[0]) * share if isinstance(bounds, tuple) else float(bounds)


def log_uniform(bounds: Range, generator: np.random.Generator) -> float:
    """The number, or one between the two, uniform in its logarithm; one draw from the generator in any case."""
    share = generator.random()
    return bounds[0] * (bounds[1] / bounds[0]) ** share if isinstance(bounds, tuple) else float(bounds)


def fourier_series(generator: np.random.Generator, modes: int, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """A random sum of the first sine modes without mean, its largest |u| at the positions being 1.

    `positions` (points,) are in [0, 1). As APEBench's `fourier;modes;true;true` (Koehler et al., arXiv:2411.00180):
    amplitudes uniform in [-1, 1], phases in [0, 2π).
    """
    amplitudes, phases = generator.uniform(-1, 1, modes), generator.uniform(0, 2 * np.pi, modes)
    waves = np.sin(2 * np.pi * np.outer(positions, np.arange(1, modes + 1)) + phases) @ amplitudes
    values: NDArray[np.float64] = waves / np.abs(waves).max()
    return values
