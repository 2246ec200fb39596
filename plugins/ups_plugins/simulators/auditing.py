"""How well stored trajectories keep to an equation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

AT_REST = 1e-3  # of the values' size: the least that a trajectory's changes are compared with


def step_residual(values: Tensor, advance: Callable[[Tensor, int], Tensor]) -> Tensor:
    """How far the frames are from what the equation makes of the frame before each, relative to what changes.

    `values` is (S, frames, …); `advance(state, number)` solves from frame `number` to the next one. Returns (S,): the
    root mean square of what is left over, divided by that of the changes from frame to frame. It is 0 to rounding for
    what the same solver made, and about the relative error of a rate that is wrong.
    """
    left = torch.zeros(len(values), dtype=values.dtype, device=values.device)
    change = torch.zeros_like(left)
    for number in range(values.shape[1] - 1):
        now, after = values[:, number], values[:, number + 1]
        left += squares(after - advance(now, number))
        change += squares(after - now) + AT_REST**2 * squares(now)
    return torch.sqrt(left / change.clamp_min(1e-300))


def drift(numbers: Tensor, scale: Tensor) -> Tensor:
    """The furthest that a conserved number (S, frames) gets from its first value, relative to `scale` (S,)."""
    return (numbers - numbers[:, :1]).abs().amax(1) / scale.clamp_min(1e-300)


def size(values: Tensor) -> Tensor:
    """Root mean square of all values of each trajectory, (S,)."""
    return values.flatten(1).square().mean(1).sqrt()


def squares(values: Tensor) -> Tensor:
    """Sum of squares of each trajectory's values, (S,)."""
    return values.flatten(1).square().sum(1)
