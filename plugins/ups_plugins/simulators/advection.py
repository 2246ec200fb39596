"""Advection on a periodic interval, exactly.

    u_t + β u_x = 0,  u(x, t) = u₀(x - β t),  x in [0, 1) periodic

u is the transported field, β the speed. u₀ are PDEBench's random waves with eight modes (Takamoto et al.,
arXiv:2210.07182); they are evaluated where the characteristics come from, so there is no scheme and no error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import generator_of, uniform
from ups_kit.simulating.keys import Range

from .auditing import drift, size, step_residual
from .config import Advection1DConfig
from .initial import Waves
from .layouts import Part, TensorLayout, cell_centres, times_of
from .simulation import Simulation

MODES = 8


def advection1d(config: Advection1DConfig) -> Simulation:
    """The simulator of these settings."""
    layout = TensorLayout(
        config.trajectories,
        (cell_centres(config.points),),
        config.frames,
        config.duration,
        ("beta",),
        {
            "equation": "u_t + beta u_x = 0 on [0, 1], periodic",
            "solver": "exact: the initial condition at x - beta t",
            "values": "at cell centres",
            "units": "dimensionless",
            "periodic": [True],
            "seed": config.seed,
            "written_by": "ups_kit simulator advection1d",
        },
    )
    return Simulation(config, Advection(config), layout)


@frozen
class Advection:
    """u_t + β u_x = 0."""

    config: Advection1DConfig
    rows: int = 64

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {"beta": self.config.beta}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.1, "mass drift": 0.02}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`tensor` (trajectories, frames, points) and `beta`. Always on the CPU: there is next to nothing to do."""
        config = self.config
        centres, times = cell_centres(config.points), times_of(config.frames, config.duration)
        values = np.empty((len(numbers), config.frames, config.points), np.float32)
        speeds = np.empty(len(numbers))
        for row, number in enumerate(numbers):
            generator = generator_of(config.seed, number)
            waves = Waves.drawn(generator, MODES)
            speeds[row] = uniform(config.beta, generator)
            origins = (centres - speeds[row] * times[:, None]) % 1.0
            values[row] = waves.at(origins.reshape(-1)).reshape(origins.shape)
        return {"tensor": values, "beta": speeds}

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """Each frame, shifted in Fourier space, against the next one; and the drift of the mean."""
        state = values[..., 0]
        points = state.shape[2]
        numbers = 2j * np.pi * torch.arange(points // 2 + 1, dtype=torch.float64, device=state.device)

        def onward(frame: Tensor, number: int) -> Tensor:
            way = parameters["beta"] * float(times[number + 1] - times[number])
            shifted: Tensor = torch.fft.irfft(torch.fft.rfft(frame) * torch.exp(-way[:, None] * numbers), points)
            return shifted

        return {"residual": step_residual(state, onward), "mass drift": drift(state.mean(2), size(state))}
