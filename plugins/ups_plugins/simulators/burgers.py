"""A solver of the viscous Burgers equation on a periodic interval, many trajectories at once.

    u_t + (u²/2)_x = ν u_xx,  x in [0, L) periodic

Cells of width h hold averages. Strang splitting alternates advection and diffusion:

* Advection: MUSCL-Hancock (van Leer 1984), limited linear reconstruction with van Leer's harmonic slope, predicted half
  a step ahead, and Godunov's exact flux F(l, r) = ½ max(l, -r, 0)². Second order, total variation does not grow.
* Diffusion: the exact semigroup of the three-point Laplacian, applied in Fourier space. Its kernel is positive, so it
  makes no new extrema at shocks, and no viscosity however large limits the time step.

Both conserve the sum of the cells to rounding. Every trajectory has a time step of its own, from its own largest |u|,
which never grows: a trajectory does not depend on what it is solved together with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor

import torch
from torch import Tensor

ADVECTIONS = 2  # advection steps for each diffusion step
CACHED_VALUES = 2**15  # values of a field that one thread works on: with its work arrays they fit a core's cache
GHOSTS = 2


def advance(
    state: Tensor,
    viscosity: Tensor,
    duration: float,
    length: float = 1.0,
    cfl: float = 0.5,
    pool: Executor | None = None,
) -> Tensor:
    """Solve for a time.

    `state` is (trajectories, cells) of cell averages, `viscosity` (trajectories,), both float64. Returns the cell
    averages after `duration`. On a CPU the trajectories are worked on in chunks of a size that fits the cache, by
    the threads of `pool` where one is given.
    """
    cells = state.shape[1]
    speed = state.abs().amax(1)
    steps = torch.ceil(duration * speed * cells / (ADVECTIONS * cfl * length)).clamp_min(1).long()
    order = torch.argsort(steps, descending=True, stable=True)
    rows = max(CACHED_VALUES // cells, 8) if state.device.type == "cpu" else len(state)
    result = torch.empty_like(state)

    def solve(chunk: Tensor) -> None:
        result[chunk] = _march(state[chunk], viscosity[chunk], steps[chunk], duration, length)

    chunks = torch.split(order, rows)
    for _ in map(solve, chunks) if pool is None else pool.map(solve, chunks):
        pass
    return result


def _march(state: Tensor, viscosity: Tensor, steps: Tensor, duration: float, length: float) -> Tensor:
    """Solve trajectories that are sorted by falling number of steps; those that are done are left behind."""
    cells = state.shape[1]
    step = duration / steps.double()
    ratio = (step / ADVECTIONS * (cells / length))[:, None]
    half = _heat_factors(viscosity, step / 2, cells, length)
    full = half * half
    padded = state.new_empty(len(state), cells + 2 * GHOSTS)
    values = padded[:, GHOSTS:-GHOSTS]
    values.copy_(torch.fft.irfft(torch.fft.rfft(state) * half, cells))
    work = tuple(state.new_empty(len(state), cells + extra) for extra in (3, 2, 2, 2, 1, 0))
    for rows, remaining, repeats in _segments(steps.tolist()):
        last = full[:rows].clone()
        last[remaining:] = half[remaining:rows]
        views = tuple(array[:rows] for array in work)
        for repeat in range(repeats):
            for _ in range(ADVECTIONS):
                _advect(padded[:rows], ratio[:rows], views)
            factors = last if repeat == repeats - 1 else full[:rows]
            values[:rows] = torch.fft.irfft(torch.fft.rfft(values[:rows]).mul_(factors), cells)
    return values


def _segments(steps: list[int]) -> Iterator[tuple[int, int, int]]:
    """(rows that are stepped, rows that go on after that, how many steps) for falling numbers of steps."""
    done, rows = 0, len(steps)
    while rows:
        goal = steps[rows - 1]
        remaining = next((row for row in range(rows) if steps[row] <= goal), rows)
        yield rows, remaining, goal - done
        done, rows = goal, remaining


def _heat_factors(viscosity: Tensor, time: Tensor, cells: int, length: float) -> Tensor:
    """What the lattice's heat semigroup multiplies each Fourier mode with, (trajectories, modes), complex."""
    angle = 2 * math.pi * torch.arange(cells // 2 + 1, dtype=torch.float64, device=viscosity.device) / cells
    rate = viscosity * time * (cells / length) ** 2
    return torch.exp(-rate[:, None] * (2 - 2 * torch.cos(angle))).to(torch.complex128)


def _advect(u: Tensor, ratio: Tensor, work: tuple[Tensor, ...]) -> None:
    """One MUSCL-Hancock step in place; `ratio` is Δt / h, (rows, 1). `u` has two ghost cells on both sides."""
    jump, slope, left, middle, front, change = work
    u[:, :GHOSTS] = u[:, -2 * GHOSTS : -GHOSTS]
    u[:, -GHOSTS:] = u[:, GHOSTS : 2 * GHOSTS]
    torch.sub(u[:, 1:], u[:, :-1], out=jump)
    behind, ahead = jump[:, :-1], jump[:, 1:]
    # Half of van Leer's slope: ab / (a + b) where both jumps have one sign, else 0. The tiny number keeps 0 / 0 away.
    torch.mul(behind, ahead, out=slope).clamp_min_(0)
    slope /= torch.add(behind, ahead, out=left).add_(1e-300)
    # Edge values half a step ahead: u ± s - (Δt / 2h) (f(u + s) - f(u - s)), and f(u + s) - f(u - s) = 2 u s.
    torch.mul(u[:, 1:-1], ratio, out=left).mul_(slope)
    torch.sub(u[:, 1:-1], left, out=middle)
    torch.add(middle, slope, out=left)
    slope -= middle
    torch.maximum(left[:, :-1], slope[:, 1:], out=front).clamp_min_(0)
    front *= front
    torch.sub(front[:, 1:], front[:, :-1], out=change)
    u[:, GHOSTS:-GHOSTS].addcmul_(change, ratio, value=-0.5)
