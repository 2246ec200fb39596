"""The stage `token_evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from ups_kit.comparing.runs import read_history
from ups_kit.errors import UsageError
from ups_kit.folder import StageFolder, write_text
from ups_kit.trackers import Trackers

from ..dataset import TokenDataset
from ..model.transformer import TokenTransformer
from ..training.config import TokenTrainingConfig
from ..training.forward import token_terms
from ..training.validation import TokenValidation
from .card import Card, make_card, title
from .config import TokenEvaluationConfig
from .measuring import Measured, Numbers, measure
from .pictures import draw
from .report import report_page

if TYPE_CHECKING:
    from ups_kit.assemble import ModelExperiment


class TokenEvaluation:
    """Measures the experiment's model; trains nothing."""

    def __init__(self, config: TokenEvaluationConfig) -> None:
        self._config = config

    def run(self, experiment: ModelExperiment, folder: StageFolder, trackers: Trackers) -> Mapping[str, Any]:
        """Writes `report.html` and returns what the summary shall hold. Raises DataError where nothing is scored."""
        config, model, dataset = self._config, experiment.model, cast("TokenDataset", experiment.dataset)
        if not isinstance(model, TokenTransformer):
            raise UsageError(f"stage '{config.name}': measures a token_transformer; got a {type(model).__name__}")
        scored = min(config.samples or dataset.count(config.split), dataset.count(config.split))
        trackers.line(f"{config.name}  {scored} sequences of '{config.split}'")
        measured = measure(model, dataset, experiment.device, config.split, config.samples, config.batch, config.shown)
        card, losses = make_card(measured, dataset, config), self._losses(experiment, model, dataset)
        for text in _lines(card):
            trackers.line(text)
        result = _result(measured, card, losses)
        trackers.scalars(config.name, 0, _flat(result["metrics"]))
        self._report(experiment, folder, trackers, measured, card, losses)
        return result

    def _losses(
        self, experiment: ModelExperiment, model: TokenTransformer, dataset: TokenDataset
    ) -> dict[str, Numbers]:
        """Every loss of the stages that trained, on this split, at all positions."""
        config, found = self._config, {}
        samples = config.samples or dataset.count(config.split)
        for stage in experiment.recipe.stages:
            if isinstance(stage, TokenTrainingConfig):
                terms = token_terms(stage.losses, model.spec)
                scores = TokenValidation(dataset, experiment.device, terms, samples, config.batch, config.split)
                with torch.no_grad():
                    found[stage.name] = dict(scores(model))
        return found

    def _report(
        self,
        experiment: ModelExperiment,
        folder: StageFolder,
        trackers: Trackers,
        measured: Measured,
        card: Card,
        losses: dict[str, Numbers],
    ) -> None:
        recipe = experiment.recipe
        spec = cast("TokenDataset", experiment.dataset).description
        pictures = draw(measured, spec, read_history(folder.run.metrics))
        for name, figure in pictures.items():
            trackers.figure(self._config.name, 0, name, figure)
        size = sum(weight.numel() for weight in experiment.model.parameters())
        line = (
            f"seed {recipe.run.seed}, {size:,} parameters, {measured.sequences} sequences of '{self._config.split}', "
            + ", ".join(f"{count:,} targets of {name}" for name, count in measured.targets.items())
        )
        write_text(folder.run.report, report_page(recipe.run.name, recipe.description, line, card, losses, pictures))


def _lines(card: Card) -> list[str]:
    """The card for a terminal: models and floors side by side."""
    rows = [row.replace("_", " ") for row in card.rows]
    width = max(len(title(column)) for column in card.columns)
    lines = [" " * width + "".join(f"  {row:>14}" for row in rows)]
    for column in card.columns:
        cells = (numbers.get(column) for numbers in card.rows.values())
        shown = "".join(f"  {'' if value is None else format(value, '.4g'):>14}" for value in cells)
        lines.append(f"{title(column):<{width}}{shown}".rstrip())
    return [*lines, card.verdict.text]


def _result(measured: Measured, card: Card, losses: dict[str, Numbers]) -> dict[str, Any]:
    """The stage's part of `summary.json`."""
    return {
        "status": card.verdict.status,
        "metrics": {
            **measured.models,
            "training_losses": {
                f"{stage}/{name}": value for stage, found in losses.items() for name, value in found.items()
            },
        },
        "floors": measured.floors,
        "card": card.summary(),
        "targets": measured.targets,
    }


def _flat(metrics: Mapping[str, Numbers]) -> Numbers:
    return {f"{kind}/{name}": value for kind, found in metrics.items() for name, value in found.items()}
