"""Diffusion and reaction of an activator and an inhibitor on a square (FitzHugh-Nagumo).

    u_t = D_u ∇²u + u - u³ - k - v
    v_t = D_v ∇²v + u - v           on [-1, 1]², no flow through the boundary

u is the activator, v the inhibitor, D_u and D_v their diffusivities, k the constant of the reaction; the equation, its
numbers, and initial values drawn from N(0, 1) at every point are PDEBench's (Takamoto et al., arXiv:2210.07182, §D).

Scheme: Strang splitting (Strang 1968). Diffusion is exact: the heat semigroup of the cosine series through the cell
centres, which lets nothing through the boundary, is one symmetric matrix for each axis. The reaction, a pair of
ordinary differential equations at every point, takes one step of the classical fourth-order Runge-Kutta method.
Second order in time, spectral in space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import generator_of, uniform
from ups_kit.simulating.keys import Range

from .auditing import step_residual
from .config import DiffusionReaction2DConfig
from .layouts import GroupLayout, Part, cell_centres
from .simulation import Simulation

LENGTH = 2.0
CACHED_VALUES = 2**14  # of one field, that a thread works on


def diffusion_reaction2d(config: DiffusionReaction2DConfig) -> Simulation:
    """The simulator of these settings."""
    layout = GroupLayout(
        config.trajectories,
        (cell_centres(config.points, -1.0, 1.0),) * 2,
        config.frames,
        config.duration,
        2,
        {
            "equation": "u_t = Du lap u + u - u^3 - k - v; v_t = Dv lap v + u - v on [-1, 1]^2, no flow",
            "solver": "Strang splitting; exact diffusion in cosines, Runge-Kutta 4 for the reaction",
            "written_by": "ups_kit simulator diffusion_reaction2d",
        },
        _settings(config),
    )
    return Simulation(config, FitzHughNagumo(config), layout)


def _settings(config: DiffusionReaction2DConfig) -> dict[str, float | str]:
    """What stands in `config`, by PDEBench's names where it has one."""
    return {
        "sim_name": "2d_reacdiff",
        "Du": config.activator_diffusion,
        "Dv": config.inhibitor_diffusion,
        "t": config.duration,
        "tdim": config.frames,
        "x_left": -1.0,
        "x_right": 1.0,
        "xdim": config.points,
        "y_bottom": -1.0,
        "y_top": 1.0,
        "ydim": config.points,
        "step": config.step,
        "seed_of_all": config.seed,
    }


@frozen
class FitzHughNagumo:
    """The activator and the inhibitor."""

    config: DiffusionReaction2DConfig

    @property
    def rows(self) -> int:
        return max(1, CACHED_VALUES // self.config.points**2)

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {"k": self.config.k}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 1e-3}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`data` (trajectories, frames, x, y, 2) and `k`."""
        config = self.config
        noise, constants = [], []
        for number in numbers:
            generator = generator_of(config.seed, number)
            constants.append(uniform(config.k, generator))
            noise.append(generator.standard_normal((2, config.points, config.points)))
        state = torch.from_numpy(np.stack(noise)).to(device)
        k = torch.tensor(constants, dtype=torch.float64, device=device)
        stored = np.empty((len(numbers), config.frames, config.points, config.points, 2), np.float32)
        interval = config.duration / (config.frames - 1)
        for frame in range(config.frames):
            if frame:
                state = self.advance(state, k, interval)
            stored[:, frame] = state.movedim(1, -1).cpu().numpy()
        return {"data": stored, "k": np.array(constants)}

    def advance(self, state: Tensor, k: Tensor, duration: float) -> Tensor:
        """Solve (trajectories, 2, x, y) for a time, with k of each trajectory."""
        config = self.config
        steps = max(1, math.ceil(duration / config.step - 1e-9))
        rates = (config.activator_diffusion, config.inhibitor_diffusion)
        step, shape = duration / steps, state.shape[2:]
        half, full = ([_semigroups(rate, part, shape, state.device) for rate in rates] for part in (step / 2, step))
        u, v = _diffuse(state[:, 0], half[0]), _diffuse(state[:, 1], half[1])
        for number in range(steps):
            u, v = react(u, v, k[:, None, None], step)
            kernels = half if number == steps - 1 else full
            u, v = _diffuse(u, kernels[0]), _diffuse(v, kernels[1])
        return torch.stack([u, v], 1)

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """What the solver makes of each frame, against the next one. Nothing is conserved."""
        state = values[..., :2].movedim(-1, 2)

        def onward(frame: Tensor, number: int) -> Tensor:
            return self.advance(frame.contiguous(), parameters["k"], float(times[number + 1] - times[number]))

        return {"residual": step_residual(state, onward)}


def react(u: Tensor, v: Tensor, k: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """One Runge-Kutta step of the reaction alone."""

    def rates(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sub(u, v).sub_(k).addcmul_(u * u, u, value=-1), u - v

    a, b = rates(u, v)
    total = a.clone(), b.clone()
    for share, weight in ((0.5, 2.0), (0.5, 2.0), (1.0, 1.0)):
        a, b = rates(torch.add(u, a, alpha=share * step), torch.add(v, b, alpha=share * step))
        total[0].add_(a, alpha=weight)
        total[1].add_(b, alpha=weight)
    return total[0].mul_(step / 6).add_(u), total[1].mul_(step / 6).add_(v)


def heat_kernel(points: int, length: float, spread: float) -> NDArray[np.float64]:
    """The matrix of the heat semigroup on [0, length] without flow through the ends, for values at cell centres.

    `spread` is diffusivity times time. It is exact for the series of cosines that goes through the values.
    """
    numbers = np.arange(points)
    cosines = np.cos(np.pi * np.outer(numbers, numbers + 0.5) / points) * np.sqrt(2 / points)
    cosines[0] /= np.sqrt(2)
    matrix: NDArray[np.float64] = cosines.T @ (np.exp(-spread * (np.pi * numbers / length) ** 2)[:, None] * cosines)
    return matrix


def _semigroups(rate: float, time: float, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(heat_kernel(points, LENGTH, rate * time)).to(device) for points in shape)
    return first, second


def _diffuse(field: Tensor, kernels: tuple[Tensor, Tensor]) -> Tensor:
    first, second = (kernel.expand(len(field), *kernel.shape) for kernel in kernels)
    return torch.bmm(torch.bmm(first, field), second)
