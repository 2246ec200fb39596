"""The stage `evaluate`, as a sequence of measurements."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from ups_kit.fit.batches import check_length
from ups_kit.folder import RunFolder, StageFolder, write_text
from ups_kit.interfaces import Artefact, Elsewhere, Multitask
from ups_kit.tasks import model_for, tasks_of
from ups_kit.trackers import Trackers

from .animation import animate
from .card import Card, make_card
from .choice import over_tasks
from .config import EvaluateConfig
from .facts import read_facts
from .measurement import Measured, measure
from .pictures import draw_pictures, draw_training
from .printing import print_card, print_tasks
from .report import Chapter, report_page
from .scores import Summary, finite

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from ups_kit.assemble import Experiment


class Evaluation:
    """Measures a trained model and reports it; trains nothing."""

    def __init__(self, config: EvaluateConfig) -> None:
        self._config = config

    def check_ahead(self, experiment: Experiment) -> None:
        """There are trajectories as long as they are asked for."""
        config = self._config
        check_length(experiment.dataset, config.steps or 0, f"stages.{config.name}.steps", config.split)

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Evaluate the experiment's model; writes `report.html` and returns what the summary shall hold.

        With pictures, the median rollout of two and three dimensions is an animation in the stage's folder, too.
        A data set of several tasks is evaluated task by task. Raises UpsKitError where a loss of the recipe does not
        reach what it declares to reach, and DataError where the split has nothing to score.
        """
        config, started = self._config, time.perf_counter()
        evaluated = {name: self._evaluate(part, name, trackers) for name, part in _tasks(experiment).items()}
        cards = {name: found.card for name, found in evaluated.items()}
        result = _whole(evaluated)
        if "" in cards:
            print_card(cards[""])
        else:
            print_tasks(cards, result["card"]["verdict"], result["status"], result["card"].get("default", ""))
        facts = read_facts(experiment, folder, time.perf_counter() - started)
        training = draw_training(facts.history) if config.pictures else {}
        chapters = [
            Chapter(
                name,
                found.card,
                found.result,
                self._pictures(found.measured),
                self._animation(found.measured, folder.path / f"rollout_median{f'_{name}' if name else ''}.gif"),
            )
            for name, found in evaluated.items()
        ]
        for name, figure in {**training, **_named(chapters)}.items():
            trackers.figure(config.name, 0, name, figure)
        write_text(folder.run.report, report_page(facts, chapters, result, training))
        trackers.artefact(config.name, Artefact("report", folder.run.report))
        return result

    def transfer(
        self, experiment: Experiment, asked: Sequence[Elsewhere], folder: RunFolder, trackers: Trackers
    ) -> Mapping[str, Any]:
        """The model on other points than the data's own; writes `transfer.json` and `transfer.html`.

        Raises UsageError with everything that cannot be had, before any state is read.
        """
        from .transfer.running import run_transfer

        return run_transfer(experiment, self._config, asked, folder, trackers)

    def finer(
        self, experiment: Experiment, factors: Sequence[int], folder: RunFolder, trackers: Trackers
    ) -> Mapping[str, Any]:
        """The model decoded at finer points of the same files; writes `finer.json` and `finer.html`.

        Raises UsageError with everything that cannot be had, before any state is read.
        """
        from .finer.running import run_finer

        return run_finer(experiment, self._config, factors, folder, trackers)

    def _evaluate(self, experiment: Experiment, task: str, trackers: Trackers) -> Evaluated:
        """One task, or all there is."""
        config = self._config
        held = len(experiment.dataset.splits[config.split])
        count = held if config.trajectories is None else min(held, config.trajectories)
        kind = "answers of" if experiment.dataset.fields.steady else "rollouts of"
        of = f" of the task {task}" if task else ""
        samples = "samples" if experiment.dataset.fields.steady else "trajectories"
        trackers.line(f"{config.name}  {kind} {count} {samples}{of}")
        measured = measure(experiment, config)
        card = make_card(measured, config)
        _track(measured, trackers, config.name, f"{task}/" if task else "")
        for name, table in card.tables().items():
            trackers.table(config.name, 0, f"{task}/{name}" if task else name, table)
        return Evaluated(measured, card, _result(measured, card) | _drawn(measured, config.split))

    def _pictures(self, measured: Measured) -> dict[str, Figure]:
        return draw_pictures(measured) if self._config.pictures else {}

    def _animation(self, measured: Measured, path: Path) -> bytes | None:
        return animate(measured, path) if self._config.pictures else None


@frozen(eq=False)
class Evaluated:
    """What came of one task."""

    measured: Measured
    card: Card
    result: dict[str, Any]


def _tasks(experiment: Experiment) -> dict[str, Experiment]:
    """One experiment for each task by its name; one without a name where there are no tasks."""
    dataset, model = experiment.dataset, experiment.model
    if not isinstance(dataset, Multitask):
        return {"": experiment}
    return {
        name: evolve(experiment, dataset=own, model=model_for(name, dataset, model))
        for name, own in tasks_of(dataset).items()
    }


def _named(chapters: list[Chapter]) -> dict[str, Figure]:
    """All pictures, those of a task under its name."""
    return {
        f"{chapter.task}/{name}" if chapter.task else name: figure
        for chapter in chapters
        for name, figure in chapter.pictures.items()
    }


def _result(measured: Measured, card: Card) -> dict[str, Any]:
    """The stage's part of `summary.json`; of steady data the three forecasts are one."""
    reach: dict[str, dict[str, object]] = {}
    for line in measured.reach:
        reach.setdefault(line.stage, {})[line.loss] = line.summary()
    return {
        "status": card.verdict.status,
        "metrics": {
            "one_step": measured.one_step.summary,
            "latent_rollout": measured.latent.summary,
            "reencoded_rollout": measured.reencoded.summary,
        },
        "floors": {
            name: {"one_step": found.one_step.summary, "rollout": found.rollout.summary}
            for name, found in measured.floors.items()
        },
        "budget": dict(measured.budget),
        "shuffle": {
            **measured.shuffle.summary("parameters"),
            "statics": measured.shuffle_statics.summary("fields"),
        },
        "reach": reach,
        "card": card.summary(),
    }


def _drawn(measured: Measured, split: str) -> dict[str, Any]:
    """The numbers of forecasts that parts of the model draw, and the bundle's default; nothing where none does."""
    if measured.ensembles is None:
        return {}
    return {"ensembles": measured.ensembles.summary(split), "forecast": measured.ensembles.choice.forecast}


def _whole(evaluated: Mapping[str, Evaluated]) -> dict[str, Any]:
    """The result of the only task, or those of all of them and their means."""
    if "" in evaluated:
        return evaluated[""].result
    results = {name: found.result for name, found in evaluated.items()}
    below = [name for name, result in results.items() if result["status"] != "ok"]
    text = "; ".join(f"{name}: {result['card']['verdict']}" for name, result in results.items())
    kinds = next(iter(results.values()))["metrics"]
    choices = [found.measured.ensembles.choice for found in evaluated.values() if found.measured.ensembles is not None]
    choice = over_tasks(choices) if choices else None
    default = {} if choice is None else {"default": f"default of all tasks: {choice.default.name}: {choice.why}"}
    return {
        **({} if choice is None else {"forecast": choice.forecast}),
        "status": "below_floor" if below else "ok",
        "metrics": {kind: _mean([result["metrics"][kind] for result in results.values()]) for kind in kinds},
        "tasks": results,
        "card": {
            "definition": {"metrics": f"the mean over the tasks {', '.join(results)}, of the numbers that all have"},
            **default,
            "verdict": text if not below else f"below_floor in {', '.join(below)}; {text}",
        },
    }


def _mean(summaries: list[Summary]) -> Summary:
    """The mean of every single number that all tasks have; none where one of them is not finite."""
    means: Summary = {}
    for name in summaries[0]:
        values = [summary.get(name, []) for summary in summaries]
        if any(isinstance(value, list) for value in values):
            continue
        numbers = [value for value in values if isinstance(value, float)]
        means[name] = sum(numbers) / len(numbers) if len(numbers) == len(values) else None
    return means


def _track(measured: Measured, trackers: Trackers, stage: str, prefix: str) -> None:
    """The numbers to the trackers: one value of each metric, and nRMSE and VRMSE over the steps of a rollout."""
    steady = measured.truth.fields.steady
    scores = {"one_step": measured.one_step}
    if not steady:
        scores |= {"latent_rollout": measured.latent, "reencoded_rollout": measured.reencoded}
    values = {
        f"{prefix}{kind}/{name}": value
        for kind, found in scores.items()
        for name, value in found.summary.items()
        if isinstance(value, float)
    }
    if measured.ensembles is not None:
        values |= {
            f"{prefix}ensembles/{variant.name}/{name}": value
            for variant, score in measured.ensembles.scores.items()
            for name, value in score.summary.items()
            if isinstance(value, float)
        }
    trackers.scalars(stage, 0, values)
    for step in () if steady else range(1, measured.truth.steps + 1):
        curves = {
            f"{prefix}{kind}/curve_{name}": finite(curve[:, step - 1].mean().item())
            for kind, found in scores.items()
            for name, curve in (("nrmse", found.nrmse), ("vrmse", found.vrmse))
        }
        for kind, found in scores.items():
            places = found.summary.get("curve_position_mse")
            if isinstance(places, list):
                curves[f"{prefix}{kind}/curve_position_mse"] = places[step - 1]
        trackers.scalars(stage, step, {name: value for name, value in curves.items() if value is not None})
