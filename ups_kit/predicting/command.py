"""From a bundle and files to a file: what `upskit predict` does."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from .. import __version__
from ..bundle import DESCRIPTION, WEIGHTS, Bundle, load_bundle
from ..data.memory import available_memory
from ..errors import DataError, UsageError
from ..fit.precision import choose_device
from ..interfaces import DatasetConfig, FieldSpec, Queries
from .files import Answer, check_target, write_answer
from .forecast import Forecast, Way, chosen, condition_of, inputs, members, queries_of
from .places import Places, read_places
from .start import Start, read_start

VALUE = 4  # bytes of one
COPIES = 3  # of a forecast that are in memory at a time: as it is made, as one array, as a file


@frozen(kw_only=True)
class Asked:
    """What `upskit predict` is asked for."""

    bundle: Path
    input: Path
    steps: int | None
    out: Path
    points: str | None = None
    parameters: Mapping[str, float] = attrs.field(factory=dict)
    sample: int | None = None
    frame: int | None = None
    task: str | None = None
    forecast: str | None = None
    sampling_steps: int | None = None
    members: int | None = None
    all_members: bool = False
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False


@frozen(eq=False)
class Predicted:
    """What was written."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]  # of the arrays by name
    bad: int  # values that are not finite
    provenance: Mapping[str, Any]


def predict(asked: Asked) -> Predicted:
    """Read, forecast, write. Raises UpsKitError; before anything is computed where that can be known."""
    check_target(asked.out, asked.overwrite)
    if asked.all_members and asked.members is None:
        raise UsageError("--all-members needs --members N beside it")
    device = choose_device(asked.device)
    whole = load_bundle(asked.bundle)
    bundle = whole.alone(asked.task)
    steps = _steps(asked.steps, bundle.fields)
    way = chosen(bundle, asked.forecast, asked.sampling_steps)
    places = None if asked.points is None else read_places(asked.points, bundle.fields)
    start = read_start(bundle, _dataset(whole, asked.task), asked.input, asked.sample, asked.frame)
    parameters = {**start.parameters, **asked.parameters}
    bundle.model.to(device)
    forecasts = _forecasts(asked, bundle, way, start, parameters, places, steps)
    answer = _answer(asked, bundle, start, parameters, places, forecasts, steps)
    provenance = _provenance(asked, whole, way, start, parameters, steps)
    write_answer(asked.out, Answer(answer, provenance))
    fields = [values for name, values in answer.items() if name.startswith("fields/")]
    bad = sum(int((~np.isfinite(values)).sum()) for values in fields)
    return Predicted(asked.out, {name: values.shape for name, values in answer.items()}, bad, provenance)


def _steps(steps: int | None, fields: FieldSpec) -> int:
    """How many steps are forecast. Raises UsageError where nobody says, or there is but one."""
    if steps is None and not fields.steady:
        raise UsageError(f"--steps is missing; expected the number of steps of {fields.dt:g} to forecast, 1 or more")
    if fields.steady and steps not in (None, 1):
        raise UsageError(f"--steps {steps}: the data of this model are steady, and have one answer; leave it out")
    return steps or 1


def _dataset(bundle: Bundle, task: str | None) -> DatasetConfig:
    """The dataset of the recipe, or the one of a task."""
    dataset = bundle.recipe.dataset
    tasks = getattr(dataset, "tasks", None)
    return tasks[task] if task is not None and isinstance(tasks, Mapping) else dataset


def _forecasts(
    asked: Asked,
    bundle: Bundle,
    way: Way,
    start: Start,
    parameters: Mapping[str, float],
    places: Places | None,
    steps: int,
) -> Iterator[Forecast]:
    """The members one after the other. Raises DataError, which names the file that it is about."""
    try:
        condition = condition_of(bundle, parameters, 1)
    except DataError as error:
        raise DataError(f"{start.source}: {error}; --parameter NAME=VALUE gives one that the file does not") from error
    try:
        points = inputs(bundle, start.frames, start.positions, start.statics)
    except DataError as error:
        raise DataError(f"{start.source}: {error}") from error
    queries = None
    if places is not None:
        try:
            queries = Queries(queries_of(bundle.fields, places.positions, 1), places.grid)
        except DataError as error:
            raise DataError(f"--points {places.told}: {error}") from error
    count = 1 if asked.members is None else asked.members
    asked_points = points.positions.shape[1] if queries is None else queries.positions.shape[1]
    _check_memory(steps, bundle.fields, asked_points, count if asked.all_members else 1)
    return members(bundle, way, points, condition, steps, queries, count=count, seed=asked.seed)


def _check_memory(steps: int, fields: FieldSpec, points: int, kept: int) -> None:
    size, free = VALUE * kept * steps * points * fields.target_channels * COPIES, available_memory()
    if size > free:
        raise UsageError(
            f"{steps} steps at {points} points take {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free; "
            "ask for fewer of one of them at a time"
        )


# ---------------------------------------------------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------------------------------------------------
def _answer(
    asked: Asked,
    bundle: Bundle,
    start: Start,
    parameters: Mapping[str, float],
    places: Places | None,
    forecasts: Iterator[Forecast],
    steps: int,
) -> dict[str, NDArray[Any]]:
    fields = bundle.fields
    grid = places.grid if places is not None else (fields.grid if start.positions is None else None)
    found, first = _summed(forecasts, asked.all_members)
    answer: dict[str, NDArray[Any]] = {}
    for kind, values in found.items():
        if kind != "fields" and asked.members is None:
            continue
        shaped = values if grid is None else torch.unflatten(values, -2, grid)
        parts = torch.split(shaped, [each.channels for each in fields.targets], -1)
        for each, part in zip(fields.targets, parts, strict=True):
            answer[f"{kind}/{each.name}"] = part.contiguous().numpy()
    positions = first.positions[0]
    answer["positions"] = (positions if grid is None else torch.unflatten(positions, 0, grid)).contiguous().numpy()
    dt = parameters.get("dt", fields.dt)
    answer["times"] = start.time + (0.0 if fields.steady else dt) * np.arange(1, steps + 1, dtype=np.float64)
    for name in fields.conditions:
        answer[f"parameters/{name}"] = np.asarray(parameters.get(name, fields.dt), np.float64)
    return answer


def _summed(forecasts: Iterator[Forecast], keep: bool) -> tuple[dict[str, Tensor], Forecast]:
    """The mean of the members (steps, Q, C), their standard deviation, and where asked for all of them.

    One at a time (Welford's recurrence), so that many members take no more memory than one. Of points that move, the
    places are the first member's.
    """
    first = next(forecasts)
    mean, squares, count = first.values[0].double(), torch.zeros_like(first.values[0], dtype=torch.float64), 1
    kept = [first.values[0]] if keep else []
    for each in forecasts:
        values, count = each.values[0].double(), count + 1
        change = values - mean
        mean = mean + change / count
        squares += change * (values - mean)
        if keep:
            kept.append(each.values[0])
    found = {"fields": mean.float() if count > 1 else first.values[0]}
    found["deviations"] = (squares / max(count - 1, 1)).sqrt().float()
    return (found | {"members": torch.stack(kept)} if keep else found), first


def _provenance(
    asked: Asked, bundle: Bundle, way: Way, start: Start, parameters: Mapping[str, float], steps: int
) -> dict[str, Any]:
    """What a forecast was made of, so that it can be made again."""
    description = bundle.description
    folder = asked.bundle / "bundle" if (asked.bundle / "bundle" / DESCRIPTION).is_file() else asked.bundle
    return {
        "recipe": bundle.recipe.run.name,
        "bundle": {
            "path": str(folder.absolute()),
            "weights": description["sha256"][WEIGHTS],
            "description": hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest(),
        },
        "task": asked.task,
        "input": start.source,
        "points": asked.points,
        "steps": steps,
        "forecast": {"use": way.use, "steps": way.steps, "members": asked.members, "seed": asked.seed},
        "parameters": {name: parameters.get(name, bundle.fields.dt) for name in parameters},
        "versions": {
            "ups_kit": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def parameter_of(text: str) -> tuple[str, float]:
    """`name=value` of --parameter. Raises UsageError."""
    name, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not equals or not name.strip() or not math.isfinite(number):
        raise UsageError(f"--parameter '{text}': expected NAME=NUMBER, for example {name.strip() or 'epsilon'}=0.01")
    return name.strip(), number
