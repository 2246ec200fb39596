"""What a tracker may take besides numbers and pictures: protocols that it may fulfil, and need not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from attrs import frozen

from ..keypaths import labels, render

Plain = bool | int | float | str


@frozen
class TrackedRun:
    """A run as a tracker hears of it at its beginning.

    `recipe` holds every value of the recipe with its defaults, as `resolved.json` does. `resumed`: an earlier process
    has written into the folder, and this one goes on with it.
    """

    name: str
    folder: Path
    resumed: bool
    recipe: Mapping[str, Any]

    def plain(self) -> dict[str, Plain]:
        """The recipe's values by key path, `stages.operator.budget.steps`; arrays as JSON text, and no absent ones."""
        return dict(_plain(self.recipe, ()))


@frozen
class StageEvent:
    """Something that happened to a stage, with what there is to say of it; `text` may have several lines."""

    kind: Literal["began", "finished", "stopped_early", "diverged", "preempted", "interrupted", "failed"]
    text: str = ""


@frozen
class Artefact:
    """A file or folder of the run that is whole.

    `checkpoint`: a training's state, by which it is resumed; `best`: the weights that have done best so far; `weights`:
    those of a finished stage; `bundle`: the model, for `upskit predict`; `report`: a page. Checkpoints and best weights
    are deleted when newer ones count: who wants to keep one copies it before returning.
    """

    kind: Literal["checkpoint", "best", "weights", "bundle", "report"]
    path: Path
    step: int | None = None
    score: float | None = None  # on validation, of best weights; lower is better


@frozen
class Table:
    """Rows of numbers and texts under named columns, such as a score card; None where there is no number."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


@runtime_checkable
class FollowsRuns(Protocol):
    """A tracker that is told when the run begins and ends."""

    def begin(self, run: TrackedRun) -> None:
        """Called once, before anything else."""
        ...

    def end(self, status: str, metrics: Mapping[str, float]) -> None:
        """Called once, before `close`, unless the process is killed.

        `status` is the word that the folder's STATUS holds, and `metrics` are what is known of the model by then:
        the evaluation's numbers (`one_step/nrmse`) and each stage's best validation score (`operator/best_score`).
        """
        ...


@runtime_checkable
class FollowsStages(Protocol):
    """A tracker that is told how stages begin and end."""

    def event(self, stage: str, event: StageEvent) -> None: ...


@runtime_checkable
class KeepsTables(Protocol):
    """A tracker that has a place for tables."""

    def table(self, stage: str, step: int, name: str, table: Table) -> None: ...


@runtime_checkable
class KeepsArtefacts(Protocol):
    """A tracker that is told of files when they are whole, so that it can copy them elsewhere."""

    def artefact(self, stage: str, artefact: Artefact) -> None: ...


@runtime_checkable
class TellsLines(Protocol):
    """A tracker that shows whoever watches what is going on now."""

    def line(self, text: str) -> None: ...


@runtime_checkable
class Forgets(Protocol):
    """A tracker that can drop what a resumed stage will write again."""

    def forget_after(self, stage: str, step: int) -> None:
        """Drop everything of a stage that came after a step; all of it where the step is -1."""
        ...


def _plain(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, Plain]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _plain(inner, (*path, str(key)))
    elif isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
        for label, inner in zip(labels(value), value):
            yield from _plain(inner, (*path, label))
    elif isinstance(value, (list, tuple)):
        yield render(path), json.dumps(value, default=str)
    elif isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        yield render(path), value
    elif value is not None:
        yield render(path), str(value)
