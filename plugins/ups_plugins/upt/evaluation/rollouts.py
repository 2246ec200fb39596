"""Forecasts of a model over whole trajectories, in physical units.

Every forecast is (S, frames, N, C) like the truth, with the given frames copied from it. Models run in batches of
trajectories, in evaluation mode, without gradient; results lie in CPU memory in float32. Where points move, a forecast
is what every point has, at the places to which the forecast itself has brought it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ups_kit.batching import to_device
from ups_kit.interfaces import Latent, PointSet, Queries
from ups_kit.motion import Forecaster, Kinematic, prepared

from .truth import Truth

if TYPE_CHECKING:
    from ups_kit.model import LatentModel


TIMED_STEPS = 5  # after one that is not timed


class Forecasts(NamedTuple):
    """All forecasts of one model. Steady data have one, D(A(E(statics))), which stands for the last three."""

    codec: Tensor | None  # D(E(u_k)): the true frame, encoded and decoded; None for steady data, which are not encoded
    one_step: Tensor  # D(A(E(u_{k-1}))): one step from the true frame before
    latent: Tensor  # D(A^k(E(u_0))): the rollout in latent space
    reencoded: Tensor  # the rollout that decodes and encodes again at every step


class Batch(NamedTuple):
    """Some trajectories on the model's device."""

    rows: slice
    condition: Tensor  # (B, P), normalised
    start: PointSet  # what the model is given, prepared where its encoder prepares
    kinematic: Kinematic | None


class Runner:
    """Runs one model over a truth: the model, its device, and how many trajectories are computed at a time."""

    def __init__(self, model: LatentModel, truth: Truth, device: torch.device, batch: int) -> None:
        self._model = model
        self._forecaster = Forecaster(model, truth.normaliser)
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
        given, last = self._truth.given, self._truth.values.shape[1] - 1
        for batch in self._batches(None):
            for frame in range(given - 1, last + 1):
                points = self._points(batch, frame)
                latent = self._model.encode(points, batch.condition)
                if frame >= given:
                    codec[batch.rows, frame] = self._codec(latent, points, batch, frame - given)
                if frame < last:
                    latent, before = self._model.step(latent, batch.condition), self._forecaster.first(points)
                    after = self._forecaster.decoded(latent, before, points.grid, batch.kinematic, frame + 1 - given)
                    one_step[batch.rows, frame + 1] = self._undo(after.values)
        return codec, one_step

    @torch.inference_mode()
    def latent_rollout(self, condition: Tensor | None = None, trips: int = 0, limit: int | None = None) -> Tensor:
        """D(A^k(E(u))) for every k.

        `condition` (S, P), normalised, stands in for the truth's own. With `trips` the start is decoded and encoded
        again that many times first. Only the first `limit` trajectories are computed where it is given.
        """
        out = self._start(limit)
        for batch in self._batches(condition, limit):
            points = batch.start
            latent = self._model.encode(points, batch.condition)
            for _ in range(trips):
                values = self._model.decode(latent, Queries(points.positions, points.grid))
                if batch.kinematic is not None:
                    values = batch.kinematic.held(values, self._forecaster.first(points).values)
                latent = self._model.encode(self._model.replace_newest(points, values), batch.condition)
            frames = self._forecaster.latent(latent, points, batch.condition, self._truth.steps, batch.kinematic)
            for frame, forecast in zip(self._truth.scored, frames, strict=True):
                out[batch.rows, frame] = self._undo(forecast.values)
        return out

    @torch.inference_mode()
    def reencoded_rollout(self) -> Tensor:
        """The rollout that decodes at all points and encodes again after every step."""
        out = self._start()
        for batch in self._batches(None):
            frames = self._forecaster.reencoded(batch.start, batch.condition, self._truth.steps, batch.kinematic)
            for frame, forecast in zip(self._truth.scored, frames, strict=True):
                out[batch.rows, frame] = self._undo(forecast.values)
        return out

    @torch.inference_mode()
    def step_seconds(self) -> float:
        """Wall seconds of one latent step of the first batch, the least of a few; nothing is encoded or decoded."""
        batch = next(iter(self._batches(None)))
        latent = self._model.encode(batch.start, batch.condition)
        seconds = []
        for _ in range(TIMED_STEPS + 1):
            self._finish()
            began = time.perf_counter()
            self._model.step(latent, batch.condition)
            self._finish()
            seconds.append(time.perf_counter() - began)
        return min(seconds[1:])

    def _finish(self) -> None:
        """Wait for the device to have done what it was asked."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    @torch.inference_mode()
    def first_latent(self) -> Latent:
        """The latent of one sample: how many tokens there are, and how they stand."""
        batch = next(iter(self._batches(None, 1)))
        latent: Latent = self._model.encode(batch.start, batch.condition)
        return latent

    def _start(self, limit: int | None = None) -> Tensor:
        return self._truth.values[:limit].to(torch.float32, copy=True)

    def _batches(self, condition: Tensor | None, limit: int | None = None) -> Iterator[Batch]:
        truth, own = self._truth, self._truth.condition if condition is None else condition
        samples = truth.samples if limit is None else min(limit, truth.samples)
        self._model.eval()
        for first in range(0, samples, self._batch):
            rows = slice(first, min(first + self._batch, samples))
            start = to_device(truth.points(rows, truth.given - 1), self._device)
            known = truth.known(rows, truth.given)
            known = None if known is None else to_device(known, self._device)
            yield Batch(rows, own[rows].to(self._device), prepared(self._model, start), known)

    def _points(self, batch: Batch, newest: int) -> PointSet:
        """What the model is given at a frame; what was looked up of points that stand still is not looked up again."""
        points = to_device(self._truth.points(batch.rows, newest), self._device)
        return points if self._truth.moving else batch.start._replace(values=points.values)

    def _codec(self, latent: Latent, points: PointSet, batch: Batch, step: int) -> Tensor:
        """A true frame decoded where its points are."""
        values = self._model.decode(latent, Queries(points.positions, points.grid))
        return self._undo(values if batch.kinematic is None else batch.kinematic.put(values, values, step))

    def _undo(self, values: Tensor) -> Tensor:
        return self._truth.normaliser.physical(values.float().cpu())
