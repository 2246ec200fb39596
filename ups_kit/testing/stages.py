"""The contract of stages: what is trained on a tiny recipe, stopped, resumed, and told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ..assemble import Experiment, assemble, check
from ..errors import UpsKitError
from ..fit.fitting import Task
from ..fit.settings import FitSettings
from ..folder import RunFolder
from ..interfaces import FIELDS, PlansTraining, family_of
from ..trackers import Trackers
from .examples import overlaid, read, tiny_settings, versions
from .report import Broken, Skipped, expect, listed
from .subject import Clause, Subject, told
from .tiny import NAME, PLACES, Place, TinyOptimizerConfig, TinyStageConfig, tiny_recipe, tiny_training

STEPS = 4  # of a training; it is stopped in the third
CUT = 3
MOST_BEFORE = 2  # stages that may have to be run first


class _Cut(BaseException):
    """The process that trains dies here."""


class _Cutting(Trackers):
    """Trackers that end the process's work when a stage tells of a step."""

    def __init__(self, stage: str) -> None:
        super().__init__([])
        self._stage = stage

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if stage == self._stage and step >= CUT:
            raise _Cut


@frozen(eq=False)
class Trained:
    """A stage on some tiny data, behind the stages that it needs before it."""

    on: Place
    config: Any
    before: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Of the stage."""
        return str(self.config.name)

    def experiment(self, subject: Subject) -> Experiment:
        """Fresh weights, all stages before this one done."""
        recipe = tiny_recipe(subject.folder, self.on, [*self.before, self.config])
        with torch.random.fork_rng(devices=[]):
            experiment = assemble(recipe, subject.catalog)
            for config, stage in zip(self.before, experiment.stages):
                number = len(list(subject.folder.iterdir()))
                folder = _run_folder(subject, f"before{number}")
                stage.run(experiment, folder.stage(config.name), Trackers([]))
        return experiment

    def run(
        self, subject: Subject, experiment: Experiment, folder: RunFolder, resume: bool = False
    ) -> Mapping[str, Any]:
        """What the stage returns."""
        with torch.random.fork_rng(devices=[]):
            found: Mapping[str, Any] = experiment.stages[-1].run(
                experiment, folder.stage(self.name, resume), Trackers([])
            )
        return found


def _run_folder(subject: Subject, name: str) -> RunFolder:
    path = subject.folder / name
    path.mkdir(exist_ok=True)
    return RunFolder(path)


# ---------------------------------------------------------------------------------------------------------------------
# A recipe that the stage can stand in
# ---------------------------------------------------------------------------------------------------------------------
def _trained(subject: Subject) -> Trained:
    """The stage on the first tiny data that its recipe fits. Raises Broken where none does."""
    return subject.once("trained", lambda: _fitting(subject))


def _fitting(subject: Subject) -> Trained:
    own = _tiny(subject.kind, subject.name, subject.config, subject, subject.settings)
    others = list(_others(subject))
    refused = ""
    for count in range(MOST_BEFORE + 1):
        for before in itertools.permutations(others, count):
            for on in PLACES:
                problems = check(tiny_recipe(subject.folder, on, [*before, own]))
                if not problems:
                    subject.on[:] = [on]
                    if before:
                        names = ", ".join(stage.name for stage in before)
                        subject.notes.append(f"behind the {'stage' if count == 1 else 'stages'} {names}")
                    return Trained(on, own, before)
                refused = refused or f"{on}: {problems[0]}"
    raise Broken(
        f"no tiny recipe fits it, also behind others of {listed(config.name for config in others)}; {refused}",
        "give the class `tiny: ClassVar[Mapping[str, Any]]`, or the check `settings`, with which one does",
    )


def _tiny(kind: str, name: str, config: type, subject: Subject, settings: Mapping[str, Any]) -> Any:
    """A stage as it is tiny: a few steps of the tiny optimiser."""
    if issubclass(config, FitSettings):
        optimizer = subject.catalog.locate(TinyOptimizerConfig(), "optimizer").name
        short = {**tiny_training(STEPS), "optimizer": {"use": optimizer}}
        settings = overlaid(overlaid(short, tiny_settings(config)), settings)
    return read(kind, name, next(versions(config, settings, defaults_first=False)), subject.catalog)


def _others(subject: Subject) -> Iterator[Any]:
    """Stages that may come before: the tiny one, those of the same plugin, all others."""
    entries = [entry for entry in subject.catalog["stage"].values() if family_of(entry.config) == FIELDS]
    entries.sort(key=lambda entry: (entry.config is not TinyStageConfig, entry.plugin != subject.plugin, entry.name))
    for entry in entries:
        if entry.config is not subject.config:
            try:
                yield _tiny(
                    "stage", entry.name, entry.config, subject, {"name": entry.name} if entry.name != NAME else {}
                )
            except (Broken, UpsKitError):
                continue  # a fault of that stage, which its own check tells


# ---------------------------------------------------------------------------------------------------------------------
# The clauses
# ---------------------------------------------------------------------------------------------------------------------
def _weights(experiment: Experiment) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in experiment.model.state_dict().items()}


def _done(subject: Subject) -> tuple[dict[str, Tensor], dict[str, Tensor], Mapping[str, Any]]:
    """The weights before and after a run of the stage, and what it returned: run once for all clauses."""

    def run() -> tuple[dict[str, Tensor], dict[str, Tensor], Mapping[str, Any]]:
        trained = _trained(subject)
        experiment = trained.experiment(subject)
        before = _weights(experiment)
        result = trained.run(subject, experiment, _run_folder(subject, "whole"))
        return before, _weights(experiment), result

    return subject.once("done", run)


def runs(subject: Subject) -> str | None:
    """It runs on a tiny recipe, and returns what JSON can hold."""
    _, after, result = _done(subject)
    expect(isinstance(result, Mapping), f"run gives a {type(result).__name__}", "return a mapping for the summary")
    try:
        json.dumps(dict(result))
    except (TypeError, ValueError) as error:
        raise Broken(f"what run returns is not JSON: {error}", "float(…), int(…), or lists of these") from error
    for name, value in after.items():
        expect(not value.is_floating_point() or torch.isfinite(value).all(), f"{name} is not finite afterwards")
    return None


def trains(subject: Subject) -> str | None:
    """A training stage changes weights, and those of parts that it does not train it leaves as they are."""
    config = _trained(subject).config
    if not isinstance(config, FitSettings):
        raise Skipped("it trains nothing")
    before, after, _ = _done(subject)
    moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
    expect(moved, "no weight of the model has changed", "train experiment.model in place")
    said = getattr(config, "trains", None)
    if said is not None:
        wrong = [name for name in moved if name.split(".")[0] not in (*said, "added")]
        expect(not wrong, f"trains = {tuple(said)!r}, and {listed(wrong)} has changed", "freeze what is not trained")
    return f"{len(moved)} of {len(after)} tensors"


def resumes(subject: Subject) -> str | None:
    """Stopped in the middle and resumed from its checkpoint, it ends with the same bits."""
    trained = _trained(subject)
    if not isinstance(trained.config, FitSettings):
        raise Skipped("it trains nothing")
    _, whole, _ = _done(subject)
    folder, experiment, name = _run_folder(subject, "cut"), trained.experiment(subject), trained.name
    try:
        with torch.random.fork_rng(devices=[]):
            experiment.stages[-1].run(experiment, folder.stage(name), _Cutting(name))
        raise Skipped(f"it told its trackers of no step from {CUT} on, and could not be stopped there")
    except _Cut:
        pass
    again = trained.experiment(subject)
    trained.run(subject, again, folder, resume=True)
    other = [name for name, value in _weights(again).items() if not torch.equal(value, whole[name])]
    expect(
        not other,
        f"{listed(other)} differs after step {CUT - 1} was resumed",
        "train with ups_kit.fit.loop.fit, draw from (seed, stage, step), and name in `Task.state` what else changes",
    )
    return None


def repeats(subject: Subject) -> str | None:
    """Run again with the same weights and data, it returns the same numbers."""
    trained = _trained(subject)
    _, _, first = _done(subject)
    if isinstance(trained.config, FitSettings):
        return "shown by the resumed run"
    second = trained.run(subject, trained.experiment(subject), _run_folder(subject, "again"))
    one, other = (json.dumps(_timeless(dict(result)), sort_keys=True) for result in (first, second))
    expect(one == other, "other numbers the second time", "draw by a seed, and keep no state")
    return None


def _timeless(value: Any) -> Any:
    """Without what depends on the clock."""
    if isinstance(value, Mapping):
        clock = ("second", "time", "speed", "wall", "ms", "rate")
        return {name: _timeless(inner) for name, inner in value.items() if not any(word in str(name) for word in clock)}
    return [_timeless(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def plans(subject: Subject) -> str | None:
    """What it would train can be shown without training: `task` gives a Task, and changes no other weights."""
    trained = _trained(subject)
    experiment = trained.experiment(subject)
    stage = experiment.stages[-1]
    if not isinstance(stage, PlansTraining):
        raise Skipped("it has no `task` for `upskit plan`")
    before = _weights(experiment)
    try:
        with stage.task(experiment) as task:
            expect(isinstance(task, Task), f"task gives a {type(task).__name__}", "yield the Task that run fits")
    except UpsKitError as error:
        raise Skipped(told(error)) from error
    frozen = [name for name, weight in experiment.model.named_parameters() if not weight.requires_grad]
    expect(not frozen, f"afterwards {listed(frozen)} is still frozen", "use fit.fitting.frozen_parts")
    started, ended, _ = _done(subject)
    trained_names = {name for name, value in ended.items() if not torch.equal(value, started[name])}
    moved = [name for name, value in _weights(experiment).items() if not torch.equal(value, before[name])]
    wrong = [name for name in moved if name not in trained_names]
    expect(not wrong, f"{listed(wrong)} has changed, which it does not train", "calibrate and train in run alone")
    return None


CLAUSES: Mapping[str, Clause] = {
    "runs": runs,
    "trains": trains,
    "resumes": resumes,
    "deterministic": repeats,
    "plans": plans,
}
