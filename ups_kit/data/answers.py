"""Steady data seen as a series that stands still: each answer is a frame that is given, and the frame after it.

So what is made for frames serves answers, too: an encoder of them, the losses of a codec, its validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
from attrs import frozen
from torch import nn

from ..interfaces import Batch, Dataset, FieldSpec, PointSet, Trajectories
from ..model import LatentModel

if TYPE_CHECKING:
    from ..recipe import Recipe
    from .normalisation import Normaliser
    from .splits import Splits


def answer_fields(fields: FieldSpec) -> FieldSpec:
    """What answers are, seen as frames: one is given, and there are no static fields beside it."""
    return attrs.evolve(fields, history=1, statics=())


def answer_encoder(recipe: Recipe, fields: FieldSpec) -> nn.Module:
    """An encoder of answers, built as the recipe's encoder."""
    encoder: nn.Module = recipe.encoder.build(answer_fields(fields), recipe.latent)  # type: ignore[assignment]
    return encoder


def answer_model(model: LatentModel, encoder: nn.Module) -> LatentModel:
    """A model of steady data with an encoder of answers in the place of its own; operator and decoder are shared."""
    normaliser = None if model.normaliser is None else _without_statics(model.normaliser)
    return LatentModel(encoder, model.operator, model.decoder, answer_fields(model.fields), normaliser)


@frozen
class Answers:
    """A steady dataset's answers as a dataset of frames."""

    dataset: Dataset

    @property
    def fields(self) -> FieldSpec:
        return answer_fields(self.dataset.fields)

    @property
    def normaliser(self) -> Normaliser:
        return _without_statics(self.dataset.normaliser)

    @property
    def splits(self) -> Splits:
        return self.dataset.splits

    def windows(self, split: str, steps: int) -> int:
        """One of every sample, however long: it stands still."""
        return self.dataset.windows(split, 1)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        """The answers with these numbers, given at t and true at t, t+1 … t+`steps`."""
        return answers_of(self.dataset.batch(split, windows, 1), steps)

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """The answers of a split in physical units, one frame each."""
        held = self.dataset.trajectories(split, limit)
        return held._replace(statics=held.statics[..., :0])


def answers_of(batch: Batch, steps: int = 0) -> Batch:
    """A batch of steady data with its answers as the frames that are given, and as those of `steps` steps after."""
    answers = batch.states[:, 1]
    inputs = PointSet(batch.positions, answers, batch.mask, batch.grid)
    return batch._replace(inputs=inputs, states=answers.unsqueeze(1).expand(-1, 1 + steps, -1, -1))


def _without_statics(normaliser: Normaliser) -> Normaliser:
    return attrs.evolve(normaliser, static_mean=(), static_std=())
