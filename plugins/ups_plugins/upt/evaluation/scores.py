"""A forecast in numbers: every metric of docs/evaluation.md, under the names that the run's summary uses.

Metrics are taken trajectory by trajectory, so that a forecast need not be held whole: `tabulate` gives the numbers of
some trajectories, `joined` puts tables together, `summarise` takes the means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from ups_kit import metrics
from ups_kit.interfaces import FieldSpec, Metric

from .particles import first_steps, particle_errors
from .truth import Truth

Summary = dict[str, float | list[float | None] | None]
Table = dict[str, Tensor]  # by metric: of every sample and scored frame (S, steps), or of every sample (S,)

NAMED_STEPS = (1, 10, 40)  # the steps that score cards of 1-D benchmarks quote


@frozen(eq=False)
class Score:
    """One forecast's numbers: for the summary, and per sample and frame for pictures and comparisons."""

    summary: Summary
    nrmse: Tensor  # (S, steps)
    vrmse: Tensor  # (S, steps)

    @property
    def mean(self) -> float:
        """Mean nRMSE over samples and scored frames."""
        return self.nrmse.mean().item()

    def at(self, step: int) -> float:
        """Mean nRMSE over samples at a step, counted from 1."""
        return self.nrmse[:, step - 1].mean().item()


def named_steps(steps: int) -> list[int]:
    """The steps whose nRMSE has a name of its own: 1, 10 and 40 as far as they are rolled out, and the last."""
    return sorted({step for step in (*NAMED_STEPS, steps) if step <= steps})


def field_channels(fields: FieldSpec) -> dict[str, slice]:
    """The channels of each target field by its name."""
    channels, first = {}, 0
    for field in fields.targets:
        channels[field.name] = slice(first, first + field.channels)
        first += field.channels
    return channels


def score(forecast: Tensor, truth: Truth, rollout: bool, extra: Mapping[str, Metric] | None = None) -> Score:
    """Every metric of a forecast (S, frames, N, C) in physical units, over the frames that were not given.

    `rollout` says whether frame k was reached in k steps; only then is there a correlation time and a geometric mean
    over the horizon. `extra` are metrics of the recipe, by name.
    """
    return summarise(tabulate(forecast, truth, rollout, extra))


def tabulate(forecast: Tensor, truth: Truth, rollout: bool, extra: Mapping[str, Metric] | None = None) -> Table:
    """The metrics of every trajectory of a forecast, a few trajectories at a time."""
    tables = []
    for rows in truth.blocks():
        given, part = truth.given, truth.part(rows)
        values, own = truth.scoring(rows, truth.values)[:, given:], truth.scoring(rows, forecast)[:, given:]
        tables.append(_tabulate(own, values, part, rollout, extra or {}))
        if rollout and truth.moving:
            tables[-1] |= particle_errors(part, forecast[rows])
    return joined(tables)


def joined(tables: Sequence[Table]) -> Table:
    """Tables of different trajectories as one."""
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


def nrmse_of(forecast: Tensor, truth: Truth) -> Tensor:
    """The nRMSE of every sample and scored frame alone, (S, steps)."""
    parts = [
        metrics.nrmse(truth.scoring(rows, forecast), truth.scoring(rows, truth.values), truth.scored)
        for rows in truth.blocks()
    ]
    return torch.cat(parts)


def _tabulate(forecast: Tensor, values: Tensor, truth: Truth, rollout: bool, extra: Mapping[str, Metric]) -> Table:
    """The metrics of some trajectories at the points and frames that count, (S, steps, N, C)."""
    fields, p, t, scored = truth.fields, forecast.double(), values.double(), range(values.shape[1])
    errors = {
        "nrmse": metrics.nrmse_by_channel(p, t, scored),
        "vrmse": metrics.vrmse_by_channel(p, t, scored),
    }
    table = {
        **{name: error.mean(-1) for name, error in errors.items()},
        "rmse": metrics.rmse(p, t, scored),
        "max_error": metrics.max_error(p, t, scored),
        "crmse": metrics.crmse(p, t, scored, _weights(truth)),
    }
    if fields.grid is not None:
        table["brmse"] = metrics.brmse(p, t, scored, fields)
        table |= metrics.band_errors(p, t, scored, fields)
    table |= {name: metric(forecast, values, fields) for name, metric in extra.items()}
    table["relative_l2"] = metrics.relative_l2(p, t, scored)
    if len(fields.targets) > 1:
        for field, channels in field_channels(fields).items():
            table |= {f"{name}/{field}": error[..., channels].mean(-1) for name, error in errors.items()}
    if rollout:
        since = truth.times - truth.times[truth.given - 1]
        table["correlation_time"] = metrics.correlation_time(p, t, scored, since[truth.given :])
    return table


def _weights(truth: Truth) -> Tensor | None:
    """The areas or volumes of a block's points that count."""
    if truth.weights is None or truth.counted is None:
        return truth.weights
    return truth.weights[:, truth.counted[0]]


def summarise(table: Table) -> Score:
    """The means of a table over samples and frames, and what follows from them."""
    nrmse, vrmse = table["nrmse"], table["vrmse"]
    summary: Summary = {name: finite(values.mean().item()) for name, values in table.items()}
    summary["nrmse_median"], summary["vrmse_median"] = finite(nrmse.median().item()), finite(vrmse.median().item())
    curves = {"nrmse": nrmse.mean(0), "vrmse": vrmse.mean(0)}
    if "correlation_time" in table:
        for step in named_steps(nrmse.shape[1]):
            summary |= {f"{name}_step_{step}": finite(curve[step - 1].item()) for name, curve in curves.items()}
        summary["geometric_mean_nrmse"] = finite(metrics.geometric_mean(curves["nrmse"]))
    if "position_mse" in table:
        curves["position_mse"] = table["position_mse"].mean(0)
        summary |= {f"position_mse_{steps}": finite(error) for steps, error in first_steps(curves["position_mse"])}
    summary |= {f"curve_{name}": finite_list(curve.tolist()) for name, curve in curves.items()}
    return Score(summary, nrmse, vrmse)


def finite(value: float) -> float | None:
    """The value, or None where it is not a finite number: JSON has no word for those."""
    return value if math.isfinite(value) else None


def finite_list(values: Sequence[float]) -> list[float | None]:
    """`finite` of each."""
    return [finite(value) for value in values]


def ratio(value: float, reference: float) -> float | None:
    """value / reference, or None where that is no finite number."""
    return finite(value / reference) if reference != 0 else None


def quantile_samples(nrmse: Tensor) -> dict[str, int]:
    """A good (10th percentile), a median and the worst sample by their mean nRMSE over the rollout."""
    order = torch.argsort(torch.nan_to_num(nrmse.mean(1), nan=math.inf, posinf=math.inf))
    last = len(order) - 1
    return {"good": int(order[last // 10]), "median": int(order[last // 2]), "worst": int(order[last])}
