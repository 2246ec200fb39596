"""Keys of simulators, and how they are checked."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from attrs import Attribute, field
from attrs.validators import ge, gt, matches_re

Range = float | tuple[float, float]  # one number, or the bounds that each trajectory's is drawn between
Number = TypeVar("Number", int, float)


def bounds(value: Number | tuple[Number, Number]) -> tuple[Number, Number]:
    """The lower bound and the upper one: both the number, where it is one."""
    return value if isinstance(value, tuple) else (value, value)


def positive_range(instance: object, attribute: Attribute[Any], value: Range) -> None:
    """A number above 0, or two of them, the lower one first."""
    low, high = bounds(value)
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0, or two of them, the lower one first")


def finite_range(instance: object, attribute: Attribute[Any], value: Range) -> None:
    """A number, or two of them, the lower one first."""
    low, high = bounds(value)
    if not (low <= high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{attribute.name} = {value}: expected a number, or two of them, the lower one first")


def positive(instance: object, attribute: Attribute[Any], value: float) -> None:
    """A finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0")


def trajectories_key(default: int) -> Any:
    """The key `trajectories`."""
    return field(default=default, validator=gt(0), metadata={"help": "number of trajectories"})


def frames_key(default: int) -> Any:
    """The key `frames`."""
    return field(default=default, validator=ge(2), metadata={"help": "stored times, the first one included"})


def duration_key(default: float, text: str = "time of the last frame") -> Any:
    """The key `duration`, with its help."""
    return field(default=default, validator=positive, metadata={"help": text, "unit": "time"})


def step_key(default: float) -> Any:
    """The key `step`."""
    return field(default=default, validator=positive, metadata={"help": "the solver's largest step", "unit": "time"})


def seed_key() -> Any:
    """The key `seed`."""
    return field(
        default=2022, validator=ge(0), metadata={"help": "seed of all that is drawn; trajectory i has its own draws"}
    )


def device_key() -> Any:
    """The key `device`."""
    return field(
        default="auto", validator=matches_re(r"auto|cpu|cuda(:\d+)?"), metadata={"help": "auto, cpu, cuda or cuda:N"}
    )
