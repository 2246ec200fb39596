"""Which forecast a bundle makes by default: decided on validation trajectories, never on those that are reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any, NamedTuple

from attrs import frozen

from ups_kit.metrics import NRMSE_FLOOR

from .drawing import ALONE, Variant
from .scores import finite


class Validated(NamedTuple):
    """What a choice is made by: means over the validation trajectories."""

    crps: float  # of the operator alone its normalised absolute error
    nrmse: float  # of the mean of the members
    by_trajectory: tuple[tuple[float, ...], ...] = ()  # the CRPS of each, of every task by itself


@frozen
class Finding:
    """Whether one way to draw helps."""

    variant: Variant
    own: Validated
    helps: bool
    text: str  # the numbers, in words

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.variant.name}: {self.text}"


@frozen
class Choice:
    """The default, and why."""

    trajectories: int  # of the validation split
    members: int
    operator: Validated | None  # None where it was not trained
    findings: tuple[Finding, ...]
    default: Variant
    why: str  # with the numbers
    shortly: str

    @property
    def forecast(self) -> dict[str, Any]:
        """As a bundle holds it."""
        members = 1 if self.default.steps is None else self.members
        return {"use": self.default.use, "steps": self.default.steps, "members": members, "why": self.why}

    def summary(self) -> dict[str, object]:
        """What the run's summary holds of it."""
        known = {} if self.operator is None else {ALONE.name: _numbers(self.operator)}
        found = {
            finding.variant.name: {**_numbers(finding.own), "helps": finding.helps, "why": finding.text}
            for finding in self.findings
        }
        return {"split": "validation", "trajectories": self.trajectories, "rows": {**known, **found}}


def choose(validated: Mapping[Variant, Validated], fallback: Variant, trajectories: int, members: int) -> Choice:
    """The best by CRPS among those that help; the operator alone, or the fallback, where none does.

    A drawn forecast helps if its CRPS and the nRMSE of its mean are both below the operator's, and its CRPS is so from
    trajectory to trajectory, beyond chance (`factor`). Where no operator was trained, whatever gives finite numbers
    does.
    """
    operator = validated.get(ALONE)
    findings = tuple(_finding(variant, own, operator) for variant, own in validated.items() if variant != ALONE)
    helping = [finding for finding in findings if finding.helps]
    if helping:
        best = min(helping, key=lambda finding: finding.own.crps)
        among = "helps" if operator is not None else "is drawn"
        shortly = f"of what {among} the least CRPS on {_count(trajectories)}"
        return Choice(trajectories, members, operator, findings, best.variant, f"{shortly}: {best.text}", shortly)
    shortly = f"nothing that is drawn helps on {_count(trajectories)}"
    if not trajectories:
        shortly = "there is no validation trajectory to choose on, or choose_trajectories = 0"
    why = "; ".join([shortly, *(finding.sentence for finding in findings)])
    return Choice(trajectories, members, operator, findings, fallback, why, shortly)


def over_tasks(choices: Sequence[Choice]) -> Choice:
    """One default for a model of several tasks: the same choice by geometric means over them, of what all of them have.

    So a task whose errors are large decides no more than another: what counts is by which factor each is better.
    """
    first = choices[0]
    validated = {}
    for variant in [*([ALONE] if first.operator is not None else []), *(each.variant for each in first.findings)]:
        found = [_validated(choice, variant) for choice in choices]
        numbers = [own for own in found if own is not None]
        if len(numbers) == len(choices):
            means = (_geometric([own.crps for own in numbers]), _geometric([own.nrmse for own in numbers]))
            validated[variant] = Validated(*means, tuple(crps for own in numbers for crps in own.by_trajectory))
    fallback = ALONE if first.operator is not None else first.default
    return choose(validated, fallback, sum(choice.trajectories for choice in choices), first.members)


def _geometric(values: Sequence[float]) -> float:
    """Their geometric mean, each at least 1e-12; NaN where one is no finite number."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return math.exp(sum(math.log(max(value, NRMSE_FLOOR)) for value in values) / len(values))


def _validated(choice: Choice, variant: Variant) -> Validated | None:
    if variant == ALONE:
        return choice.operator
    return next((finding.own for finding in choice.findings if finding.variant == variant), None)


def _finding(variant: Variant, own: Validated, operator: Validated | None) -> Finding:
    if operator is None:
        numbers = f"CRPS {own.crps:.4g}, nRMSE of the mean {own.nrmse:.4g}, and no operator was trained"
        return Finding(variant, own, math.isfinite(own.crps) and math.isfinite(own.nrmse), numbers)
    pairs = {"CRPS": (own.crps, operator.crps), "nRMSE of the mean": (own.nrmse, operator.nrmse)}
    worse = {name: pair for name, pair in pairs.items() if not pair[0] < pair[1]}
    low, high = factor(own.by_trajectory, operator.by_trajectory)
    by_chance = not worse and bool(own.by_trajectory) and not high < 1
    verdict = "does not help" if worse else "not shown to help" if by_chance else "helps"
    word = "is not below" if worse else "against"
    texts = [f"{name} {value:.4g} {word} {other:.4g}" for name, (value, other) in (worse or pairs).items()]
    text = f"{verdict}: {', '.join(texts)} of the operator alone"
    if own.by_trajectory and not worse:
        text += f"; CRPS {low:.3g} to {high:.3g} times its own, trajectory by trajectory"
    return Finding(variant, own, not worse and not by_chance, text)


def factor(values: Sequence[Sequence[float]], references: Sequence[Sequence[float]]) -> tuple[float, float]:
    """By which factor values differ from references, pair by pair: the geometric mean's 90 % interval (Student's t).

    So a few pairs whose errors are large decide no more than others. Of several tasks each counts alike, and so do the
    pairs of one task. Of fewer than two pairs of a task nothing is known.
    """
    logarithms = [
        [math.log(max(value, NRMSE_FLOOR) / max(other, NRMSE_FLOOR)) for value, other in zip(own, theirs)]
        for own, theirs in zip(values, references)
    ]
    if not logarithms or not all(len(task) > 1 and all(map(math.isfinite, task)) for task in logarithms):
        return 0.0, math.inf
    from scipy.stats import t

    middle = fmean(fmean(task) for task in logarithms)
    error = math.sqrt(sum(variance(task) / len(task) for task in logarithms)) / len(logarithms)
    reach = float(t.ppf(0.95, sum(len(task) - 1 for task in logarithms))) * error
    return math.exp(middle - reach), math.exp(middle + reach)


def _count(trajectories: int) -> str:
    return f"{trajectories} validation {'trajectory' if trajectories == 1 else 'trajectories'}"


def _numbers(own: Validated) -> dict[str, float | None]:
    return {"crps": finite(own.crps), "nrmse": finite(own.nrmse)}
