"""Keys and checks that several simulators share."""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute, field
from attrs.validators import matches_re


def positive_range(instance: object, attribute: Attribute[Any], value: float | tuple[float, float]) -> None:
    """A number above 0, or two of them, the lower one first."""
    low, high = value if isinstance(value, tuple) else (value, value)
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0, or two of them, the lower one first")


def device_key() -> Any:
    """The key `device`."""
    return field(
        default="auto", validator=matches_re(r"auto|cpu|cuda(:\d+)?"), metadata={"help": "auto, cpu, cuda or cuda:N"}
    )
