"""Forecasts that are drawn: a model with a part that draws latents, seen as a model, and where its noise comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from attrs import frozen
from torch import Tensor

from .fit.forward import derived_seed
from .fit.settings import FitSettings
from .interfaces import Corrects, DrawsStates, Latent, PointSet, Preparation, Queries
from .model import LatentModel

if TYPE_CHECKING:
    from .recipe import Recipe


@frozen(eq=False)
class Noise:
    """Standard normal noise for the samples of a batch: of each, a pure function of (seed, member, id, step).

    So a forecast does not depend on which samples are computed together, nor on the device.
    """

    seed: int
    member: int
    ids: tuple[int, ...]

    def __call__(self, step: int, like: Tensor) -> Tensor:
        """Noise of the shape of `like` (B, …), on its device."""
        parts = []
        for sample in self.ids:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, f"{self.member}/{sample}/{step}"))
            parts.append(torch.randn(like.shape[1:], generator=generator))
        return torch.stack(parts).to(like.device, like.dtype)


class Drawn(LatentModel):
    """A model whose every step is drawn by one of its parts; encoder, operator and decoder are the model's own.

    Of a part that corrects, a step is drawn around A(z). Of a part that draws answers itself (`DrawsStates`), `encode`
    gives what is known and `step` draws around that. It is made for one forecast: its steps are counted from the first
    on, and each has noise of its own, in a rollout that decodes and encodes at every step, too.
    """

    def __init__(self, model: LatentModel, part: Corrects, steps: int, noise: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__(
            model.encoder, model.operator, model.decoder, model.fields, model.normaliser, dict(model.added.items())
        )
        self.model = model
        self.part = part
        self.steps = steps
        self.noise = noise
        self.done = 0
        self.training = model.training

    @property
    def preparation(self) -> Preparation | None:
        """The model's own; a part that draws answers looks up for itself."""
        return None if isinstance(self.part, DrawsStates) else self.model.preparation

    def placed(self, points: PointSet, condition: Tensor) -> tuple[PointSet, Tensor]:
        return self.model.placed(points, condition)

    def encode(self, points: PointSet, condition: Tensor | None = None) -> Latent:
        if isinstance(self.part, DrawsStates):
            assert condition is not None
            return self.part.given(*self.placed(points, condition))
        return self.model.encode(points, condition)

    def step(self, latent: Latent, condition: Tensor) -> Latent:
        predicted = latent if isinstance(self.part, DrawsStates) else self.model.step(latent, condition)
        noise = self.noise(self.done, predicted.tokens)
        self.done += 1
        return self.part.correct(predicted, noise, self.steps)._replace(totals=predicted.totals)

    def decode(self, latent: Latent, queries: Queries) -> Tensor:
        return self.model.decode(latent, queries)


def drawing_parts(recipe: Recipe, model: LatentModel) -> dict[str, Corrects]:
    """The parts of a model that draw latents, by the name of the stage that has trained them, in their order."""
    return {
        stage.name: cast("Corrects", model.added[stage.name])
        for stage in recipe.stages
        if stage.name in model.added
        and isinstance(model.added[stage.name], Corrects)
        and isinstance(stage, FitSettings)
        and not stage.budget.is_zero
    }
