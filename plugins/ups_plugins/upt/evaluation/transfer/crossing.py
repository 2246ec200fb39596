"""A model that is given states at some points, and asked for them at others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ups_kit.batching import to_device
from ups_kit.interfaces import PointSet, Queries
from ups_kit.motion import Forecaster, prepared

from ..truth import Truth

if TYPE_CHECKING:
    from ups_kit.model import LatentModel

SAME = 1e-9  # what offsets of grids may differ by


class Crossing:
    """Runs one model from the points of one truth to those of another, of the same trajectories.

    Forecasts are (S, frames, N, C) at the points of the second, in physical units, the given frames copied from it.
    """

    def __init__(self, model: LatentModel, given: Truth, asked: Truth, device: torch.device, batch: int) -> None:
        self._model = model.eval()
        self._forecaster = Forecaster(model, asked.normaliser)
        self._given, self._asked = given, asked
        self._device, self._batch = device, batch
        self._grid = asked_grid(model, given, asked)

    @torch.inference_mode()
    def stepwise(self) -> tuple[Tensor, Tensor]:
        """Every true frame encoded and decoded, and one step from every true frame."""
        codec, one_step = self._start(), self._start()
        asked, last = self._asked, self._asked.values.shape[1] - 1
        for rows in self._rows():
            condition, known = self._condition(rows), to_device(asked.known(rows, asked.given) or (), self._device)
            given = self._points(self._given, rows, asked.given - 1)
            given = given if self._given.moving else prepared(self._model, given)
            for frame in range(asked.given - 1, last + 1):
                now = self._points(self._given, rows, frame)
                given = now if self._given.moving else given._replace(values=now.values)
                at = self._points(asked, rows, frame)
                latent = self._model.encode(given, condition)
                if frame >= asked.given:
                    values = self._model.decode(latent, Queries(at.positions, self._grid))
                    codec[rows, frame] = self._undo(known.put(values, values, frame - asked.given) if known else values)
                if frame < last:
                    latent, before = self._model.step(latent, condition), self._forecaster.first(at)
                    after = self._forecaster.decoded(latent, before, self._grid, known or None, frame + 1 - asked.given)
                    one_step[rows, frame + 1] = self._undo(after.values)
        return codec, one_step

    @torch.inference_mode()
    def latent_rollout(self) -> Tensor:
        """D(A^k(E(u))) for every k."""
        out, asked = self._start(), self._asked
        for rows in self._rows():
            condition, known = self._condition(rows), to_device(asked.known(rows, asked.given) or (), self._device)
            latent = self._model.encode(self._points(self._given, rows, asked.given - 1), condition)
            at = self._points(asked, rows, asked.given - 1)._replace(grid=self._grid)
            frames = self._forecaster.latent(latent, at, condition, asked.steps, known or None)
            for frame, forecast in zip(asked.scored, frames, strict=True):
                out[rows, frame] = self._undo(forecast.values)
        return out

    def _start(self) -> Tensor:
        return self._asked.values.to(torch.float32, copy=True)

    def _rows(self) -> Iterator[slice]:
        for first in range(0, self._asked.samples, self._batch):
            yield slice(first, min(first + self._batch, self._asked.samples))

    def _condition(self, rows: slice) -> Tensor:
        return self._asked.condition[rows].to(self._device)

    def _points(self, truth: Truth, rows: slice, newest: int) -> PointSet:
        return to_device(truth.points(rows, newest), self._device)

    def _undo(self, values: Tensor) -> Tensor:
        return self._asked.normaliser.physical(values.float().cpu())


def asked_grid(model: LatentModel, given: Truth, asked: Truth) -> tuple[int, ...] | None:
    """The grid that a decoder is asked on, where points lie in the cells of both grids as in the data.

    Decoders take that for granted of a grid's points, and of the lattice that they have from an encoder.
    """
    grids = [truth.fields for truth in (given, asked) if truth.fields.grid is not None]
    alike = all(abs(fields.offset - model.fields.offset) < SAME for fields in grids)
    return asked.fields.grid if alike else None
