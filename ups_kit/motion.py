"""Forecasts of a model as fields at points, and how points move that are carried along (docs/evaluation.md).

Points that move do so with one of the target fields, the velocity u with which a point has come to where it is
(`FieldSpec.moves_with`): x_{t+1} = x_t + Δt·u_{t+1}, where u_{t+1} is asked of the decoder at x_{t+1}. That place is
not known before the velocity is; it is found in three evaluations:

    x' = x_t + Δt·u_t,   x'' = x_t + Δt·D(z_{t+1})(x'),   u_{t+1} = D(z_{t+1})(x''),   x_{t+1} = x_t + Δt·u_{t+1}.

Each evaluation multiplies what is missing by about Δt·|∇u|, which is small where a step resolves the flow. Along a
periodic axis places wrap around; along others they stay within the domain.

A sample with a value or a place that is no finite number is lost, and so is one whose points come to where an encoder
takes none. The others go on: its values are NaN from then on, and its points stay where they were, so that encoders and
decoders are given places only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from attrs import frozen
from torch import Tensor

from .errors import DataError
from .interfaces import FieldSpec, Latent, PointSet, Queries

if TYPE_CHECKING:
    from .data.normalisation import Normaliser
    from .model import LatentModel

KINEMATIC = "kinematic"  # the static field that is 1 at points whose motion is given, such as those of walls and lids


class Frame(NamedTuple):
    """One frame of a forecast."""

    values: Tensor  # (B, N, C), normalised
    positions: Tensor  # (B, N, D), where they hold


class Kinematic(NamedTuple):
    """Points whose motion is given and never forecast, and what they do."""

    mask: Tensor  # (B, N), true at those points
    values: Tensor | None  # (B, steps, N, C), normalised, after the given frames; None: as in the last given frame

    def put(self, values: Tensor, newest: Tensor, step: int) -> Tensor:
        """Values (B, N, C) with the kinematic points' own, at a step counted from 0."""
        return self.held(values, newest if self.values is None else self.values[:, step])

    def held(self, values: Tensor, known: Tensor) -> Tensor:
        """Values (B, N, C) with those of `known` at the kinematic points."""
        return torch.where(self.mask[..., None], known.to(values.dtype), values)


# ---------------------------------------------------------------------------------------------------------------------
# Places
# ---------------------------------------------------------------------------------------------------------------------
def moved(positions: Tensor, velocity: Tensor, fields: FieldSpec) -> Tensor:
    """Where points (…, D) are one time step later, with a velocity (…, D) in physical units.

    They wrap around periodic axes. Along others they do not leave the domain, or stay as far outside as they were.
    NaN where the velocity is not finite.
    """
    there = positions + fields.dt * velocity
    axes = []
    for axis, ((low, high), periodic) in enumerate(zip(fields.domain, fields.periodic, strict=True)):
        before, now = positions[..., axis], there[..., axis]
        if periodic:
            around = low + torch.remainder(now - low, high - low)
            axes.append(torch.where((now >= low) & (now < high), now, around))
        else:
            axes.append(torch.minimum(torch.maximum(now, before.clamp_max(low)), before.clamp_min(high)))
    return torch.where(torch.isfinite(there), torch.stack(axes, -1), math.nan)


def displacement(start: Tensor, end: Tensor, fields: FieldSpec) -> Tensor:
    """end − start (…, D), the shortest way around periodic axes (minimal image)."""
    way = end - start
    axes = [
        torch.where(own.abs() <= (high - low) / 2, own, own - (high - low) * torch.round(own / (high - low)))
        if periodic
        else own
        for own, (low, high), periodic in zip(way.unbind(-1), fields.domain, fields.periodic, strict=True)
    ]
    return torch.stack(axes, -1)


def travelled(start: Tensor, values: Tensor, fields: FieldSpec) -> Tensor:
    """Positions (B, steps, N, D) of points that start at (B, N, D) and have target fields (B, steps, N, C).

    The fields are in physical units; raises ValueError where the points of such data do not move. Where a velocity is
    not finite, the places from there on are not either.
    """
    channels = _motion(fields)
    places, at = [], start
    for frame in values[..., channels].unbind(1):
        at = moved(at, frame, fields)
        places.append(at)
    return torch.stack(places, 1)


def kinematic_points(statics: Tensor, fields: FieldSpec, normaliser: Normaliser) -> Tensor | None:
    """Which points (B, N) are kinematic, by normalised static fields (B, N, static channels); None where none is."""
    channel = 0
    for static in fields.statics:
        if static.name == KINEMATIC:
            half = normaliser.statics(torch.full_like(statics[:1, :1], 0.5))[0, 0, channel]
            found = statics[..., channel] > half
            return found if bool(found.any()) else None
        channel += static.channels
    return None


def _motion(fields: FieldSpec) -> slice:
    if fields.motion is None:
        raise ValueError("the points of these data do not move: no target field is named by moves_with")
    return fields.motion


# ---------------------------------------------------------------------------------------------------------------------
# Forecasts
# ---------------------------------------------------------------------------------------------------------------------
def prepared(model: LatentModel, points: PointSet) -> PointSet:
    """The points with what the model's encoder looks up of them, so that many frames at the same points share it."""
    look_up = model.preparation
    return points if points.supernodes is not None or look_up is None else look_up(points)


@frozen(eq=False)
class Forecaster:
    """A model that forecasts fields at points, standing or moving; all values are normalised."""

    model: LatentModel
    normaliser: Normaliser

    @property
    def moving(self) -> bool:
        """Whether the points move."""
        return self.model.fields.moves_with is not None

    def latent(
        self, start: Latent, points: PointSet, condition: Tensor, steps: int, kinematic: Kinematic | None = None
    ) -> Iterator[Frame]:
        """D(A^k(z)) at the points for k = 1 … `steps`, from a latent z of the points: decoded only to be looked at."""
        latent, frame = start, self.first(points)
        for step in range(steps):
            latent = self.model.step(latent, condition)
            frame = self.decoded(latent, frame, points.grid, kinematic, step)
            yield frame

    def reencoded(
        self, points: PointSet, condition: Tensor, steps: int, kinematic: Kinematic | None = None
    ) -> Iterator[Frame]:
        """The forecast that decodes at all points, moves them, and encodes again after every step."""
        points, frame = prepared(self.model, points), self.first(points)
        for step in range(steps):
            latent = self.model.step(self.model.encode(points, condition), condition)
            frame = self.decoded(latent, frame, points.grid, kinematic, step)
            yield frame
            if step + 1 < steps:
                points, frame = self._onward(points, frame)

    def _onward(self, points: PointSet, frame: Frame) -> tuple[PointSet, Frame]:
        """The points with a forecast as their newest frame, and that frame.

        Points that have come to where no encoder can be given them, such as all to one place, stay and are lost.
        """
        if not self.moving:
            return self.model.advance(points, frame.values), frame
        onward = self.model.advance(points, frame.values, frame.positions)
        try:
            return prepared(self.model, onward), frame
        except DataError:
            lost = torch.tensor([not self._takes(onward, sample) for sample in range(len(onward.positions))])
        lost = lost.to(frame.values.device)[:, None, None]
        values = torch.where(lost, math.nan, frame.values)
        frame = Frame(values, torch.where(lost, points.positions, frame.positions))
        return prepared(self.model, self.model.advance(points, frame.values, frame.positions)), frame

    def _takes(self, points: PointSet, sample: int) -> bool:
        """Whether the encoder finds what it looks up of a sample."""
        mask = None if points.mask is None else points.mask[sample : sample + 1]
        part = slice(sample, sample + 1)
        try:
            prepared(self.model, PointSet(points.positions[part], points.values[part], mask))
        except DataError:
            return False
        return True

    def decoded(
        self,
        latent: Latent,
        before: Frame,
        grid: tuple[int, ...] | None,
        kinematic: Kinematic | None = None,
        step: int = 0,
    ) -> Frame:
        """The frame of a latent, one step after a frame of the same points."""
        if not self.moving:
            return Frame(self.model.decode(latent, Queries(before.positions, grid)), before.positions)
        newest = values = before.values
        if kinematic is not None:
            values = kinematic.put(values, newest, step)
        for _ in range(2):
            there = self._places(before.positions, values)
            values = self.model.decode(latent, Queries(_or(there, before.positions))).float()
            if kinematic is not None:
                values = kinematic.put(values, newest, step)
        there = self._places(before.positions, values)
        lost = ~(_finite(newest) & _finite(values) & _finite(there))
        return Frame(torch.where(lost, math.nan, values), torch.where(lost, before.positions, there))

    def first(self, points: PointSet) -> Frame:
        """The newest frame that a model is given, and where it holds; without values where the data are steady."""
        fields = self.model.fields
        channels = fields.target_channels
        newest = points.values[..., max(fields.history - 1, 0) * channels : fields.history * channels]
        return Frame(newest, points.positions)

    def _places(self, positions: Tensor, values: Tensor) -> Tensor:
        """Where the points are one step later; NaN where that is no place."""
        fields = self.model.fields
        return moved(positions, self.normaliser.physical(values.float())[..., _motion(fields)], fields)


def _or(there: Tensor, positions: Tensor) -> Tensor:
    """Places that are some, and others for points that have none."""
    return torch.where(torch.isfinite(there), there, positions)


def _finite(values: Tensor) -> Tensor:
    """Which samples (B, 1, 1) of (B, N, …) hold numbers alone."""
    return torch.isfinite(values).flatten(1).all(1)[:, None, None]
