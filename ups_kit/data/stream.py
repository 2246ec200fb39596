"""Which windows a step sees, and how a batch is moved about: pure functions, so that a run can go on anywhere."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..interfaces import Batch, FieldSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def window_numbers(total: int, batch: int, seed: int, step: int) -> NDArray[np.int64]:
    """The windows of a step, (batch,).

    The windows 0 … total - 1 are permuted anew for every epoch, epochs follow each other without a gap, and step k
    takes the places k·batch … (k + 1)·batch - 1 of that sequence: a pure function of its arguments. Raises ValueError
    where there are no windows.
    """
    if total < 1 or batch < 1:
        raise ValueError(f"expected at least one window and a batch of at least one, got {total} and {batch}")
    places = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    epochs = places // total
    parts = [
        _permutation(total, seed, int(epoch))[places[epochs == epoch] % total]
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
    ]
    return np.concatenate(parts)


@lru_cache(maxsize=16)  # two epochs each of several tasks
def _permutation(total: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = np.random.default_rng([seed, epoch]).permutation(total)
    order.flags.writeable = False
    return order


def shift_periodic(batch: Batch, fields: FieldSpec, generator: torch.Generator) -> Batch:
    """Move every sample along the periodic axes of its domain by a random distance.

    A periodic domain has no origin, so the shifted sample solves the same equation. On a grid the distance is a number
    of points: inputs and states are rolled, and positions stay; states that were read at some points of the grid alone
    move by their positions. Points that are no grid move by their positions. Other axes are left as they are. Raises
    ValueError for a batch with cached latents, which cannot be moved.
    """
    grid = batch.inputs.grid
    if grid is None:
        return _shift_points(batch, fields, generator)
    axes = [axis for axis in range(len(grid)) if fields.periodic[axis] and grid[axis] > 1]
    if not axes:
        return batch
    if batch.latents is not None:
        raise ValueError("cached latents cannot be shifted along with their fields")
    shifts = _drawn_shifts(grid, axes, len(batch.ids), generator)
    source = _rolled_points(grid, shifts).to(batch.states.device)
    values, states = batch.inputs.values, batch.states
    inputs = batch.inputs._replace(values=values.gather(1, source[:, :, None].expand_as(values)))
    if batch.grid is None:
        return batch._replace(inputs=inputs, positions=_moved(batch.positions, grid, shifts, fields))
    return batch._replace(inputs=inputs, states=states.gather(2, source[:, None, :, None].expand_as(states)))


def _shift_points(batch: Batch, fields: FieldSpec, generator: torch.Generator) -> Batch:
    """Move the points of every sample, of inputs and states alike, along the periodic axes."""
    import torch

    if not any(fields.periodic):
        return batch
    if batch.latents is not None:
        raise ValueError("cached latents cannot be shifted along with their fields")
    positions = batch.positions
    shares = torch.rand(len(batch.ids), fields.space_dims, generator=generator, device=generator.device)
    shares = shares.to(positions.device) * shares.new_tensor(fields.periodic).to(positions.device)
    inputs = batch.inputs._replace(positions=_wrapped(batch.inputs.positions, shares, fields), supernodes=None)
    return batch._replace(inputs=inputs, positions=_wrapped(positions, shares, fields))


def _wrapped(positions: Tensor, shares: Tensor, fields: FieldSpec) -> Tensor:
    """Positions (B, …, D) moved by shares (B, D) of the domain, within it; an axis of share 0 is left as it is."""
    low = positions.new_tensor([bounds[0] for bounds in fields.domain])
    extent = positions.new_tensor(fields.extent)
    shares = shares.view(len(shares), *(1,) * (positions.dim() - 2), -1)
    places = (positions - low) / extent + shares
    moved = low + extent * (places - places.floor()).clamp(max=1 - 1e-7)
    return moved.where(shares > 0, positions)


def _drawn_shifts(grid: tuple[int, ...], axes: list[int], samples: int, generator: torch.Generator) -> Tensor:
    """By how many points each sample moves along each axis, (samples, axes)."""
    import torch

    device = generator.device
    shifts = torch.zeros(samples, len(grid), dtype=torch.long, device=device)
    for axis in axes:
        shifts[:, axis] = torch.randint(grid[axis], (samples, 1), generator=generator, device=device)[:, 0]
    return shifts


def _rolled_points(grid: tuple[int, ...], shifts: Tensor) -> Tensor:
    """Where each point's value comes from, (samples, points), in row-major order."""
    import torch

    samples, device = len(shifts), shifts.device
    index = torch.zeros(samples, *(1 for _ in grid), dtype=torch.long, device=device)
    for axis, points in enumerate(grid):
        along = (torch.arange(points, device=device) - shifts[:, axis, None]) % points
        index = index * points + along.view(samples, *(points if other == axis else 1 for other in range(len(grid))))
    return index.reshape(samples, -1)


def _moved(positions: Tensor, grid: tuple[int, ...], shifts: Tensor, fields: FieldSpec) -> Tensor:
    """Positions (samples, points, axes) shifted by so many points, within the domain."""
    low = positions.new_tensor([bounds[0] for bounds in fields.domain])
    extent = positions.new_tensor(fields.extent)
    spacing = extent / positions.new_tensor([float(points) for points in grid])
    places = positions - low + (shifts.to(positions.device) * spacing)[:, None]
    # a place is a whole number of points and the offset: rounding must not carry it across the border
    wrapped = places - extent * (places / extent + 1e-6).floor()
    return low + places.where((shifts == 0).to(positions.device)[:, None], wrapped)
