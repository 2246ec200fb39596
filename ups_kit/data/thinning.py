"""Random points of a sample that training reads: how a recipe says how many, and how they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Attribute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Count = int | tuple[int, int]  # of points: so many, or from the least to the most


def number_or_range(instance: object, attribute: Attribute[Any], value: Count | None) -> None:
    """A validator: a number of points, or the least and the most of them."""
    low, high = value if isinstance(value, tuple) else (value, value)
    if low is not None and high is not None and not 1 <= low <= high:
        raise ValueError(f"{attribute.name}: expected a number of points from 1 on, or [least, most], got {value}")


def number_drawn(count: Count | None, generator: np.random.Generator) -> int | None:
    """How many points a batch has; None for all."""
    return int(generator.integers(count[0], count[1], endpoint=True)) if isinstance(count, tuple) else count


def points_drawn(total: int, number: int | None, generator: np.random.Generator) -> NDArray[np.int64] | None:
    """So many distinct points of `total`, in their order; None for all of them."""
    import numpy as np

    if number is None or number >= total:
        return None
    return np.sort(generator.choice(total, number, replace=False, shuffle=False)).astype(np.int64)
