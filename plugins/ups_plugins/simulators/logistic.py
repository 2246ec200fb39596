"""Diffusion and logistic growth on a periodic interval (Fisher 1937; Kolmogorov, Petrovsky and Piskunov 1937).

    u_t = ν u_xx + ρ u (1 - u),  x in [0, 1) periodic

u is a density in units of what the interval can carry, ν the diffusivity, ρ the rate of growth. The equation is
PDEBench's (Takamoto et al., arXiv:2210.07182, §D), as are the initial conditions: its random waves of four modes,
brought to the range from 0 to 1.

Scheme: Strang splitting (Strang 1968) of two exact parts: the logistic curve u e^{ρt} / (1 + u (e^{ρt} - 1)) at every
point, and the heat semigroup in Fourier modes. Second order in time, spectral in space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import generator_of, log_uniform
from ups_kit.simulating.keys import Range

from .auditing import step_residual
from .config import DiffusionReaction1DConfig
from .initial import Waves
from .layouts import Part, TensorLayout, cell_centres
from .simulation import Simulation

CACHED_VALUES = 2**14  # that a thread works on


def diffusion_reaction1d(config: DiffusionReaction1DConfig) -> Simulation:
    """The simulator of these settings."""
    layout = TensorLayout(
        config.trajectories,
        (cell_centres(config.points),),
        config.frames,
        config.duration,
        ("nu", "rho"),
        {
            "equation": "u_t = nu u_xx + rho u (1 - u) on [0, 1], periodic",
            "solver": "Strang splitting; exact logistic growth, exact diffusion in Fourier modes",
            "values": "at cell centres",
            "units": "dimensionless",
            "periodic": [True],
            "seed": config.seed,
            "written_by": "ups_kit simulator diffusion_reaction1d",
        },
    )
    return Simulation(config, LogisticGrowth(config), layout)


@frozen
class LogisticGrowth:
    """u_t = ν u_xx + ρ u (1 - u)."""

    config: DiffusionReaction1DConfig

    @property
    def rows(self) -> int:
        return max(8, CACHED_VALUES // self.config.points)

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {"nu": self.config.nu, "rho": self.config.rho}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.02}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`tensor` (trajectories, frames, points), `nu` and `rho`."""
        config = self.config
        states, diffusivities, rates = [], [], []
        for number in numbers:
            generator = generator_of(config.seed, number)
            values = Waves.drawn(generator).at(cell_centres(config.points))
            states.append((values - values.min()) / (values.max() - values.min()))
            diffusivities.append(log_uniform(config.nu, generator))
            rates.append(log_uniform(config.rho, generator))
        nu, rho = (torch.tensor(drawn, dtype=torch.float64, device=device) for drawn in (diffusivities, rates))
        state = torch.from_numpy(np.stack(states)).to(device)
        stored = np.empty((len(numbers), config.frames, config.points), np.float32)
        for frame in range(config.frames):
            if frame:
                state = self.advance(state, nu, rho, config.duration / (config.frames - 1))
            stored[:, frame] = state.cpu().numpy()
        return {"tensor": stored, "nu": np.array(diffusivities), "rho": np.array(rates)}

    def advance(self, state: Tensor, nu: Tensor, rho: Tensor, duration: float) -> Tensor:
        """Solve (trajectories, points) for a time, ν and ρ (trajectories,)."""
        points = state.shape[1]
        steps = max(1, math.ceil(duration / self.config.step - 1e-9))
        step = duration / steps
        numbers = 2 * math.pi * torch.arange(points // 2 + 1, dtype=torch.float64, device=state.device)
        decay = torch.exp(-step * nu[:, None] * numbers**2)
        half, full = (torch.exp(part * rho[:, None]) for part in (step / 2, step))
        state = _grown(state, half)
        for number in range(steps):
            state = torch.fft.irfft(torch.fft.rfft(state) * decay, points)
            state = _grown(state, half if number == steps - 1 else full)
        return state

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """What the solver makes of each frame, against the next one. Nothing is conserved."""

        def onward(frame: Tensor, number: int) -> Tensor:
            return self.advance(frame, parameters["nu"], parameters["rho"], float(times[number + 1] - times[number]))

        return {"residual": step_residual(values[..., 0], onward)}


def _grown(state: Tensor, growth: Tensor) -> Tensor:
    return state * growth / (1 + state * (growth - 1))
