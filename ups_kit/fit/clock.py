"""How much of a stage's budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..interfaces import Progress
from .settings import Budget

REFRESH_STEPS = 10  # a budget in seconds is read off the clock this often


class BudgetClock:
    """Progress of a stage, measured against whichever limit of its budget is nearest.

    Seconds are process CPU seconds on a CPU, so that a busy machine does not shorten the training, and wall seconds on
    a GPU. What was spent before an interruption counts: it is part of `state_dict`.
    """

    def __init__(
        self,
        budget: Budget,
        windows: int,
        batch: int,
        device: torch.device,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._budget = budget
        self._limit = budget.seconds_on(device.type)
        self._epochs_per_step = batch / windows
        self._now = now or (time.process_time if device.type == "cpu" else time.monotonic)
        self._started = self._now()
        self._before = 0.0  # spent by earlier processes
        self._share = 0.0  # of the seconds, as last read
        self._wall = time.monotonic()
        self._first: float | None = None  # fraction when this process began

    @property
    def seconds(self) -> float:
        """Seconds spent so far, earlier processes included."""
        return self._before + self._now() - self._started

    def read(self, step: int) -> None:
        """Take the time, on every tenth step, for a budget in seconds; progress only moves here."""
        if self._limit and step % REFRESH_STEPS == 0:
            self._share = self.seconds / self._limit

    def progress(self, step: int) -> Progress:
        """How far the stage is after `step` optimiser steps."""
        shares = [self._share]
        epoch = step * self._epochs_per_step
        if self._budget.steps:
            shares.append(step / self._budget.steps)
        if self._budget.epochs:
            shares.append(epoch / self._budget.epochs)
        return Progress(step, epoch, min(1.0, max(shares)))

    def is_over(self, step: int) -> bool:
        """Whether the budget is spent."""
        return self.progress(step).fraction >= 1.0 - 1e-12

    def wall_seconds_left(self, fraction: float) -> float:
        """Wall seconds until the budget is spent, at this process's pace."""
        if self._first is None:
            self._first = fraction
        gained = fraction - self._first
        return (time.monotonic() - self._wall) * (1 - fraction) / gained if gained > 0 else float("nan")

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "share": self._share}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._before, self._share = state["seconds"], state["share"]
        self._started = self._now()
