"""Forecasts of a model over whole trajectories, in physical units.

Every forecast is (S, frames, N, C) like the truth, with the given frames copied from it. Models run in batches of
trajectories, in evaluation mode, without gradient; results lie in CPU memory in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ups_kit.interfaces import Latent, PointSet, Queries

from .truth import Truth

if TYPE_CHECKING:
    from ups_kit.model import LatentModel


class Forecasts(NamedTuple):
    """All forecasts of one model. Steady data have one, D(A(E(statics))), which stands for the last three."""

    codec: Tensor | None  # D(E(u_k)): the true frame, encoded and decoded; None for steady data, which are not encoded
    one_step: Tensor  # D(A(E(u_{k-1}))): one step from the true frame before
    latent: Tensor  # D(A^k(E(u_0))): the rollout in latent space
    reencoded: Tensor  # the rollout that decodes and encodes again at every step


class Runner:
    """Runs one model over a truth: the model, its device, and how many trajectories are computed at a time."""

    def __init__(self, model: LatentModel, truth: Truth, device: torch.device, batch: int) -> None:
        self._model = model
        self._truth = truth
        self._device = device
        self._batch = batch

    def all(self) -> Forecasts:
        """Every forecast that the score card shows."""
        if self._truth.fields.steady:
            answer = self.latent_rollout()
            return Forecasts(None, answer, answer, answer)
        codec, one_step = self.stepwise()
        return Forecasts(codec, one_step, self.latent_rollout(), self.reencoded_rollout())

    @torch.inference_mode()
    def stepwise(self) -> tuple[Tensor, Tensor]:
        """Every true frame encoded and decoded, and one step from every true frame; each frame is encoded once."""
        codec, one_step = self._start(), self._start()
        last = self._truth.values.shape[1] - 1
        for rows, queries, condition in self._batches(None):
            for frame in range(self._truth.given - 1, last + 1):
                latent = self._model.encode(self._points(rows, frame))
                if frame >= self._truth.given:
                    codec[rows, frame] = self._physical(latent, queries)
                if frame < last:
                    one_step[rows, frame + 1] = self._physical(self._model.step(latent, condition), queries)
        return codec, one_step

    @torch.inference_mode()
    def latent_rollout(self, condition: Tensor | None = None, trips: int = 0, limit: int | None = None) -> Tensor:
        """D(A^k(E(u))) for every k.

        `condition` (S, P), normalised, stands in for the truth's own. With `trips` the start is decoded and encoded
        again that many times first. Only the first `limit` trajectories are computed where it is given.
        """
        out = self._start(limit)
        for rows, queries, own in self._batches(condition, limit):
            points = self._points(rows, self._truth.given - 1)
            latent = self._model.encode(points)
            for _ in range(trips):
                latent = self._model.encode(self._model.replace_newest(points, self._model.decode(latent, queries)))
            for frame in self._truth.scored:
                latent = self._model.step(latent, own)
                out[rows, frame] = self._physical(latent, queries)
        return out

    @torch.inference_mode()
    def reencoded_rollout(self) -> Tensor:
        """The rollout that decodes at all points and encodes again after every step."""
        out = self._start()
        for rows, queries, condition in self._batches(None):
            points = self._points(rows, self._truth.given - 1)
            for frame in self._truth.scored:
                values = self._model.decode(self._model.step(self._model.encode(points), condition), queries)
                out[rows, frame] = self._undo(values)
                points = self._model.advance(points, values)
        return out

    @torch.inference_mode()
    def first_latent(self) -> Latent:
        """The latent of one sample: how many tokens there are, and how they stand."""
        self._model.eval()
        latent: Latent = self._model.encode(self._points(slice(0, 1), self._truth.given - 1))
        return latent

    def _start(self, limit: int | None = None) -> Tensor:
        return self._truth.values[:limit].to(torch.float32, copy=True)

    def _batches(self, condition: Tensor | None, limit: int | None = None) -> Iterator[tuple[slice, Queries, Tensor]]:
        own = self._truth.condition if condition is None else condition
        samples = self._truth.samples if limit is None else min(limit, self._truth.samples)
        self._model.eval()
        for first in range(0, samples, self._batch):
            rows = slice(first, min(first + self._batch, samples))
            queries = self._truth.queries(rows)
            yield rows, queries._replace(positions=queries.positions.to(self._device)), own[rows].to(self._device)

    def _points(self, rows: slice, newest: int) -> PointSet:
        points = self._truth.points(rows, newest)
        return points._replace(positions=points.positions.to(self._device), values=points.values.to(self._device))

    def _physical(self, latent: Latent, queries: Queries) -> Tensor:
        return self._undo(self._model.decode(latent, queries))

    def _undo(self, values: Tensor) -> Tensor:
        return self._truth.normaliser.physical(values.float().cpu())
