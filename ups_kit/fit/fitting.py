"""A stage's training: what it was asked to do, and how it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..interfaces import HoldsState, Progress, Schedule
from ..recipe import Run
from .batches import BatchSource
from .clock import BudgetClock
from .forward import LossBundle
from .meter import Meter
from .optim import moving_average
from .precision import Precision
from .settings import FitSettings

LossFunction = Callable[[Any, Progress, torch.Generator], LossBundle]
Validation = Callable[[nn.Module], Mapping[str, float]]


@frozen(kw_only=True)
class Task:
    """What a stage asks `fit` to do.

    `loss(batch, progress, generator)` gives the losses of a batch, each a mean over samples; `validate(model)` gives
    numbers of a model in evaluation mode, without gradient, among them "score" (lower is better). `state` is what else
    changes from step to step, by name: it is moved on after each step, and kept in checkpoints.
    """

    stage: str
    model: nn.Module
    settings: FitSettings
    run: Run
    device: torch.device
    source: BatchSource
    loss: LossFunction
    validate: Validation
    state: Mapping[str, HoldsState] = field(factory=dict)


@define(kw_only=True)
class Fitting:
    """A stage's training as it stands after `step` optimiser steps."""

    task: Task
    precision: Precision
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    clock: BudgetClock
    generator: torch.Generator
    trained: tuple[Tensor, ...]
    meter: Meter = field(factory=Meter)
    step: int = 0
    best_step: int | None = None
    best_score: float = math.inf
    waited: int = 0  # validations since the best one
    nonfinite: int = 0  # steps in a row that were not taken
    skipped: int = 0  # steps that were not taken, in all
    last: dict[str, float] = field(factory=dict)  # newest validation

    @property
    def evaluated(self) -> nn.Module:
        """The model whose weights are validated and exported."""
        return self.task.model if self.average is None else self.average.module

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent or the patience is at its end."""
        patience = self.task.settings.patience
        return self.clock.is_over(self.step) or (patience is not None and self.waited >= patience)


def prepare(task: Task) -> Fitting:
    """Everything that a training needs besides its task."""
    settings = task.settings
    precision = Precision(task.device, task.run.precision)
    precision.check()
    task.model.to(task.device)
    set_training_mode(task.model)
    return Fitting(
        task=task,
        precision=precision,
        optimizer=settings.optimizer.build(task.model),
        schedule=None if settings.schedule is None else settings.schedule.build(),
        scaler=precision.scaler(),
        average=None if settings.ema is None else moving_average(task.model, settings.ema),
        clock=BudgetClock(settings.budget, task.source.windows, settings.batch, task.device),
        generator=torch.Generator(device=task.device),
        trained=tuple(weight for weight in task.model.parameters() if weight.requires_grad),
    )


@contextmanager
def frozen_parts(model: nn.Module, parts: Iterable[str]) -> Iterator[None]:
    """Keep the weights of these children of a model as they are, for a while."""
    changed = [weight for part in parts for weight in model.get_submodule(part).parameters() if weight.requires_grad]
    for weight in changed:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in changed:
            weight.requires_grad_(True)


def set_training_mode(model: nn.Module) -> None:
    """Training mode, but for children that are frozen whole."""
    model.train()
    for child in model.children():
        weights = list(child.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            child.eval()
