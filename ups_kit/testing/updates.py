"""The contracts of optimisers and of learning-rate schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..fit.optim import set_learning_rates
from ..interfaces import Progress, Schedule
from ..layers import Block
from .modules import SEED, loaded, seeded
from .report import expect, listed
from .subject import Clause, Subject

STEPS = 5
EPOCHS = 20.0  # of a schedule's course


class _Quadratic(nn.Module):
    """A bowl: matrices, biases, a transformer block, and a part that is frozen, as models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.frozen = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(4, 4)
        self.block = Block(8, 2, mlp_ratio=1.0)
        self.frozen.requires_grad_(False)

    def forward(self) -> Tensor:
        total: Tensor = sum(((weight - 2).square().mean() for weight in self.parameters()), torch.zeros(()))
        return total


def _descended(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int = 1) -> list[float]:
    """The values before, between and after some steps."""
    values = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        value = model()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    return [*values, float(model().detach())]


def lowers(subject: Subject) -> str | None:
    """A step on a quadratic lowers it, and each of a few more does too."""
    model = seeded(_Quadratic)
    values = _descended(subject.config_object.build(model), model, STEPS)
    down = all(after < before for before, after in itertools.pairwise(values))
    told = listed((f"{value:.6g}" for value in values), 6)
    expect(down and math.isfinite(values[-1]), f"the values {told}", "give it a learning rate that fits by default")
    return None


def frozen_parts(subject: Subject) -> str | None:
    """Weights that require no gradient stay as they are; all others move."""
    model = seeded(_Quadratic)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    _descended(subject.config_object.build(model), model)
    for name, weight in model.named_parameters():
        still = torch.equal(weight, before[name])
        what = "has moved" if weight.requires_grad else "has not been left as it is"
        expect(still != weight.requires_grad, f"{name} {what if not still else 'stays as it is'}")
    return None


def learning_rates(subject: Subject) -> str | None:
    """Its parameter groups have a learning rate `lr` that a schedule can set: with 0 nothing moves."""
    model = seeded(_Quadratic)
    optimizer = subject.config_object.build(model)
    expect(all("lr" in group for group in optimizer.param_groups), "a parameter group without lr")
    set_learning_rates(optimizer, 0.0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    _descended(optimizer, model)
    moved = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    expect(not moved, f"with lr = 0 {listed(moved)} moves", "scale every update, decay too, with group['lr']")
    return None


def optimizer_state(subject: Subject) -> str | None:
    """Its state is plain, survives being saved with `weights_only`, and goes on to the same bits."""
    model = seeded(_Quadratic)
    optimizer = subject.config_object.build(model)
    _descended(optimizer, model, 2)
    other = seeded(_Quadratic, SEED + 1)
    weights, state = loaded(model.state_dict()), loaded(optimizer.state_dict())
    other.load_state_dict(weights)
    again = subject.config_object.build(other)
    again.load_state_dict(state)
    _descended(optimizer, model, 2)
    _descended(again, other, 2)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        expect(torch.equal(one, two), f"{name} differs after two more steps", "keep all that counts in the state")
    return None


def _course(schedule: Schedule, count: int = 60) -> list[float]:
    """Its factors over a stage, with validations between."""
    found = []
    for step in range(count + 1):
        fraction = step / count
        found.append(schedule.factor(Progress(step, EPOCHS * fraction, fraction)))
        if step % 10 == 9:
            schedule.observe(1.0 / (1 + step // 20))
    return found


def factors(subject: Subject) -> str | None:
    """Its factor is a finite number of at least 0, all the way from the first step to the last."""
    for config in (subject.config_object, subject.small):
        for factor in _course(config.build()):
            expect(isinstance(factor, float | int), f"a {type(factor).__name__}", "return a plain number")
            expect(math.isfinite(factor) and factor >= 0, f"the factor {factor}")
    return None


def same_course(subject: Subject) -> str | None:
    """Two schedules that are told the same give the same factors."""
    expect(_course(subject.config_object.build()) == _course(subject.config_object.build()), "other factors")
    return None


def schedule_state(subject: Subject) -> str | None:
    """Its state is plain, survives being saved with `weights_only`, and goes on with the same factors."""
    one: Any = subject.config_object.build()
    _course(one)
    other: Any = subject.config_object.build()
    other.load_state_dict(loaded(one.state_dict()))
    for schedule in (one, other):
        schedule.observe(2.0)
    expect(_course(one, 20) == _course(other, 20), "other factors after its state was loaded", "keep all that counts")
    return None


OPTIMIZER: Mapping[str, Clause] = {
    "lowers-a-quadratic": lowers,
    "frozen-parts": frozen_parts,
    "learning-rate": learning_rates,
    "state-round-trip": optimizer_state,
}
SCHEDULE: Mapping[str, Clause] = {
    "factor": factors,
    "deterministic": same_course,
    "state-round-trip": schedule_state,
}
