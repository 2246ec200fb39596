"""Everything that is measured on a trained model, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from ups_kit.interfaces import Metric

from . import floors as floor
from .budget import error_budget
from .config import EvaluateConfig
from .reach import Reach, gradient_reach, require_reach
from .rollouts import Forecasts, Runner
from .scores import Score, Summary, score
from .shuffle import Shuffle, shuffle_parameters
from .truth import Truth, read_truth

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment


@frozen(eq=False)
class FloorScore:
    """A floor's two scores."""

    one_step: Score
    rollout: Score


@frozen(eq=False)
class Measured:
    """Everything that was measured on a model."""

    truth: Truth
    forecasts: Forecasts
    one_step: Score
    latent: Score
    reencoded: Score
    floors: Mapping[str, FloorScore]
    budget: Mapping[str, Summary]
    shuffle: Shuffle
    reach: tuple[Reach, ...]
    tokens: int


def measure(experiment: Experiment, config: EvaluateConfig) -> Measured:
    """All numbers, none of the presentation. The audit of the losses comes first: it is the quickest to fail."""
    model, dataset = experiment.model, experiment.dataset
    reach = gradient_reach(model, dataset, experiment.recipe.stages, config.seed)
    require_reach(reach)
    truth = read_truth(dataset, config.split, config.steps)
    extra = _extra_metrics(experiment, config, truth)
    runner = Runner(model, truth, experiment.device, config.batch)
    forecasts = runner.all()
    latent = score(forecasts.latent, truth, True, extra)
    first = runner.first_latent()
    candidates = {
        "persistence": floor.persistence(truth),
        "spatial_mean": floor.spatial_mean(truth),
        "linear_autoregression": floor.linear_autoregression(truth, dataset),
        "encode_decode": floor.encode_decode(forecasts.codec),
        "interpolation": floor.interpolation(truth, first),
    }
    return Measured(
        truth,
        forecasts,
        score(forecasts.one_step, truth, False, extra),
        latent,
        score(forecasts.reencoded, truth, True, extra),
        {name: _score_floor(found, truth, extra) for name, found in candidates.items() if found is not None},
        error_budget(forecasts, runner, truth),
        shuffle_parameters(runner, truth, latent, config.seed),
        tuple(reach),
        first.tokens.shape[1],
    )


def _extra_metrics(experiment: Experiment, config: EvaluateConfig, truth: Truth) -> dict[str, Metric]:
    """The recipe's own metrics by name; a name that stands twice gets a number the second time."""
    found: dict[str, Metric] = {}
    for metric in config.metrics:
        name = experiment.catalog.locate(metric).name
        taken = sum(other == name or other.startswith(f"{name}_") for other in found)
        found[name if not taken else f"{name}_{taken + 1}"] = metric.build(truth.fields)
    return found


def _score_floor(found: floor.Floor, truth: Truth, extra: Mapping[str, Metric]) -> FloorScore:
    return FloorScore(score(found.one_step, truth, False, extra), score(found.rollout, truth, True, extra))
