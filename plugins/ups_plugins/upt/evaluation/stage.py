"""The stage `evaluate`, as a sequence of measurements."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ups_kit.folder import StageFolder, write_text
from ups_kit.trackers import Trackers

from .card import LATENT, REENCODED, Card, columns, definition, print_card, row, verdict
from .config import EvaluateConfig
from .facts import read_facts
from .measurement import Measured, measure
from .pictures import draw_pictures
from .report import report_page
from .scores import finite, ratio

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment


class Evaluation:
    """Measures a trained model and reports it; trains nothing."""

    def __init__(self, config: EvaluateConfig) -> None:
        self._config = config

    def run(self, experiment: Experiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Evaluate the experiment's model; writes `report.html` and returns what the summary shall hold.

        Raises UpsKitError where a loss of the recipe does not reach what it declares to reach, and DataError where the
        split has nothing to score.
        """
        started = time.perf_counter()
        trajectories = len(experiment.dataset.splits[self._config.split])
        trackers.line(f"{self._config.name}  rollouts of {trajectories} trajectories")
        measured = measure(experiment, self._config)
        card = _card(measured, self._config)
        result = _result(measured, card)
        _track(measured, trackers, self._config.name)
        print_card(card)
        facts = read_facts(experiment, folder, time.perf_counter() - started)
        pictures = draw_pictures(measured, facts.history) if self._config.pictures else {}
        for name, figure in pictures.items():
            trackers.figure(self._config.name, 0, name, figure)
        write_text(folder.run.report, report_page(facts, card, result, pictures))
        return result


def _card(measured: Measured, config: EvaluateConfig) -> Card:
    steps = measured.truth.steps
    rows = [
        row(LATENT, measured.one_step, measured.latent, steps, True),
        row(REENCODED, measured.one_step, measured.reencoded, steps, True),
        *(row(name, found.one_step, found.rollout, steps, False) for name, found in measured.floors.items()),
    ]
    return Card(
        columns(steps),
        tuple(rows),
        definition(measured.truth, config.split, measured.tokens),
        measured.budget,
        measured.shuffle,
        measured.reach,
        ratios(measured),
        verdict(
            *((LATENT, measured.latent) if config.judged == "latent" else (REENCODED, measured.reencoded)),
            {name: found.rollout for name, found in measured.floors.items()},
            config.require_beating,
        ),
    )


def ratios(measured: Measured) -> dict[str, float | None]:
    """The model's nRMSE over those that it is most often held against."""
    persistence = measured.floors["persistence"]
    return {
        "one step / persistence": ratio(measured.one_step.mean, persistence.one_step.mean),
        "latent rollout / persistence": ratio(measured.latent.mean, persistence.rollout.mean),
        "latent rollout / re-encoded rollout": ratio(measured.latent.mean, measured.reencoded.mean),
    }


def _result(measured: Measured, card: Card) -> dict[str, Any]:
    """The stage's part of `summary.json`."""
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
        "shuffle": measured.shuffle.summary(),
        "reach": reach,
        "card": card.summary(),
    }


def _track(measured: Measured, trackers: Trackers, stage: str) -> None:
    """The numbers to the trackers: one value of each metric, and nRMSE and VRMSE over the steps."""
    scores = {"one_step": measured.one_step, "latent_rollout": measured.latent, "reencoded_rollout": measured.reencoded}
    values = {
        f"{kind}/{name}": value
        for kind, found in scores.items()
        for name, value in found.summary.items()
        if isinstance(value, float)
    }
    trackers.scalars(stage, 0, values)
    for step in range(1, measured.truth.steps + 1):
        curves = {
            f"{kind}/curve_{name}": finite(curve[:, step - 1].mean().item())
            for kind, found in scores.items()
            for name, curve in (("nrmse", found.nrmse), ("vrmse", found.vrmse))
        }
        trackers.scalars(stage, step, {name: value for name, value in curves.items() if value is not None})
