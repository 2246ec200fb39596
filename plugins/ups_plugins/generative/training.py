"""What the generative stages are trained on: latents of a model that stays as it is, and where batches come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import torch
from torch import Tensor

from ups_kit import Batch, Latent
from ups_kit.batching import to_device
from ups_kit.errors import DataError, UsageError
from ups_kit.fit.batches import TrainingWindows, check_length
from ups_kit.interfaces import GivesLatents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ups_kit.assemble import Experiment
    from ups_kit.model import LatentModel

MEASURED_SAMPLES = 512  # training windows that units are measured on
TOGETHER = 64


MOVING = (
    "these points move, and so do the tokens that stand at some of them: latents of two frames cannot be compared "
    "token by token; place the encoder's supernodes on a lattice"
)


class Pair(NamedTuple):
    """What the operator predicts, and what should have been predicted."""

    predicted: Latent  # A^k(z_t)
    target: Tensor  # E(u_{t+k}), (B, T, d)


@torch.no_grad()
def residual_pair(model: LatentModel, batch: Batch, step: int) -> Pair:
    """The operator's latent after `step` steps beside that of the true frame, or its cached latent.

    Raises DataError where tokens stand at points that move, so that those of two frames cannot be compared.
    """
    if batch.latents is not None:
        start, target = batch.latents[0]._replace(condition=batch.condition), batch.latents[step].tokens
    else:
        start, target = model.encode(batch.inputs, batch.condition), encoded_frame(model, batch, step).tokens
    if batch.positions.dim() == 4 and start.anchors is not None and start.grid is None:
        raise DataError(MOVING)
    return Pair(model.rollout(start, batch.condition, step)[-1], target)


def encoded_frame(model: LatentModel, batch: Batch, step: int) -> Latent:
    """The latent of the true frame t+step."""
    inputs = batch.inputs
    for following in range(1, step + 1):
        places = batch.places(following) if batch.positions.dim() == 4 else None
        inputs = model.advance(inputs, batch.states[:, following], places)
    return model.encode(inputs, batch.condition)


def check_residuals(experiment: Experiment, stage: str, horizon: int) -> None:
    """That latents of two frames can be compared, so many steps apart; raises UsageError and DataError.

    `stage` is the stage's key path.
    """
    recipe, dataset = experiment.recipe, experiment.dataset
    encoder = recipe.encoder
    scattered = isinstance(encoder, GivesLatents) and encoder.form(recipe.latent) == "scattered"
    if dataset.fields.moves_with is not None and scattered:
        raise UsageError(f"{stage}: {MOVING}")
    check_length(dataset, horizon, f"{stage}.horizon")


def measuring_batches(windows: TrainingWindows, device: torch.device) -> Iterator[Batch]:
    """Some training batches that do not depend on the batch size of the stage, to measure units on."""
    own = attrs.evolve(windows, batch=TOGETHER)
    for number in range(min(MEASURED_SAMPLES, max(windows.windows, TOGETHER)) // TOGETHER):
        yield to_device(own.read(number), device)


def drawn_times(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """A time τ for every sample of a batch, spread evenly: one in each of `count` equal parts, in random order."""
    device = generator.device
    order = torch.randperm(count, generator=generator, device=device)
    share = (order + torch.rand(count, generator=generator, device=device)) / count
    return low + (high - low) * share
