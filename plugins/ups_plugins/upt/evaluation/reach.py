"""Which loss reaches which part of the model: a gradient that never arrives trains nothing, and says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import frozen
from torch import nn

from ups_kit.batching import to_device
from ups_kit.data.answers import Answers, answer_model
from ups_kit.errors import UpsKitError
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.interfaces import Batch, Dataset, Loss, Progress
from ups_kit.weighting import Weighted

from ..training.config import CodecStageConfig

if TYPE_CHECKING:
    from ups_kit.model import LatentModel

SAMPLES = 4
LATE = Progress(step=10**9, epoch=1e9, fraction=1.0)  # every warm-up is over, every curriculum at its end


@frozen
class Reach:
    """Gradient norms of one loss on one training batch, by module; None where a module has nothing to train."""

    stage: str
    loss: str
    value: float
    norms: Mapping[str, float | None]
    declared: tuple[str, ...]

    def missing(self) -> tuple[str, ...]:
        """The modules that the loss says it reaches and does not.

        A loss of exactly 0 is at its least, and pulls nowhere: that of fields that are nowhere negative, say.
        """
        if self.value == 0:
            return ()
        return tuple(name for name in self.declared if self.norms.get(name) == 0.0)

    def summary(self) -> dict[str, object]:
        """What the run's summary holds of it."""
        return {"value": self.value, "declared": list(self.declared), "gradient_norms": dict(self.norms)}


def gradient_reach(model: LatentModel, dataset: Dataset, stages: tuple[Any, ...], seed: int) -> list[Reach]:
    """For every loss of every stage that has losses: the norm of its gradient in encoder, operator and decoder.

    Each loss is computed alone, with weight 1 and its curriculum at its end, on one batch of training windows. Losses
    of weight 0 and stages without a budget are left out: they train nothing. The model's own gradients stay as they
    were. Of steady data a codec's losses are those of the answers, and its encoder is the one that it adds.
    """
    reached = []
    for stage in stages:
        if getattr(getattr(stage, "budget", None), "is_zero", False):
            continue  # skipped: its losses train nothing
        seen, asked = seen_by_stage(model, dataset, stage)
        for name, config in losses_of(stage).items():
            if getattr(config, "weight", 1.0) == 0:
                continue
            loss: Loss = config.build(asked.fields)
            reached.append(_reach(seen, asked, stage.name, LossTerm(name, Weighted(), loss), seed))
    return reached


def seen_by_stage(model: LatentModel, dataset: Dataset, stage: object) -> tuple[LatentModel, Dataset]:
    """Model and data as a stage's losses see them."""
    if isinstance(stage, CodecStageConfig) and dataset.fields.steady:
        return answer_model(model, model.added[stage.name]), Answers(dataset)
    return model, dataset


def require_reach(reached: list[Reach]) -> None:
    """Raise UpsKitError naming every loss and module where a declared gradient is zero."""
    dead = [f"  stages.{row.stage}.losses.{row.loss}: {', '.join(row.missing())}" for row in reached if row.missing()]
    if dead:
        raise UpsKitError(
            "losses whose gradient is zero in a part that they declare to reach (loss: parts):\n"
            + "\n".join(dead)
            + "\nexpected a gradient there; is the part detached in between, or does the loss declare too much?"
        )


def losses_of(stage: object) -> dict[str, Any]:
    """The losses of a stage's config by name; none where it does not train."""
    losses = getattr(stage, "losses", None)
    return dict(losses) if isinstance(losses, Mapping) else {}


def _reach(model: LatentModel, dataset: Dataset, stage: str, term: LossTerm, seed: int) -> Reach:
    device = next(model.parameters()).device
    batch = _training_batch(dataset, term.loss.horizon, seed, device)
    generator = torch.Generator(device=device).manual_seed(seed)
    with _all_trainable(model):
        total = compute_losses(model, batch, [term], LATE, generator).total
        parts = {name: list(part.parameters()) for name, part in model.parts.items()}
        parameters = [parameter for part in parts.values() for parameter in part]
        live = parameters and total.requires_grad
        gradients = torch.autograd.grad(total, parameters, allow_unused=True) if live else [None] * len(parameters)
    by_parameter = {id(parameter): gradient for parameter, gradient in zip(parameters, gradients)}
    norms = {
        name: _norm([by_parameter[id(parameter)] for parameter in part]) if part else None
        for name, part in parts.items()
    }
    return Reach(stage, term.name, float(total.detach()), norms, tuple(term.loss.reaches))


def _norm(gradients: list[torch.Tensor | None]) -> float:
    return math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients if gradient is not None))


def _training_batch(dataset: Dataset, steps: int, seed: int, device: torch.device) -> Batch:
    """A few training windows with all the future frames that a loss can ask for."""
    steps = max(steps, 1)
    windows = dataset.windows("train", steps)
    chosen = np.random.default_rng(seed).choice(windows, size=min(SAMPLES, windows), replace=False)
    batch = dataset.batch("train", np.sort(chosen), steps)
    return to_device(batch, device)._replace(latents=None)


@contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """Every parameter with gradient for a while, whatever the last stage has frozen."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
