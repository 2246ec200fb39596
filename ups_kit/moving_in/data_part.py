"""The `[dataset]` of an imported recipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ..errors import Problem, RecipeError, did_you_mean
from .settings import Settings
from .tasks import TASKS, Kind, Task

STORES: dict[Kind, str] = {"grid": "grid_zarr", "mesh": "mesh_zarr", "particles": "particle_zarr"}
SEED = 2022  # of the first simulated task
HELD_OUT = ((50, 100), (10, 20), (4, 8), (1, 2))  # trajectories of validation and test: the default, then for fewer
GridOf = Callable[[Mapping[str, Any]], tuple[int, ...] | None]


@frozen
class Data:
    """The dataset's table, and what the rest of the recipe is to know of the data."""

    table: dict[str, Any]
    tasks: dict[str, Task]
    grids: tuple[tuple[int, ...], ...]  # of the tasks, where they are known

    @property
    def first(self) -> Task:
        return next(iter(self.tasks.values()))

    @property
    def kind(self) -> Kind:
        return self.first.kind

    @property
    def steady(self) -> bool:
        return self.first.steady


def data_part(settings: Settings, folder: Path, grid_of: GridOf, held_out: tuple[int, int]) -> Data:
    """The data of a configuration; paths are written from `folder`, where the recipe will lie.

    `grid_of` tells the points along each axis of the data of a dataset's table, None where they are not there.
    `held_out` are the trajectories of validation and test, of data that are not simulated.
    """
    tasks = _tasks(settings)
    if tasks:
        tables = {
            name: _task_table(settings, name, task, folder, number) for number, (name, task) in enumerate(tasks.items())
        }
    else:
        tasks, tables = _store(settings, folder)
    for name, table in tables.items():
        if not tasks[name].steady and (stride := settings.take("training.time_stride")) != 1:
            table["time_stride"] = stride
        if held_out != HELD_OUT[0] and "simulate" not in table:
            table["validation"], table["test"] = held_out
            settings.add(
                f"{table['path']} has few trajectories: {held_out[0]} are for validation, {held_out[1]} for tests"
            )
    grids = tuple(
        grid
        for name, table in tables.items()
        if (grid := tasks[name].grid if "simulate" in table else grid_of(_from(folder, table))) is not None
    )
    if len(tables) == 1:
        return Data(next(iter(tables.values())), tasks, grids)
    return Data({"use": "mixture", "tasks": tables}, tasks, grids)


def _tasks(settings: Settings) -> dict[str, Task]:
    """The tasks that one recipe can hold, by name: those that are alike the first in dimensions and in time."""
    written = settings.take("data.task")
    names = [written] if isinstance(written, str) else list(written or ())
    found: dict[str, Task] = {}
    left_out = []
    for name in names:
        task = TASKS.get(name)
        if task is None:
            settings.add(
                f"data.task '{name}' is no task of the ancestor's{did_you_mean(name, TASKS)}: read as fields on a grid"
            )
            task = Task(None)
        first = next(iter(found.values()), task)
        if (task.kind, task.steady) == (first.kind, first.steady) and task.dims in (first.dims, None):
            found[name] = task
        else:
            left_out.append(name)
    if left_out:
        alike = f"alike {next(iter(found))} in dimensions, in kind and in whether they are steady"
        settings.add(f"data.task: a mixture holds tasks {alike}; import a run of its own for {', '.join(left_out)}")
    return found


def _task_table(settings: Settings, name: str, task: Task, folder: Path, number: int) -> dict[str, Any]:
    ending = "h5" if task.kind == "grid" else "zarr"
    root = settings.take("data.root")
    path = _joined(root if root is not None else "data", f"{name}.{ending}")
    use = "pdebench" if task.kind == "grid" else STORES[task.kind]
    table: dict[str, Any] = {"use": use, "path": seen_from(folder, path)}
    if task.simulate and not Path(path).exists():
        table["simulate"] = {**task.simulate, "seed": SEED + number}
        settings.add(
            f"{path} is not there, and its table `simulate` makes it; take that out where you put a file of your own"
        )
    elif not Path(path).exists() and "://" not in path:
        settings.add(f"{path} is not there yet, and no simulator makes it: put PDEBench's file or a store there")
    return table


def _store(settings: Settings, folder: Path) -> tuple[dict[str, Task], dict[str, dict[str, Any]]]:
    """What `data.kind` and `data.path` name. Raises RecipeError where neither a task nor a path is written."""
    path = settings.take("data.path")
    if path is None:
        message = "missing; expected a task, for example burgers1d, or data.path with data.kind"
        raise RecipeError(settings.source, [Problem("data.task", message)])
    kind = settings.take("data.kind")
    group = settings.take("data.group")
    whole = _joined(path, group) if group else path
    return {"data": Task(None, kind)}, {"data": {"use": STORES[kind], "path": seen_from(folder, whole)}}


def _joined(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(Path(folder) / name)


def seen_from(folder: Path, path: str) -> str:
    """A path from the working directory as the recipe names it; absolute ones and addresses stay as they are."""
    if "://" in path or Path(path).is_absolute():
        return path
    return Path(os.path.relpath(Path(path).absolute(), folder.absolute())).as_posix()


def _from(folder: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's table, its path absolute."""
    path = str(table["path"])
    return {**table, "path": path if "://" in path else os.path.normpath(folder.absolute() / path)}
