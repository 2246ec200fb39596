"""Keys and checks that several simulators share."""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute, field
from attrs.validators import ge, gt, matches_re

Range = float | tuple[float, float]  # one number, or the bounds that each trajectory's is drawn between


def positive_range(instance: object, attribute: Attribute[Any], value: Range) -> None:
    """A number above 0, or two of them, the lower one first."""
    low, high = value if isinstance(value, tuple) else (value, value)
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0, or two of them, the lower one first")


def finite_range(instance: object, attribute: Attribute[Any], value: Range) -> None:
    """A number, or two of them, the lower one first."""
    low, high = value if isinstance(value, tuple) else (value, value)
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
    return field(default=default, validator=ge(2), metadata={"help": "stored times, the initial one included"})


def duration_key(default: float) -> Any:
    """The key `duration`."""
    return field(default=default, validator=positive, metadata={"help": "time of the last frame", "unit": "time"})


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
