"""Learning-rate schedules: what the base learning rate is multiplied with, over a stage."""

from __future__ import annotations

import math
from typing import Any

from ups_kit.interfaces import Progress

from .config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    PlateauScheduleConfig,
    StepScheduleConfig,
    WarmUp,
)

SMALLEST_RAMP = 0.01  # a warm-up by share of the budget knows no steps, so its first step would have no learning rate


def ramp(warmup: WarmUp, progress: Progress) -> float:
    """Linear warm-up: (step + 1)/W over W steps, or fraction/F over the share F of the budget; then 1."""
    if warmup.warmup:
        return min(1.0, (progress.step + 1) / warmup.warmup)
    if warmup.warmup_fraction:
        return min(1.0, max(SMALLEST_RAMP, progress.fraction / warmup.warmup_fraction))
    return 1.0


def warmed(warmup: WarmUp, progress: Progress) -> tuple[float, float]:
    """A warm-up from 0, step/W or fraction/F, 1 when it is over; and which share of the budget it takes.

    Of a warm-up in steps that share is exact where the budget is in steps or epochs; of one in seconds it follows from
    the pace so far.
    """
    if warmup.warmup and progress.step < warmup.warmup:
        return progress.step / warmup.warmup, 1.0
    if warmup.warmup:
        return 1.0, progress.fraction * warmup.warmup / progress.step
    if progress.fraction < warmup.warmup_fraction:
        return progress.fraction / warmup.warmup_fraction, 1.0
    return 1.0, warmup.warmup_fraction


class _Stateless:
    """A schedule that is a function of progress alone."""

    def observe(self, validation: float) -> None:
        """Validation scores do not matter here."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


class ConstantSchedule(_Stateless):
    """The base learning rate, after the warm-up."""

    def __init__(self, config: ConstantScheduleConfig) -> None:
        self._config = config

    def factor(self, progress: Progress) -> float:
        return ramp(self._config, progress)


class CosineSchedule(_Stateless):
    """final + (1 − final)·(1 + cos(π·share))/2 (Loshchilov and Hutter, arXiv:1608.03983).

    The share is that of the budget, and the cosine is multiplied with the warm-up; or, with `after_warmup`, it is that
    of what the warm-up leaves of the budget.
    """

    def __init__(self, config: CosineScheduleConfig) -> None:
        self._config = config

    def factor(self, progress: Progress) -> float:
        if not self._config.after_warmup:
            return ramp(self._config, progress) * self._cosine(progress.fraction)
        done, end = warmed(self._config, progress)
        return done if done < 1 else self._cosine((progress.fraction - end) / (1 - end) if end < 1 else 0.0)

    def _cosine(self, share: float) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))
        return self._config.final + (1 - self._config.final) * cosine


class StepSchedule(_Stateless):
    """factor^floor(step / steps), times the warm-up."""

    def __init__(self, config: StepScheduleConfig) -> None:
        self._config = config

    def factor(self, progress: Progress) -> float:
        return float(ramp(self._config, progress) * self._config.factor ** (progress.step // self._config.steps))


class PlateauSchedule:
    """Falls by `factor` after more than `patience` validations in a row without improvement."""

    def __init__(self, config: PlateauScheduleConfig) -> None:
        self._config = config
        self._best = math.inf
        self._waited = 0
        self._factor = 1.0

    def factor(self, progress: Progress) -> float:
        return ramp(self._config, progress) * self._factor

    def observe(self, validation: float) -> None:
        if validation < self._best * (1 - self._config.threshold):
            self._best, self._waited = validation, 0
            return
        self._waited += 1
        if self._waited > self._config.patience:
            self._factor = max(self._config.minimum, self._factor * self._config.factor)
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "waited": self._waited, "factor": self._factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._waited, self._factor = state["best"], state["waited"], state["factor"]
