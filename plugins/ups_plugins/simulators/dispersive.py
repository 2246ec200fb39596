"""Waves on a periodic interval that steepen by their own speed: Korteweg-de Vries, and Kuramoto-Sivashinsky.

    kdv1d:  u_t + u u_x + δ u_xxx = 0                  δ the dispersion (Korteweg and de Vries 1895)
    ks1d:   u_t + u u_x + u_xx + ν u_xxxx = 0          ν the hyperviscosity (Kuramoto 1976, Sivashinsky 1977)

with x in [0, L). The initial condition is a random sum of the first few sine modes, as APEBench draws it (Koehler et
al., arXiv:2411.00180). Scheme: Fourier modes; the quadratic term without aliasing by the 2/3 rule; in time exponential
differencing of fourth order (`etdrk.py`). Both keep the mean of u, and kdv1d also that of u².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import fourier_series, generator_of, log_uniform
from ups_kit.simulating.keys import Range

from .auditing import drift, size, step_residual
from .config import KdV1DConfig, KS1DConfig
from .etdrk import ETDRK4
from .layouts import Part, TensorLayout, cell_centres
from .simulation import Simulation

CACHED_VALUES = 2**13  # that a thread works on

Rates = Callable[[Tensor, Tensor], Tensor]  # wave numbers (modes,) and parameter (trajectories, 1) -> linear rates


def kdv1d(config: KdV1DConfig) -> Simulation:
    """The simulator of these settings for the Korteweg-de Vries equation."""
    equation = "u_t + u u_x + delta u_xxx = 0"
    return _simulation(
        config, SteepeningWaves(config, "delta", config.delta, lambda k, d: 1j * d * k**3, True), equation
    )


def ks1d(config: KS1DConfig) -> Simulation:
    """The simulator of these settings for the Kuramoto-Sivashinsky equation."""
    equation = "u_t + u u_x + u_xx + nu u_xxxx = 0"
    return _simulation(
        config, SteepeningWaves(config, "nu", config.nu, lambda k, nu: k**2 - nu * k**4, False), equation
    )


def _simulation(config: KdV1DConfig | KS1DConfig, waves: SteepeningWaves, equation: str) -> Simulation:
    layout = TensorLayout(
        config.trajectories,
        (cell_centres(config.points, 0.0, config.length),),
        config.frames,
        config.duration,
        (waves.name,),
        {
            "equation": f"{equation} on [0, {config.length:g}], periodic",
            "solver": "Fourier, 2/3 rule, ETDRK4",
            "values": "at cell centres",
            "units": "dimensionless",
            "periodic": [True],
            "seed": config.seed,
            "written_by": f"ups_kit simulator {'kdv1d' if waves.keeps_squares else 'ks1d'}",
        },
    )
    return Simulation(config, waves, layout)


@frozen
class SteepeningWaves:
    """u_t + u u_x = what `rates` multiplies each Fourier mode with."""

    config: KdV1DConfig | KS1DConfig
    name: str  # of the parameter
    value: Range
    rates: Rates = field(eq=False)
    keeps_squares: bool

    @property
    def rows(self) -> int:
        return max(8, CACHED_VALUES // self.config.points)

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {self.name: self.value}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.02, "mass drift": 1e-4, **({"energy drift": 1e-2} if self.keeps_squares else {})}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`tensor` (trajectories, frames, points) and the parameter."""
        config = self.config
        states, drawn = [], []
        for number in numbers:
            generator = generator_of(config.seed, number)
            drawn.append(log_uniform(self.value, generator))
            states.append(config.amplitude * fourier_series(generator, config.modes, cell_centres(config.points)))
        parameter = torch.tensor(drawn, dtype=torch.float64, device=device)
        state = torch.from_numpy(np.stack(states)).to(device)
        if isinstance(config, KS1DConfig) and config.warmup:
            state = self.advance(state, parameter, config.warmup)
        interval = config.duration / (config.frames - 1)
        stored = np.empty((len(numbers), config.frames, config.points), np.float32)
        scheme = self._scheme(parameter, interval, config.points)
        for frame in range(config.frames):
            if frame:
                state = self._march(state, *scheme)
            stored[:, frame] = state.cpu().numpy()
        return {"tensor": stored, self.name: np.array(drawn)}

    def advance(self, state: Tensor, parameter: Tensor, duration: float) -> Tensor:
        """Solve (trajectories, points) for a time."""
        return self._march(state, *self._scheme(parameter, duration, state.shape[1]))

    def _scheme(self, parameter: Tensor, duration: float, points: int) -> tuple[ETDRK4, int]:
        steps = max(1, math.ceil(duration / self.config.step - 1e-9))
        return ETDRK4.of(
            self.rates(self._wave_numbers(points, parameter.device), parameter[:, None]), duration / steps
        ), steps

    def _wave_numbers(self, points: int, device: torch.device) -> Tensor:
        numbers: Tensor = torch.arange(points // 2 + 1, dtype=torch.float64, device=device)
        return 2 * math.pi / self.config.length * numbers

    def _march(self, state: Tensor, scheme: ETDRK4, steps: int) -> Tensor:
        points = state.shape[1]
        kept = 3 * torch.arange(points // 2 + 1, device=state.device) < points
        factor = -0.5j * self._wave_numbers(points, state.device) * kept

        def steepen(modes: Tensor) -> Tensor:
            product: Tensor = torch.fft.rfft(torch.fft.irfft(modes, points).square_()).mul_(factor)
            return product

        modes = torch.fft.rfft(state) * kept
        for _ in range(steps):
            modes = scheme.step(modes, steepen)
        solved: Tensor = torch.fft.irfft(modes, points)
        return solved

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """What the solver makes of each frame, against the next one; drifts of the means of u and, for kdv1d, of u²."""
        state = values[..., 0]

        def onward(frame: Tensor, number: int) -> Tensor:
            return self.advance(frame, parameters[self.name], float(times[number + 1] - times[number]))

        found: dict[str, Any] = {
            "residual": step_residual(state, onward),
            "mass drift": drift(state.mean(2), size(state)),
        }
        if self.keeps_squares:
            squared = state.square().mean(2)
            found["energy drift"] = drift(squared, squared[:, 0])
        return found
