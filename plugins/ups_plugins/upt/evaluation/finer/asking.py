"""Which finer points the data hold, before any state is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ups_kit.errors import UsageError
from ups_kit.interfaces import Multitask, Offer, Relays

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment

TAUGHT = 4  # the stride that a run is told to train at, if the grid can be cut so


def plan(experiment: Experiment, split: str, factors: Sequence[int]) -> dict[int, Offer]:
    """The finer points by factor, smallest first. Raises UsageError with everything that cannot be had."""
    dataset, config = experiment.dataset, experiment.recipe.dataset
    name = experiment.catalog.locate(config).name
    if isinstance(dataset, Multitask):
        raise UsageError("a data set of several tasks has no one grid to be finer than; leave --finer out")
    fields, stride = dataset.fields, getattr(config, "space_stride", None)
    if fields.grid is None or not isinstance(dataset, Relays) or not isinstance(stride, int):
        what = "are not on a grid" if fields.grid is None else f"come from the dataset '{name}', which has no strides"
        raise UsageError(f"--finer: these data {what}: nothing is known between their points; leave --finer out")
    fitting = [factor for factor in range(2, stride + 1) if stride % factor == 0]
    if not fitting:
        raise UsageError(_nothing_finer(fields.grid))
    problems = [
        f"--finer {factor}: {_problem(factor, stride)}; nearest: --finer {_nearest(fitting, factor)}"
        for factor in factors
        if factor not in fitting
    ]
    if problems:
        raise UsageError("\n".join(problems))
    dims = len(fields.grid)
    points = {factor: math.prod(fields.grid) * factor**dims for factor in sorted(set(factors))}
    return {factor: dataset.offer(split, "grid", count) for factor, count in points.items()}


def _problem(factor: int, stride: int) -> str:
    if factor == 1:
        return "are the points that the model is given, which are compared in any case; expected at least 2"
    if factor < 1:
        return "expected a whole number of at least 2"
    return f"does not divide dataset.space_stride = {stride}, so the files hold no such points"


def _nearest(numbers: Sequence[int], wanted: int) -> int:
    return min(numbers, key=lambda number: abs(number - wanted))


def _nothing_finer(grid: tuple[int, ...]) -> str:
    """What to say to a run that was trained on all points that its files hold."""
    shape, common = " × ".join(map(str, grid)), math.gcd(*grid)
    head = f"--finer: the model was trained on all {shape} points that its data hold (dataset.space_stride = 1)"
    strides = [stride for stride in range(2, min(grid) // 2 + 1) if common % stride == 0]
    if not strides:
        return f"{head}, and they cannot be thinned evenly; leave --finer out"
    return (
        f"{head}; to have finer ones to ask it on, train it on some of them: "
        f"upskit run RECIPE --set dataset.space_stride={_nearest(strides, TAUGHT)}"
    )
