"""How well a rollout moves particles: where they are, how fast, and how they are spread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ups_kit import metrics
from ups_kit.transport import sinkhorn_divergence

from .truth import Truth

HORIZONS = (5, 10, 20)  # steps whose position errors have names, as LagrangeBench quotes them
CLOUD_POINTS = 512  # particles whose spread is compared, evenly chosen
CLOUD_TRAJECTORIES = 8  # the first, for which it is


def particle_errors(truth: Truth, forecast: Tensor) -> dict[str, Tensor]:
    """`position_mse` and `kinetic_energy_mse` of every trajectory and step, (S, steps); moving points only.

    The trajectories are those of one block (`Truth.blocks`), the forecast (S, frames, N, C).
    """
    block = slice(0, truth.samples)
    places = truth.positions[:, truth.given :], truth.travelled(forecast)
    true, went = (truth.scoring(block, own) for own in places)
    channels = truth.fields.motion
    assert channels is not None
    speeds = [truth.scoring(block, values)[:, truth.given :, :, channels] for values in (forecast, truth.values)]
    energies = [metrics.kinetic_energy(velocity) for velocity in speeds]
    return {
        "position_mse": metrics.position_mse(went, true, truth.fields),
        "kinetic_energy_mse": (energies[0] - energies[1]).square(),
    }


def first_steps(curve: Tensor) -> Iterator[tuple[int, float]]:
    """The mean of a curve over its first 5, 10 and 20 steps, as far as it goes."""
    for steps in HORIZONS:
        if steps <= len(curve):
            yield steps, curve[:steps].mean().item()


def cloud_errors(truth: Truth, forecast: Tensor, most: int, device: torch.device) -> dict[str, Tensor]:
    """`sinkhorn_k`: the Sinkhorn divergence of the first trajectories' particles after k steps, (S',)."""
    limit = slice(0, min(most, truth.samples))
    part = truth.part(limit)
    went, found = part.travelled(forecast[limit]), {}
    for steps in HORIZONS:
        if steps <= truth.steps:
            true = part.positions[:, truth.given + steps - 1]
            pairs = [_chosen(part, sample, went[sample, steps - 1], true[sample]) for sample in range(part.samples)]
            errors = [sinkhorn_divergence(one.to(device), other.to(device), truth.fields) for one, other in pairs]
            found[f"sinkhorn_{steps}"] = torch.cat(errors).cpu()
    return found


def _chosen(truth: Truth, sample: int, *clouds: Tensor) -> tuple[Tensor, Tensor]:
    """At most so many of the particles that count, evenly chosen, of both clouds (N, D): (1, n, D) each."""
    counted = truth.counted
    own = torch.arange(truth.values.shape[2]) if counted is None else counted[sample].nonzero().flatten()
    some = own[torch.from_numpy(np.linspace(0, len(own) - 1, min(CLOUD_POINTS, len(own))).round().astype(np.int64))]
    return clouds[0][some][None], clouds[1][some][None]
