"""Scores of ensembles, beside those of the operator alone and of a floor on the same trajectories.

All members of a few trajectories are held at a time; numbers alone are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from ups_kit import metrics
from ups_kit.data.splits import evenly
from ups_kit.interfaces import Dataset

from .choice import Choice, Validated, choose
from .config import EvaluateConfig, reference_floor
from .drawing import Drawing, Variant
from .scores import Summary, Table, finite, finite_list, joined
from .truth import BLOCK_VALUES, Truth, read_truth

if TYPE_CHECKING:
    from .floors import Floors

CURVES = ("nrmse", "crps", "coverage")  # that are kept step by step, beside spread over skill


@frozen(eq=False)
class EnsembleScore:
    """An ensemble's numbers: for the summary, and per trajectory to find one that is shown."""

    summary: Summary
    nrmse: Tensor  # (S, steps), of the mean of the members


@frozen(eq=False)
class Band:
    """What is shown of one trajectory's ensemble: (frames, N, C) each, in physical units."""

    variant: Variant
    truth: Truth  # that one trajectory
    mean: Tensor
    low: Tensor  # the ends of the central 90 % interval
    high: Tensor
    spread: Tensor  # standard deviation over the members


@frozen(eq=False)
class Ensembles:
    """Everything that was measured on the forecasts that a model's parts draw."""

    truth: Truth  # the trajectories, a part of those that all else is measured on
    members: int
    rollout: str  # "latent rollout", "re-encoded rollout" or "answer"
    scores: Mapping[Variant, EnsembleScore]
    floor: tuple[str, EnsembleScore]
    seconds: Mapping[Variant, float]  # of a step of one trajectory
    choice: Choice
    band: Band

    def summary(self, split: str) -> dict[str, object]:
        """What the run's summary holds of it."""
        name, floor = self.floor
        rows = {
            variant.name: {
                "use": variant.use,
                "steps": variant.steps,
                "seconds_per_step": self.seconds[variant],
                **score.summary,
            }
            for variant, score in self.scores.items()
        }
        return {
            "split": split,
            "trajectories": self.truth.samples,
            "ids": [int(sample) for sample in self.truth.ids],
            "members": self.members,
            "rollout": self.rollout,
            "rows": {**rows, name: floor.summary},
            "choice": self.choice.summary(),
        }


def choose_forecast(drawing: Drawing, dataset: Dataset, config: EvaluateConfig) -> Choice:
    """The default, by the same numbers on validation trajectories."""
    if not config.choose_trajectories or not len(dataset.splits["validation"]):
        return choose({}, drawing.default, 0, drawing.members)
    truth = read_truth(dataset, "validation", config.steps, config.choose_trajectories)
    validated = {}
    for variant in drawing.variants:
        table = tabulate_drawn(drawing, variant, truth)
        crps = table["crps"]
        each = tuple(crps.flatten(1).mean(1).tolist())
        validated[variant] = Validated(crps.mean().item(), table["nrmse"].mean().item(), (each,))
    return choose(validated, drawing.default, truth.samples, drawing.members)


def measure_ensembles(
    drawing: Drawing, choice: Choice, whole: Truth, floors: Floors, config: EvaluateConfig
) -> Ensembles:
    """All ways to forecast side by side, on some of the trajectories, evenly spread."""
    truth = whole.part(list(evenly(range(whole.samples), config.ensemble_trajectories)))
    scores = {variant: summarise_drawn(tabulate_drawn(drawing, variant, truth)) for variant in drawing.variants}
    name = reference_floor(truth.fields)
    tables = []
    for rows in drawing.rows(truth):
        part = truth.part(rows)
        tables.append(tabulate_ensemble(floors.forecasts[name](part).rollout[None], part))
    return Ensembles(
        truth,
        drawing.members,
        "answer" if truth.fields.steady else "re-encoded rollout" if drawing.reencoded else "latent rollout",
        scores,
        (name, summarise_drawn(joined(tables))),
        {variant: drawing.seconds(variant, truth) for variant in scores},
        choice,
        _band(drawing, _to_show(choice), truth, scores),
    )


def tabulate_drawn(drawing: Drawing, variant: Variant, truth: Truth) -> Table:
    """The numbers of every trajectory and step of one way to forecast."""
    parts = [truth.part(rows) for rows in drawing.rows(truth)]
    return joined([tabulate_ensemble(drawing.ensemble(variant, part), part) for part in parts])


def tabulate_ensemble(ensemble: Tensor, truth: Truth) -> Table:
    """The numbers of every trajectory and scored frame of an ensemble (M, S, frames, N, C), (S, steps) each."""
    tables = []
    for sample in range(truth.samples):
        one = slice(sample, sample + 1)
        values = truth.scoring(one, truth.values)[:, truth.given :]
        members = torch.stack([truth.scoring(one, member)[:, truth.given :] for member in ensemble])
        length = max(1, BLOCK_VALUES // members[:, :, 0].numel())
        blocks = [
            _tabulate(members[:, :, first : first + length], values[:, first : first + length])
            for first in range(0, values.shape[1], length)
        ]
        tables.append({name: torch.cat([block[name] for block in blocks], 1) for name in blocks[0]})
    return joined(tables)


def _tabulate(members: Tensor, values: Tensor) -> Table:
    """The numbers of one trajectory at the points and frames that count, (M, 1, steps, N, C)."""
    scored, members, values = range(values.shape[1]), members.double(), values.double()
    mean = members.mean(0)
    table = {
        "nrmse": metrics.nrmse(mean, values, scored),
        "vrmse": metrics.vrmse(mean, values, scored),
        "crps": metrics.crps(members, values, scored),
    }
    if len(members) == 1:
        return table
    each, truths = members[:, 0], values.expand(len(members), -1, -1, -1)
    table["nrmse_member"] = metrics.nrmse(each, truths, scored).mean(0, keepdim=True)
    table["vrmse_member"] = metrics.vrmse(each, truths, scored).mean(0, keepdim=True)
    table["coverage"] = metrics.coverage(members, values, scored)
    table["spread"], table["error"] = metrics.spread_and_error(members, values, scored)
    return table


def summarise_drawn(table: Table) -> EnsembleScore:
    """The means of a table over trajectories and steps, and over trajectories alone."""
    shown = {name: values for name, values in table.items() if name not in ("spread", "error")}
    summary: Summary = {name: finite(values.mean().item()) for name, values in shown.items()}
    curves = {name: values.mean(0) for name, values in shown.items() if name in CURVES}
    if "spread" in table:
        spread, error = table["spread"], table["error"]
        summary["spread_skill"] = finite(metrics.spread_skill(spread.flatten(), error.flatten()).item())
        curves["spread_skill"] = metrics.spread_skill(spread, error)
    summary |= {f"curve_{name}": finite_list(curve.tolist()) for name, curve in curves.items()}
    return EnsembleScore(summary, table["nrmse"])


def _to_show(choice: Choice) -> Variant | None:
    """The default where it is drawn, else the best of those that do not help; None where nothing was compared."""
    if choice.default.steps is not None:
        return choice.default
    known = [finding for finding in choice.findings if finite(finding.own.crps) is not None]
    return min(known, key=lambda finding: finding.own.crps).variant if known else None


def _band(drawing: Drawing, variant: Variant | None, truth: Truth, scores: Mapping[Variant, EnsembleScore]) -> Band:
    """The median trajectory of one way to draw, forecast once more."""
    chosen = next(each for each in scores if each.steps is not None) if variant is None else variant
    order = torch.argsort(torch.nan_to_num(scores[chosen].nrmse.mean(1), nan=torch.inf))
    one = truth.part([int(order[(len(order) - 1) // 2])])
    ensemble = drawing.ensemble(chosen, one)[:, 0].double()
    low, high = metrics.central_interval(ensemble)
    return Band(chosen, one, ensemble.mean(0), low, high, ensemble.std(0))
