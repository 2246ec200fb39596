"""Everything that is measured on a trained model, and in which order.

Forecasts are as large as the truth, and there are many: they are made and scored for a part of the trajectories at a
time, and only their numbers are kept. The trajectories that are shown are forecast once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import evolve, field, frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.interfaces import Meshed, Metric

from . import floors as floor
from .budget import START_TRAJECTORIES, rollout_budget, start_term, steady_budget, summarise_budget
from .config import EvaluateConfig, possible_floors, reference_floor
from .drawing import Drawing, PriorRunner, Variant
from .ensembles import Ensembles, choose_forecast, measure_ensembles
from .particles import CLOUD_TRAJECTORIES, cloud_errors
from .reach import Reach, gradient_reach, require_reach
from .rollouts import Forecasts, Runner
from .scores import Score, Summary, Table, finite, joined, nrmse_of, quantile_samples, summarise, tabulate
from .shuffle import Exchange, Shuffle, exchange_parameters, exchange_statics
from .spectra import Spectra, frames_shown, shell_sums
from .truth import Truth, read_truth

if TYPE_CHECKING:
    from ups_kit.assemble import Experiment


@frozen(eq=False)
class FloorScore:
    """A floor's two scores."""

    one_step: Score
    rollout: Score


@frozen(eq=False)
class Shown:
    """A trajectory that pictures show: its number among the truth's, and its latent rollout."""

    sample: int
    forecast: Tensor  # (frames, N, C), physical
    positions: Tensor | None = None  # (frames, N, D), where the forecast has brought points that move
    cells: NDArray[np.int64] | None = None  # (M, 3), the triangles between the points, where there are any


@frozen(eq=False)
class Measured:
    """Everything that was measured on a model. Of steady data the three scores are one."""

    truth: Truth
    one_step: Score
    latent: Score
    reencoded: Score
    floors: Mapping[str, FloorScore]
    budget: Mapping[str, Summary]
    shuffle: Shuffle
    shuffle_statics: Shuffle
    reach: tuple[Reach, ...]
    tokens: int
    remarks: Mapping[str, str]  # on how floors were prepared
    spectra: Spectra | None
    shown: Mapping[str, Shown]
    ensembles: Ensembles | None = None  # where a stage has trained a part that draws
    prior: Variant | None = None  # what is measured in the place of an operator that was not trained

    @property
    def reference(self) -> str:
        """The floor that a model is held against first."""
        return reference_floor(self.truth.fields)


@frozen(eq=False)
class Plan:
    """What is to be done with every part of the trajectories."""

    experiment: Experiment
    batch: int
    truth: Truth
    floors: floor.Floors
    extra: Mapping[str, Metric]
    exchanges: Mapping[str, Exchange]
    drawing: Drawing | None = None
    prior: Variant | None = None

    def runner(self, truth: Truth) -> Runner:
        """The model over some trajectories; a prior draws where no operator was trained."""
        if self.drawing is not None and self.prior is not None:
            return PriorRunner(self.drawing, self.prior, truth)
        return Runner(self.experiment.model, truth, self.experiment.device, self.batch)


@frozen(eq=False)
class Tally:
    """The numbers of the parts that are done, by what they are numbers of."""

    tables: dict[str, list[Table]] = field(factory=dict)
    energies: dict[str, Tensor] = field(factory=dict)

    def add(self, name: str, table: Table) -> None:
        """The numbers of the next part."""
        self.tables.setdefault(name, []).append(table)

    def add_energy(self, name: str, energy: Tensor) -> None:
        """The energies of the next part, summed over its samples."""
        self.energies[name] = self.energies[name] + energy if name in self.energies else energy

    def table(self, name: str) -> Table | None:
        """The whole table, if anything was measured of that name."""
        return joined(self.tables[name]) if name in self.tables else None

    def score(self, name: str) -> Score:
        """The score of a forecast."""
        found = summarise(joined(self.tables[name]))
        clouds = self.table(f"{name} clouds") or {}
        found.summary.update({key: finite(values.mean().item()) for key, values in clouds.items()})
        return found

    def nrmse(self, name: str) -> Tensor | None:
        """The nRMSE of what only that was measured of."""
        table = self.table(name)
        return None if table is None else table["nrmse"]


def measure(experiment: Experiment, config: EvaluateConfig) -> Measured:
    """All numbers, none of the presentation. The audit of the losses comes first: it is the quickest to fail."""
    model, dataset = experiment.model, experiment.dataset
    reach = gradient_reach(model, dataset, experiment.recipe.stages, config.seed)
    require_reach(reach)
    truth = read_truth(dataset, config.split, config.steps, config.trajectories)
    first = Runner(model, truth, experiment.device, 1).first_latent()
    drawing = Drawing.of(experiment, config)
    choice = None if drawing is None else choose_forecast(drawing, dataset, config)
    plan = Plan(
        experiment,
        config.batch,
        truth,
        floor.prepare(truth, dataset, first),
        _extra_metrics(experiment, config, truth),
        {"parameters": exchange_parameters(truth, config.seed), "statics": exchange_statics(truth, config.seed)},
        drawing,
        choice.default if choice is not None and drawing is not None and not drawing.operator else None,
    )
    tally = Tally()
    for rows in truth.parts(config.batch):
        _measure_model(plan, rows, tally)
        _measure_floors(plan, rows, tally)
        _measure_exchanges(plan, rows, tally)
    measured = _collected(plan, tally, tuple(reach), first.tokens.shape[1])
    if drawing is None or choice is None:
        return measured
    return evolve(measured, ensembles=measure_ensembles(drawing, choice, truth, plan.floors, config), prior=plan.prior)


def _extra_metrics(experiment: Experiment, config: EvaluateConfig, truth: Truth) -> dict[str, Metric]:
    """The recipe's own metrics by name; a name that stands twice gets a number the second time."""
    found: dict[str, Metric] = {}
    for metric in config.metrics:
        name = experiment.catalog.locate(metric).name
        taken = sum(other == name or other.startswith(f"{name}_") for other in found)
        found[name if not taken else f"{name}_{taken + 1}"] = metric.build(truth.fields)
    return found


def _measure_model(plan: Plan, rows: slice, tally: Tally) -> None:
    """Scores, error budget and spectra of the model's forecasts, and the floor that is one of them."""
    truth = plan.truth.part(rows)
    forecasts = plan.runner(truth).all()
    steady = truth.fields.steady
    tally.add("latent", tabulate(forecasts.latent, truth, not steady, plan.extra))
    if steady:
        tally.add("budget", steady_budget(forecasts.latent, truth))
    else:
        tally.add("one_step", tabulate(forecasts.one_step, truth, False, plan.extra))
        tally.add("reencoded", tabulate(forecasts.reencoded, truth, True, plan.extra))
        tally.add("budget", rollout_budget(forecasts, truth))
        _measure_start(plan, rows, forecasts, tally)
        _measure_clouds(plan, rows, {"latent": forecasts.latent, "reencoded": forecasts.reencoded}, tally)
    if forecasts.codec is not None:
        _add_floor("encode_decode", floor.encode_decode(forecasts.codec), plan, truth, tally)
    if truth.fields.grid is not None:
        for name, values in _spectra_of(forecasts, truth):
            tally.add_energy(name, shell_sums(values, truth, frames_shown(truth)))


def _measure_start(plan: Plan, rows: slice, forecasts: Forecasts, tally: Tally) -> None:
    """The start's share of the error, on the first trajectories of all."""
    limit = START_TRAJECTORIES - rows.start
    if limit > 0:
        truth = plan.truth.part(rows)
        again = plan.runner(truth).latent_rollout(trips=1, limit=limit)
        tally.add("start", {"encode": start_term(forecasts.latent, again, truth)})


def _measure_clouds(plan: Plan, rows: slice, forecasts: Mapping[str, Tensor], tally: Tally) -> None:
    """How the particles are spread, on the first trajectories of all."""
    most = CLOUD_TRAJECTORIES - rows.start
    if plan.truth.moving and most > 0:
        for name, forecast in forecasts.items():
            errors = cloud_errors(plan.truth.part(rows), forecast, most, plan.experiment.device)
            tally.add(f"{name} clouds", errors)


def _spectra_of(forecasts: Forecasts, truth: Truth) -> Iterator[tuple[str, Tensor]]:
    yield "truth", truth.values
    if truth.fields.steady:
        yield "answer", forecasts.latent
    else:
        yield "latent rollout", forecasts.latent
        yield "re-encoded rollout", forecasts.reencoded


def _measure_floors(plan: Plan, rows: slice, tally: Tally) -> None:
    """One floor after the other, so that one forecast is held at a time."""
    for name, forecast in plan.floors.forecasts.items():
        _measure_floor(name, forecast, plan, rows, tally)


def _measure_floor(name: str, forecast: Callable[[Truth], floor.Floor], plan: Plan, rows: slice, tally: Tally) -> None:
    truth = plan.truth.part(rows)
    found = forecast(truth)
    _add_floor(name, found, plan, truth, tally)
    if name == reference_floor(truth.fields):
        _measure_clouds(plan, rows, {f"{name} rollout": found.rollout}, tally)


def _add_floor(name: str, found: floor.Floor, plan: Plan, truth: Truth, tally: Tally) -> None:
    """Two tables, or one where the floor does not step."""
    rollout = tabulate(found.rollout, truth, not truth.fields.steady, plan.extra)
    tally.add(f"{name} rollout", rollout)
    same = found.one_step is found.rollout
    one_step = rollout if same else tabulate(found.one_step, truth, False, plan.extra)
    tally.add(f"{name} one step", {key: values for key, values in one_step.items() if key != "correlation_time"})


def _measure_exchanges(plan: Plan, rows: slice, tally: Tally) -> None:
    """The rollout with what other trajectories lend."""
    for name, exchange in plan.exchanges.items():
        if not exchange.reason:
            forecast = plan.runner(exchange.apply(rows)).latent_rollout()
            tally.add(name, {"nrmse": nrmse_of(forecast, plan.truth.part(rows))})


def _collected(plan: Plan, tally: Tally, reach: tuple[Reach, ...], tokens: int) -> Measured:
    truth, latent = plan.truth, tally.score("latent")
    floors = {
        name: FloorScore(tally.score(f"{name} one step"), tally.score(f"{name} rollout"))
        for name in possible_floors(truth.fields)
    }
    shuffles = {name: exchange.result(latent.mean, tally.nrmse(name)) for name, exchange in plan.exchanges.items()}
    return Measured(
        truth,
        latent if truth.fields.steady else tally.score("one_step"),
        latent,
        latent if truth.fields.steady else tally.score("reencoded"),
        floors,
        summarise_budget({**(tally.table("start") or {}), **(tally.table("budget") or {})}),
        shuffles["parameters"],
        shuffles["statics"],
        reach,
        tokens,
        plan.floors.remarks,
        Spectra.of(tally.energies, truth) if tally.energies else None,
        _shown(plan, latent),
    )


def _shown(plan: Plan, latent: Score) -> dict[str, Shown]:
    """The latent rollouts of the trajectories that pictures show."""
    samples = quantile_samples(latent.nrmse)
    truth = plan.truth.part(list(samples.values()))
    forecasts = plan.runner(truth).latent_rollout()
    went = torch.cat([truth.positions[:, : truth.given], truth.travelled(forecasts)], 1) if truth.moving else None
    dataset = plan.experiment.dataset
    return {
        kind: Shown(
            sample,
            forecasts[place],
            None if went is None else went[place],
            dataset.cells(int(truth.ids[place])) if isinstance(dataset, Meshed) else None,
        )
        for place, (kind, sample) in enumerate(samples.items())
    }
