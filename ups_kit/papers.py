"""The papers of a run: its recipe as written and as resolved, what it ran on, and what of it may change on the way."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import torch
from attrs import field, frozen

from . import __version__
from .console import Console
from .differences import ABSENT, PLACES, Difference, default_paths, differences
from .errors import UsageError, did_you_mean
from .fit.settings import FitSettings
from .folder import RECORD, RECORD_FORMAT, RunFolder, read_json, read_record, write_json, write_text
from .interfaces import AddsPart
from .keypaths import render
from .recipe import AnyRecipe
from .stage_keys import WATCHED, moved_on

if TYPE_CHECKING:
    from .assemble import AnyExperiment


@frozen
class Papers:
    """What a run is started or resumed with: its recipe as it is `resolved`, and the text it was read from."""

    experiment: AnyExperiment
    resolved: Mapping[str, Any]
    text: str | None = None
    allow_changed: Sequence[str] = ()
    course: Mapping[str, Any] = field(factory=dict)  # of a run that takes stages from another one

    def write(self, folder: RunFolder, resume: bool) -> dict[str, Any]:
        """Write them, and return the record; a resumed run must still be the same one.

        Raises UsageError where the recipe has changed in what was computed by it and the change is not allowed.
        """
        record: dict[str, Any] = {"format": RECORD_FORMAT, "ups_kit": __version__, **self.resolved}
        if self.course:
            record["course"] = dict(self.course)
        path = folder.path / RECORD
        if resume and path.exists():
            old = read_record(path)
            changes = accepted(folder, old, self.experiment.recipe, record["values"], self.allow_changed)
            if not changes:
                record = old
            else:
                record["changes"] = [*old.get("changes", []), *changes]
                record |= {"course": old["course"]} if "course" in old else {}
                write_json(path, record)
        else:
            text = self.text if self.text is not None else "# this run was started from Python\n"
            write_text(folder.path / "recipe.toml", text)
            write_json(path, record)
        _write_environment(folder, self.experiment, resume)
        return record


def _write_environment(folder: RunFolder, experiment: AnyExperiment, resume: bool) -> None:
    environment = {
        "ups_kit": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": str(experiment.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "plugins": {plugin.name: f"{plugin.distribution} {plugin.version}" for plugin in experiment.catalog.plugins},
    }
    path = folder.path / "environment.json"
    if resume and path.exists():
        old = read_json(path)
        plain = {name: new for name, new in environment.items() if name != "plugins"}
        changes = [f"{name} {old.get(name)} -> {new}" for name, new in plain.items() if old.get(name) != new]
        changes += moved_on(old.get("plugins", {}), experiment.recipe, experiment.catalog)
        if changes:
            Console().line(f"warning: resumed under other conditions, so not to the same bits: {'; '.join(changes)}")
    write_json(path, environment)


# ---------------------------------------------------------------------------------------------------------------------
# What may change between the start of a run and what goes on with it
# ---------------------------------------------------------------------------------------------------------------------
def changed_keys(recipe: AnyRecipe, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Where the values of a recipe differ from those of a run, but for places and what watches."""
    found = differences(old, new, default_paths(recipe))
    return [difference for difference in found if not difference.is_below(PLACES)]


def accepted(
    folder: RunFolder, old: Mapping[str, Any], recipe: AnyRecipe, values: Mapping[str, Any], allowed: Sequence[str]
) -> list[dict[str, Any]]:
    """The changes of a resumed recipe, for its record. Raises UsageError where one is neither safe nor allowed."""
    changes = changed_keys(recipe, old.get("values", {}), values)
    _refuse_unused(allowed, changes)
    progress = _Progress.of(folder, old.get("values", {}), recipe)
    refused = [each for each in changes if not (progress.is_safe(each) or each.is_below(allowed))]
    if refused:
        raise UsageError(_refusal(folder, refused, progress))
    for change in changes:
        Console().line(f"the recipe has changed: {change.told()}")
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    return [
        {
            "when": now,
            "path": change.path,
            "before": None if change.before is ABSENT else change.before,
            "after": None if change.after is ABSENT else change.after,
            "allowed": not progress.is_safe(change),
            "during": progress.under_way,
        }
        for change in changes
    ]


def changed_during(record: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """What was changed, by --allow-changed, while a stage was trained: by path, both values."""
    return {
        str(change["path"]): [change["before"], change["after"]]
        for change in record.get("changes", [])
        if change["allowed"] and change["during"] == stage
    }


@frozen
class _Progress:
    """How far the stages of a run are: in the run's order, and in that of the recipe now."""

    orders: tuple[tuple[str, ...], tuple[str, ...]]
    training: frozenset[str]
    adding: frozenset[str]  # those that may add a part to the model, whose weights every checkpoint holds
    begun: frozenset[str]
    done: frozenset[str]

    @classmethod
    def of(cls, folder: RunFolder, old: Mapping[str, Any], recipe: AnyRecipe) -> _Progress:
        before = tuple(str(stage.get("name")) for stage in old.get("stages", []))
        now = tuple(stage.name for stage in recipe.stages)
        names = {*before, *now}
        done = frozenset(name for name in names if (folder.path / name / "done.json").exists())
        begun = frozenset(name for name in names if any((folder.path / name / "checkpoints").glob("step_*")))
        training = frozenset(stage.name for stage in recipe.stages if isinstance(stage, FitSettings))
        plain = {stage.name for stage in recipe.stages if not isinstance(stage, AddsPart)}
        return cls((before, now), training, frozenset(names - plain), begun | done, done)

    @property
    def under_way(self) -> str | None:
        """The stage that is begun and not finished."""
        return next((name for name in self.orders[1] if name in self.begun - self.done), None)

    def is_safe(self, change: Difference) -> bool:
        """Whether nothing that was computed depends on a key: of a stage that is to come, or that only watches.

        A budget that grows is safe until the stage is finished.
        """
        name = self.stage_of(change)
        if name is None:
            return False
        own = f"stages.{render((name,))}"
        if name in self.training and change.is_below([f"{own}.{key}" for key in WATCHED]):
            return True
        later = [each for order in self.orders if name in order for each in order[order.index(name) + 1 :]]
        if self.begun.intersection(later) or (name in self.adding and self.under_way):
            return False
        return name not in self.begun or (name not in self.done and _grows(change, f"{own}.budget"))

    def stage_of(self, change: Difference) -> str | None:
        """The stage that a key belongs to, or None."""
        names = dict.fromkeys([name for order in self.orders for name in order])
        return next((name for name in names if change.is_below([f"stages.{render((name,))}"])), None)


def _grows(change: Difference, budget: str) -> bool:
    if not change.is_below([budget]) or not isinstance(change.before, (int, float)):
        return False
    return change.after is None or (isinstance(change.after, (int, float)) and change.after > change.before)


def _refuse_unused(allowed: Sequence[str], changes: Sequence[Difference]) -> None:
    for key in allowed:
        if not any(change.is_below([key]) for change in changes):
            paths = [change.path for change in changes]
            there = ", ".join(paths) or "nothing"
            raise UsageError(f"--allow-changed {key}: has not changed{did_you_mean(key, paths)} (changed: {there})")


def _refusal(folder: RunFolder, refused: Sequence[Difference], progress: _Progress) -> str:
    lines = "\n".join(f"  {change.told()}" for change in refused)
    flags = " ".join(f"--allow-changed {change.path}" for change in refused)
    return "\n".join(
        [
            f"{folder.path}: the recipe has changed since this run was started, so it cannot be resumed:\n{lines}",
            "undo the changes, or start a fresh run without --resume; "
            f"`upskit run {folder.path} --resume` continues it as it was",
            *_start_again(refused, progress),
            f"{flags} goes on all the same: what is finished stays as it was",
        ]
    )


def _start_again(refused: Sequence[Difference], progress: _Progress) -> Iterator[str]:
    """`--from` the first stage that the changes concern, where there are finished ones before it."""
    names = [progress.stage_of(change) for change in refused]
    order = progress.orders[1]
    if None in names or not all(name in order for name in names):
        return
    first = min(names, key=lambda name: order.index(str(name)))
    if progress.done.intersection(order[: order.index(str(first))]):
        yield f"--from {first}, in the place of --resume, keeps what is before it, in a new run folder"
