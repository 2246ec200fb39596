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
    """Roll every sample along the periodic axes of its grid by a random number of points.

    Inputs and states of a sample move together, and positions stay: a periodic domain has no origin, so the shifted
    sample solves the same equation. Other layouts and axes are left as they are. Raises ValueError for a batch with
    cached latents, which cannot be moved.
    """
    grid = batch.grid
    axes = [] if grid is None else [axis for axis in range(len(grid)) if fields.periodic[axis] and grid[axis] > 1]
    if grid is None or not axes:
        return batch
    if batch.latents is not None:
        raise ValueError("cached latents cannot be shifted along with their fields")
    source = _rolled_points(grid, axes, len(batch.ids), generator).to(batch.states.device)
    values = batch.inputs.values
    states = batch.states
    return batch._replace(
        inputs=batch.inputs._replace(values=values.gather(1, source[:, :, None].expand_as(values))),
        states=states.gather(2, source[:, None, :, None].expand_as(states)),
    )


def _rolled_points(grid: tuple[int, ...], axes: list[int], samples: int, generator: torch.Generator) -> Tensor:
    """Where each point's value comes from, (samples, points), in row-major order."""
    import torch

    device = generator.device
    index = torch.zeros(samples, *(1 for _ in grid), dtype=torch.long, device=device)
    for axis, points in enumerate(grid):
        along = torch.arange(points, device=device).expand(samples, points)
        if axis in axes:
            shift = torch.randint(points, (samples, 1), generator=generator, device=device)
            along = (along - shift) % points
        index = index * points + along.view(samples, *(points if other == axis else 1 for other in range(len(grid))))
    return index.reshape(samples, -1)
