"""Shallow water over a flat ground, and a round dam that breaks.

    h_t + (hu)_x + (hv)_y = 0
    (hu)_t + (hu² + g h²/2)_x + (huv)_y = 0
    (hv)_t + (huv)_x + (hv² + g h²/2)_y = 0    on [-2.5, 2.5]²

h is the depth, (u, v) the velocity, g = 1. At first the water is at rest, `height` deep inside a circle about the
origin and 1 outside: PDEBench's radial dam break (Takamoto et al., arXiv:2210.07182, §D). Only h is stored.

Scheme: Strang splitting of the two axes; each is solved by MUSCL-Hancock (van Leer 1984; Toro, Shock-Capturing Methods
for Free-Surface Shallow Flows, 2001, §11) with van Leer's slopes and the flux of Harten, Lax and van Leer (1983).
Second order where the flow is smooth; water at rest stays at rest; between walls the volume is kept to rounding. The
dam is symmetric about both axes, so one quadrant is solved, with walls on the axes, and mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import generator_of, uniform
from ups_kit.simulating.keys import Range

from .auditing import drift, squares
from .config import ShallowWater2DConfig
from .layouts import GroupLayout, Part, cell_centres
from .simulation import Simulation

GRAVITY = 1.0
HALF_LENGTH = 2.5
CACHED_VALUES = 2**13  # of one field, that a thread works on
SAMPLES = 4  # along each axis of a cell, for the share of it that lies inside the dam
GHOSTS = 2
SHALLOWEST = 1e-12
Border = Literal["wall", "outflow"]
Borders = tuple[Border, Border]  # at the lower and at the upper end of an axis


def shallow_water2d(config: ShallowWater2DConfig) -> Simulation:
    """The simulator of these settings."""
    layout = GroupLayout(
        config.trajectories,
        (cell_centres(config.points, -HALF_LENGTH, HALF_LENGTH),) * 2,
        config.frames,
        config.duration,
        1,
        {
            "equation": "shallow water equations on [-2.5, 2.5]^2, g = 1, flat ground",
            "solver": "finite volumes: MUSCL-Hancock, van Leer slopes, HLL flux; Strang splitting of the axes",
            "values": "depth h, cell averages",
            "written_by": "ups_kit simulator shallow_water2d",
        },
        {
            "sim_name": "radial_dam_break",
            "T_end": config.duration,
            "n_time_samples": config.frames,
            "inner_height": config.height,
            "xdim": config.points,
            "ydim": config.points,
            "gravity": GRAVITY,
            "boundary": config.boundary,
            "refinement": config.refinement,
            "seed_of_all": config.seed,
        },
    )
    return Simulation(config, DamBreak(config), layout)


@frozen
class DamBreak:
    """A round dam that breaks."""

    config: ShallowWater2DConfig

    @property
    def rows(self) -> int:
        return max(1, CACHED_VALUES // (self.config.points * self.config.refinement // 2) ** 2)

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.1, "mass drift": 1e-4}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`data` (trajectories, frames, x, y, 1) and `radius`."""
        config = self.config
        radii = np.array([uniform(config.radius, generator_of(config.seed, number)) for number in numbers])
        cells = config.points * config.refinement // 2
        depth = torch.from_numpy(np.stack([self.dam(radius, cells) for radius in radii])).to(device)
        state = torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)])
        stored = np.empty((len(numbers), config.frames, config.points, config.points, 1), np.float32)
        for frame in range(config.frames):
            if frame:
                state = self._advance(state, config.duration / (config.frames - 1), ("wall", config.boundary))
            quadrant = _coarsened(state[0], config.refinement, config.points // 2).cpu().numpy()
            half = np.concatenate([quadrant[:, ::-1], quadrant], 1)
            stored[:, frame, ..., 0] = np.concatenate([half[:, :, ::-1], half], 2)
        return {"data": stored, "radius": radii}

    def dam(self, radius: float, cells: int) -> NDArray[np.float64]:
        """The depth at first in the quadrant of positive x and y, (cells, cells) averages.

        A small square that the circle cuts counts by how far it lies inside, so that any two radii differ.
        """
        places = HALF_LENGTH * cell_centres(cells * SAMPLES)
        beyond = np.hypot(places[:, None], places) - radius
        inside = np.clip(0.5 - beyond * cells * SAMPLES / HALF_LENGTH, 0, 1).reshape(cells, SAMPLES, cells, SAMPLES)
        depth: NDArray[np.float64] = 1.0 + (self.config.height - 1.0) * inside.mean((1, 3))
        return depth

    def _advance(self, state: Tensor, duration: float, borders: Borders) -> Tensor:
        """One interval between frames. No wave of a dam break is faster than 2 √(g · largest depth)."""
        size = HALF_LENGTH / (self.config.points * self.config.refinement // 2)
        fastest = 2 * math.sqrt(GRAVITY * max(self.config.height, 1.0))
        steps = max(1, math.ceil(duration * fastest / (self.config.cfl * size) - 1e-9))
        return advance(state, duration, steps, size, (borders, borders))

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """What the solver makes of the first frame's water at rest, relative to what changes; the drift of the volume.

        Only the depth is stored, so a later frame cannot be solved on from; with a first frame that is not at time 0
        there is no residual.
        """
        depth = values[..., 0]
        found = {"mass drift": drift(depth.mean((2, 3)), depth[:, 0].mean((1, 2)))}
        if times[0] != 0:
            return found
        refinement = self.config.refinement
        fine = depth[:, 0].repeat_interleave(refinement, 1).repeat_interleave(refinement, 2)
        state = torch.stack([fine, torch.zeros_like(fine), torch.zeros_like(fine)])
        left, change = squares(0 * depth[:, 0]), squares(0 * depth[:, 0])
        border: Border = self.config.boundary
        for number in range(1, len(times)):
            state = self._advance(state, float(times[number] - times[number - 1]), (border, border))
            left += squares(_coarsened(state[0], refinement, depth.shape[2]) - depth[:, number])
            change += squares(depth[:, number] - depth[:, 0])
        return {"residual": torch.sqrt(left / change.clamp_min(1e-300)), **found}


def _coarsened(fine: Tensor, refinement: int, points: int) -> Tensor:
    return fine.reshape(-1, points, refinement, points, refinement).mean((2, 4))


def advance(state: Tensor, duration: float, steps: int, size: float, borders: tuple[Borders, Borders]) -> Tensor:
    """Solve for a time in equal steps.

    `state` is (3, trajectories, x, y): cell averages of h, hu, hv in square cells of this size. `borders` are those of
    the x axis and of the y axis.
    """
    step = duration / steps
    state = _sweep_x(state, step / 2 / size, borders[0])
    for number in range(steps):
        state = sweep(state, step / size, borders[1])
        state = _sweep_x(state, (step / 2 if number == steps - 1 else step) / size, borders[0])
    return state


def _sweep_x(state: Tensor, ratio: float, borders: Borders) -> Tensor:
    turned = state[[0, 2, 1]].transpose(2, 3).contiguous()
    return sweep(turned, ratio, borders)[[0, 2, 1]].transpose(2, 3).contiguous()


def sweep(state: Tensor, ratio: float, borders: Borders) -> Tensor:
    """One MUSCL-Hancock step along the last axis, whose momentum is the third field; `ratio` is Δt / cell size."""
    padded = _bordered(state, borders)
    jump = padded[..., 1:] - padded[..., :-1]
    behind, ahead = jump[..., :-1], jump[..., 1:]
    # Half of van Leer's slope: ab / (a + b) where both jumps have one sign, else 0. The tiny number keeps 0 / 0 away.
    product = (behind * ahead).clamp_min_(0)
    slope = product / (behind + ahead + 1e-300)
    low, high = padded[..., 1:-1] - slope, padded[..., 1:-1] + slope
    change = (_flux(high)[0] - _flux(low)[0]).mul_(0.5 * ratio)
    low -= change
    high -= change
    front = _front_flux(high[..., :-1], low[..., 1:])
    return state - ratio * (front[..., 1:] - front[..., :-1])


def _bordered(state: Tensor, borders: Borders) -> Tensor:
    """The state with two ghost cells at both ends: a wall mirrors it, an open end goes on as it is."""
    pieces = [state]
    for end, border in enumerate(borders):
        if border == "wall":
            ghosts = (state[..., -GHOSTS:] if end else state[..., :GHOSTS]).flip(-1)
            ghosts[2] *= -1
        else:
            edge = state[..., -1:] if end else state[..., :1]
            ghosts = edge.expand(*edge.shape[:-1], GHOSTS)
        pieces = [*pieces, ghosts] if end else [ghosts, *pieces]
    return torch.cat(pieces, -1)


def _flux(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The flux along the last axis, the velocity along it, and the speed of waves."""
    depth = state[0].clamp_min(SHALLOWEST)
    velocity = state[2] / depth
    flux = state * velocity
    flux[2] += (0.5 * GRAVITY) * depth * depth
    return flux, velocity, torch.sqrt(GRAVITY * depth)


def _front_flux(left: Tensor, right: Tensor) -> Tensor:
    """The flux of Harten, Lax and van Leer between two states."""
    flux_left, speed_left, wave_left = _flux(left)
    flux_right, speed_right, wave_right = _flux(right)
    slowest = torch.minimum(speed_left - wave_left, speed_right - wave_right).clamp_max_(0)
    fastest = torch.maximum(speed_left + wave_left, speed_right + wave_right).clamp_min_(0)
    mixed = fastest * flux_left - slowest * flux_right + (slowest * fastest) * (right - left)
    return mixed / (fastest - slowest)
