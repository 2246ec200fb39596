"""Errors at fine points in two parts: what the coarse grid carries, and the detail that lies beyond it."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from ups_kit import metrics

from ..scores import finite, joined
from ..truth import Truth

FAINT = 1e-12  # of the energy of the truth: detail below that is rounding, and no ratio to it is taken


@frozen
class Score:
    """One forecast at one set of points, means over trajectories, scored frames and channels."""

    nrmse: float | None
    vrmse: float | None
    below: float | None = None  # the part of nRMSE in modes that the coarse grid carries
    above: float | None = None  # the part beyond
    detail: float | None = None  # energy beyond, over the truth's

    def summary(self) -> dict[str, float | None]:
        """As `finer.json` holds it."""
        return {
            "nrmse": self.nrmse,
            "vrmse": self.vrmse,
            "nrmse_below": self.below,
            "nrmse_above": self.above,
            "detail_energy": self.detail,
        }


Table = dict[str, Tensor]  # of every trajectory and scored frame, (S, steps) or (S, steps, C)


def tabulate(forecast: Tensor, truth: Truth, carried: tuple[int, ...]) -> Table:
    """The numbers of some trajectories' forecast (S, frames, N, C); `carried` is the coarse grid's shape.

    Errors split exactly: below² + above² = nRMSE² of each trajectory, frame and channel (Parseval), where a mode is
    below if the coarse grid has more than two points for its wave along every axis.
    """
    tables = []
    for rows in truth.blocks():
        found = forecast[rows][:, truth.given :].double()
        true = truth.values[rows][:, truth.given :].double()
        scored = range(true.shape[1])
        table = {"nrmse": metrics.nrmse(found, true, scored), "vrmse": metrics.vrmse(found, true, scored)}
        if truth.fields.grid != carried:
            table |= _split(found, true, truth.fields.grid or (), carried)
        tables.append(table)
    return joined(tables)


def score(tables: list[Table]) -> Score:
    """The means over all trajectories."""
    table = joined(tables)
    numbers = {
        name: finite(table[name].mean().item()) for name in ("nrmse", "vrmse", "below", "above") if name in table
    }
    return Score(**numbers, detail=_detail(table) if "energy" in table else None)


def _split(found: Tensor, true: Tensor, grid: tuple[int, ...], carried: tuple[int, ...]) -> Table:
    beyond = _beyond(grid, carried).to(true.device)
    error, own, model = (_energies(values, grid) for values in (found - true, true, found))
    size = own.sum(2).clamp_min(metrics.NRMSE_FLOOR**2)
    return {
        "below": (error[:, :, ~beyond].sum(2) / size).sqrt().mean(-1),
        "above": (error[:, :, beyond].sum(2) / size).sqrt().mean(-1),
        "energy": model[:, :, beyond].sum(2),
        "energy_true": own[:, :, beyond].sum(2),
        "energy_all": own.sum(2),
    }


def _detail(table: Table) -> float | None:
    """Energy beyond over the truth's, sums over trajectories and frames, the mean over the channels that have any."""
    model, true, whole = (table[name].sum((0, 1)) for name in ("energy", "energy_true", "energy_all"))
    some = true > FAINT * whole
    return finite((model[some] / true[some]).mean().item()) if bool(some.any()) else None


def _energies(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Squared amplitudes of all modes, (S, F, N, C) like the values; their sum is the mean square over points."""
    samples, frames, _, channels = values.shape
    axes = tuple(range(2, 2 + len(grid)))
    modes = torch.fft.fftn(values.reshape(samples, frames, *grid, channels), dim=axes, norm="forward")
    return torch.view_as_real(modes).square().sum(-1).reshape(samples, frames, math.prod(grid), channels)


def _beyond(grid: tuple[int, ...], carried: tuple[int, ...]) -> Tensor:
    """Which modes of a transform on the fine grid the coarse one does not carry, (N,)."""
    high = [
        2 * torch.fft.fftfreq(size, d=1 / size).round().abs() >= own for size, own in zip(grid, carried, strict=True)
    ]
    return torch.stack(torch.meshgrid(*high, indexing="ij")).any(0).flatten()
