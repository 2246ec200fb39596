"""Schedules: their values, and warm-up."""

from __future__ import annotations

import math

import pytest

from ups_kit.interfaces import Progress, Schedule
from ups_plugins.optim import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    PlateauScheduleConfig,
    StepScheduleConfig,
)


def _at(schedule: Schedule, step: int, fraction: float = 0.0) -> float:
    return schedule.factor(Progress(step, 0.0, fraction))


def test_cosine_goes_from_one_to_its_end() -> None:
    schedule = CosineScheduleConfig(final=0.1).build()
    assert [_at(schedule, 0, f) for f in (0, 0.5, 1)] == pytest.approx([1, 0.55, 0.1])
    assert _at(schedule, 0, 0.25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    values = [_at(schedule, 0, n / 100) for n in range(101)]
    assert values == sorted(values, reverse=True)


def _stage(config: CosineScheduleConfig, steps: int = 110) -> list[float]:
    schedule = config.build()
    return [_at(schedule, step, step / steps) for step in range(steps + 1)]


def test_a_cosine_after_the_warm_up_rises_from_nothing_and_spans_the_rest() -> None:
    values = _stage(CosineScheduleConfig(final=0.1, warmup=10, after_warmup=True))
    assert values[:11] == pytest.approx([step / 10 for step in range(11)])
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(101)]
    assert values[10:] == pytest.approx(expected)
    share = _stage(CosineScheduleConfig(final=0.1, warmup_fraction=10 / 110, after_warmup=True))
    assert share == pytest.approx(values)
    assert _stage(CosineScheduleConfig(final=0.1, after_warmup=True)) == _stage(CosineScheduleConfig(final=0.1))


def test_a_warm_up_that_is_all_of_the_budget_leaves_no_cosine() -> None:
    values = _stage(CosineScheduleConfig(warmup=20, after_warmup=True), steps=20)
    assert values == pytest.approx([step / 20 for step in range(21)])


@pytest.mark.parametrize(
    "config",
    [ConstantScheduleConfig(warmup=4), StepScheduleConfig(steps=100, warmup=4), PlateauScheduleConfig(warmup=4)],
)
def test_warm_up_in_steps_reaches_the_whole_rate_and_never_starts_at_nothing(config: ConstantScheduleConfig) -> None:
    schedule = config.build()
    assert [_at(schedule, step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_warm_up_as_a_share_of_the_budget() -> None:
    schedule = ConstantScheduleConfig(warmup_fraction=0.1).build()
    assert [_at(schedule, 0, f) for f in (0, 0.05, 0.1, 0.5)] == pytest.approx([0.01, 0.5, 1, 1])


def test_two_warm_ups_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        CosineScheduleConfig(warmup=10, warmup_fraction=0.1)


def test_steps_down_the_stairs() -> None:
    schedule = StepScheduleConfig(steps=10, factor=0.5).build()
    assert [_at(schedule, step) for step in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]


def test_a_plateau_lowers_the_rate_and_remembers_it() -> None:
    config = PlateauScheduleConfig(factor=0.1, patience=1, minimum=0.05)
    schedule = config.build()
    factors = []
    for score in (1.0, 0.5, 0.6, 0.4999, 0.2, 0.3, 0.3):
        schedule.observe(score)
        factors.append(_at(schedule, 0))
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.05])
    again = config.build()
    again.load_state_dict(schedule.state_dict())
    assert again.state_dict() == schedule.state_dict()
    assert _at(again, 0) == pytest.approx(0.05)
