"""Flow matching and its distillation: the mathematics, whatever is drawn (docs/method.md §4).

A sample x₁ of the data and standard normal noise ε are joined by the straight path

    x_τ = (1 − τ) ε + τ x₁,    0 ≤ τ ≤ 1,    with velocity  x₁ − ε

and a network learns v(x, τ) = E[x₁ − ε | x_τ = x] by least squares. The solution of dx/dτ = v(x, τ) from x₀ = ε is
then a sample of the data at τ = 1 (Lipman et al., arXiv:2210.02747; Liu et al., arXiv:2209.03003). At τ = 0 nothing is
known but the conditions, and v(ε, 0) = E[x₁] − ε: one step of Euler's method gives the conditional mean, for any noise.

A student learns the jump G(x, τ) from any place of such a solution to its end, G(x, 1) = x, by agreeing with itself one
step of the teacher's solver further on (consistency models, Song et al., arXiv:2303.01469).

Shapes: x and ε are (batch, …), τ is (batch,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Solver = Literal["euler", "heun"]
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x, τ) to a velocity of the shape of x
Jump = Callable[[Tensor, Tensor], Tensor]  # (x, τ) to the end of the path, of the shape of x


def along(noise: Tensor, data: Tensor, time: Tensor) -> Tensor:
    """x_τ, between the noise at τ = 0 and the data at τ = 1."""
    share = spread_over(time, data)
    return (1 - share) * noise + share * data


def flow_error(velocity: Velocity, data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared error of the velocity, (batch,): the mean over all but the first axis of (v(x_τ, τ) − (x₁ − ε))²."""
    found = velocity(along(noise, data, time), time)
    return (found - (data - noise)).square().flatten(1).mean(1)


def solve(velocity: Velocity, noise: Tensor, steps: int, solver: Solver = "euler") -> Tensor:
    """The end of the path that begins at the noise, by `steps` equal steps of Euler's or Heun's method."""
    values = noise
    for step in range(steps):
        values = solver_step(velocity, values, noise.new_full((len(noise),), step / steps), 1 / steps, solver)
    return values


def solver_step(velocity: Velocity, values: Tensor, time: Tensor, length: float, solver: Solver) -> Tensor:
    """One step from τ to τ + length; Heun's method takes the mean of the velocities at both ends."""
    first = velocity(values, time)
    reached = values + length * first
    if solver == "euler":
        return reached
    return values + length * (first + velocity(reached, time + length)) / 2


def jump(velocity: Velocity) -> Jump:
    """G(x, τ) = x + (1 − τ) v(x, τ): the jump to the end that a network makes; at the end it stays where it is."""
    return lambda values, time: values + (1 - spread_over(time, values)) * velocity(values, time)


def consistency_error(
    student: Jump,
    target: Jump,
    teacher: Velocity,
    data: Tensor,
    noise: Tensor,
    place: Tensor,
    steps: int,
    solver: Solver,
) -> Tensor:
    """How far the student's jump from τ = place/steps is from the target's, one step of the teacher on: (batch,).

    `place` (batch,) are whole numbers from 0 to steps − 1. Only the student's jump carries a gradient.
    """
    time, length = place.to(data.dtype) / steps, 1 / steps
    start = along(noise, data, time)
    with torch.no_grad():
        reached = solver_step(teacher, start, time, length, solver)
        goal = target(reached, time + length)
    return (student(start, time) - goal).square().flatten(1).mean(1)


def jumps(student: Jump, noise: Tensor, steps: int) -> Tensor:
    """The end of the path in so many jumps: after each but the last, back on the straight path to the same noise."""
    values = noise
    for step in range(steps):
        time = noise.new_full((len(noise),), step / steps)
        end = student(values, time)
        values = along(noise, end, time + 1 / steps)
    return values


def spread_over(time: Tensor, values: Tensor) -> Tensor:
    """(batch,) as (batch, 1, …, 1), to broadcast over the values."""
    return time.to(values.dtype).view(-1, *(1,) * (values.dim() - 1))
