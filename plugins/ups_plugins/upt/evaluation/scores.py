"""A forecast in numbers: every metric of docs/evaluation.md, under the names that the run's summary uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from ups_kit import metrics
from ups_kit.interfaces import Metric

from .truth import Truth

Summary = dict[str, float | list[float | None] | None]

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


def score(forecast: Tensor, truth: Truth, rollout: bool, extra: Mapping[str, Metric] | None = None) -> Score:
    """Every metric of a forecast (S, frames, N, C) in physical units, over the frames that were not given.

    `rollout` says whether frame k was reached in k steps; only then is there a correlation time and a geometric mean
    over the horizon. `extra` are metrics of the recipe, by name.
    """
    scored, fields, values = truth.scored, truth.fields, truth.values
    nrmse, vrmse = metrics.nrmse(forecast, values, scored), metrics.vrmse(forecast, values, scored)
    per_frame = {
        "nrmse": nrmse,
        "vrmse": vrmse,
        "rmse": metrics.rmse(forecast, values, scored),
        "max_error": metrics.max_error(forecast, values, scored),
        "crmse": metrics.crmse(forecast, values, scored),
    }
    if fields.grid is not None:
        per_frame["brmse"] = metrics.brmse(forecast, values, scored, fields)
        per_frame |= metrics.band_errors(forecast, values, scored, fields)
    for name, metric in (extra or {}).items():
        per_frame[name] = metric(forecast[:, scored.start :], values[:, scored.start :], fields)
    summary: Summary = {name: finite(value.mean().item()) for name, value in per_frame.items()}
    summary["relative_l2"] = finite(metrics.relative_l2(forecast, values, scored).mean().item())
    summary["nrmse_median"], summary["vrmse_median"] = finite(nrmse.median().item()), finite(vrmse.median().item())
    if rollout:
        summary |= _horizon(forecast, truth, nrmse, vrmse)
    summary["curve_nrmse"] = finite_list(nrmse.mean(0).tolist())
    summary["curve_vrmse"] = finite_list(vrmse.mean(0).tolist())
    return Score(summary, nrmse, vrmse)


def _horizon(forecast: Tensor, truth: Truth, nrmse: Tensor, vrmse: Tensor) -> Summary:
    """What only a rollout has: the error at named steps, the correlation time, the geometric mean."""
    numbers: Summary = {}
    for step in named_steps(truth.steps):
        numbers[f"nrmse_step_{step}"] = finite(nrmse[:, step - 1].mean().item())
        numbers[f"vrmse_step_{step}"] = finite(vrmse[:, step - 1].mean().item())
    since = truth.times - truth.times[truth.given - 1]
    numbers["correlation_time"] = metrics.correlation_time(forecast, truth.values, truth.scored, since).mean().item()
    numbers["geometric_mean_nrmse"] = finite(metrics.geometric_mean_nrmse(forecast, truth.values, truth.scored))
    return numbers


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
