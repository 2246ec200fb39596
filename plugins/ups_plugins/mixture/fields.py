"""The fields of a mixture: the union of its tasks', and what keeps tasks from being put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from attrs import evolve

from ups_kit import DataError, Field, FieldSpec, LatentSpec
from ups_kit.interfaces import Checks

from .config import MixtureConfig

COLUMN = "task:"  # how a task's column of the condition begins, as `ups_kit.tasks` has it
Specs = Mapping[str, FieldSpec]


@contextmanager
def of_task(name: str) -> Iterator[None]:
    """A DataError of a task names its key from the mixture's table on, and the task in its message."""
    try:
        yield
    except DataError as error:
        key = f"tasks.{name}.{error.key}" if error.key else f"tasks.{name}"
        raise DataError(str(error), key) from error


def described(config: MixtureConfig) -> dict[str, FieldSpec]:
    """What each task's data are, from headers alone. Raises DataError at the task's key."""
    specs = {}
    for name, task in config.tasks.items():
        with of_task(name):
            specs[name] = task.describe()
    return specs


def task_problems(config: MixtureConfig, latent: LatentSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with the tasks' own keys, as `check` yields it."""
    for name, task in config.tasks.items():
        if not isinstance(task, Checks):
            continue
        with of_task(name):
            for key, message in task.check(task.describe(), latent):
                yield (f"tasks.{name}.{key}" if key else f"tasks.{name}"), message


def on_own_grids(specs: Specs) -> dict[str, FieldSpec]:
    """The fields of the whole, on each task's own grid."""
    whole = union(specs)
    return {name: evolve(whole, grid=own.grid, dt=own.dt, sampled=own.sampled) for name, own in specs.items()}


def union(specs: Specs) -> FieldSpec:
    """The fields of a mixture of such data. Raises DataError with everything in which the tasks differ and must not.

    A grid's points are taken for the middles of their cells, whatever the tasks' own offsets are: where the first cell
    begins is a matter of words on a periodic axis, and half a spacing on another.
    """
    problems = [*_differences(specs), *_clashes("targets", specs), *_clashes("statics", specs), *_reserved(specs)]
    if problems:
        lines = "".join(f"\n    {problem}" for problem in problems)
        raise DataError(f"these tasks cannot be trained together; expected data that agree:{lines}", "tasks")
    first = next(iter(specs.values()))
    parameters = dict.fromkeys(name for own in specs.values() for name in own.conditions[1:])
    sampled = [own.sampled for own in specs.values() if own.sampled is not None]
    return FieldSpec(
        targets=_fields(own.targets for own in specs.values()),
        statics=_fields(own.statics for own in specs.values()),
        domain=((0.0, 1.0),) * first.space_dims,
        periodic=first.periodic,
        layout=first.layout,
        grid=first.grid,
        dt=first.dt,
        history=first.history,
        conditions=("dt", *parameters, *(f"{COLUMN}{name}" for name in specs)),
        offset=0.5 if first.grid is not None else first.offset,
        sampled=sampled[0] if sampled else None,
    )


def _fields(tasks: Iterable[tuple[Field, ...]]) -> tuple[Field, ...]:
    """The fields of all tasks, each name once, in the order of their first appearance."""
    found: dict[str, Field] = {}
    for fields in tasks:
        for field in fields:
            found.setdefault(field.name, field)
    return tuple(found.values())


def _differences(specs: Specs) -> Iterator[str]:
    """What must be the same in all tasks and is not."""
    aspects: dict[str, Callable[[FieldSpec], str]] = {
        "space dimensions": lambda own: f"{own.space_dims}D",
        "layouts": lambda own: own.layout,
        "kinds of data": lambda own: "steady" if own.steady else "a time series",
    }
    if len({own.space_dims for own in specs.values()}) == 1:
        aspects["periodic axes"] = _periodicity
    if len({own.steady for own in specs.values()}) == 1:  # steady data are given no frame
        aspects["frames given (history)"] = lambda own: str(own.history)
    for aspect, of in aspects.items():
        found = {name: of(own) for name, own in specs.items()}
        if len(set(found.values())) > 1:
            yield f"{aspect}: " + ", ".join(f"tasks.{name} {value}" for name, value in found.items())


def _periodicity(own: FieldSpec) -> str:
    return f"({', '.join('periodic' if wraps else 'bounded' for wraps in own.periodic)})"


def _clashes(kind: str, specs: Specs) -> Iterator[str]:
    """Fields of one name that are not the same field."""
    firsts: dict[str, tuple[str, Field]] = {}
    for name, own in specs.items():
        for field in getattr(own, kind):
            task, other = firsts.setdefault(field.name, (name, field))
            for aspect in ("channels", "unit"):
                there, here = getattr(other, aspect), getattr(field, aspect)
                if there != here:
                    yield (
                        f"{aspect} of the field '{field.name}': tasks.{task} {there}, tasks.{name} {here} "
                        "(give fields that are not the same other names)"
                    )


def _reserved(specs: Specs) -> Iterator[str]:
    """Fields that are predicted in one task and given in another, and parameters with a name of a task's column."""
    targets = {field.name: name for name, own in specs.items() for field in own.targets}
    for name, own in specs.items():
        for field in own.statics:
            if field.name in targets:
                yield f"the field '{field.name}': predicted in tasks.{targets[field.name]}, given in tasks.{name}"
        for parameter in own.conditions:
            if parameter.startswith(COLUMN):
                yield f"the parameter '{parameter}' of tasks.{name}: names that begin with '{COLUMN}' tell tasks apart"
