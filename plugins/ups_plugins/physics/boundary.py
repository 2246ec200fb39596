"""Losses at the boundary: at the sides of a grid, and at points that a static field marks."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import define, field
from torch import Tensor

from ups_kit import FieldSpec
from ups_kit.averaging import mean_over_points
from ups_kit.errors import PluginError
from ups_kit.interfaces import ForwardPass, Needs, Progress, Sampler

from .losses import Channels, decoded_at
from .selecting import Chosen, chosen, nothing, places_in, reaches_of
from .sides import Side

Kind = Literal["value", "truth", "neumann", "periodic"]


@define(eq=False)
class SidesLoss:
    """Mean square over the points of some sides of a grid, in units of each field's deviation s, of

    value:     (û(w) − g) / s                     neumann:   (∂û/∂n(w) − g) L / s
    truth:     (û(w) − u(w)) / s                  periodic:  (û(low end) − û(high end)) / s

    with n the outward normal, L the extent of the axis. The wall w lies where the domain ends: `offset` of a spacing
    before the first point, 1 − `offset` behind the last one; on a bounded axis of nodes (offset 0) the first and last
    points are the walls. Values there are those of the parabola through the nearest three points (third order), slopes
    its slope (second order).
    """

    channels: Channels
    values: tuple[float, ...]  # physical, one for each of the channels
    kind: Kind
    sides: tuple[Side, ...]
    fields: FieldSpec
    step: int
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = field(init=False)
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaches, self.horizon = reaches_of(self.step, self.channels), self.step

    def needs(self, progress: Progress) -> Needs | None:
        return decoded_at(self.step, self.channels)

    def __call__(self, forward: ForwardPass) -> Tensor:
        if self.channels is None or not places_in(forward, self.channels):
            return nothing(forward, self.step)
        grid = forward.batch.grid
        if grid is None:
            raise PluginError("this loss needs fields on a regular grid; the batch has none")
        found = chosen(forward, self.step, self.channels)
        given = given_values(forward, self.channels, self.values, found)
        size = (len(found.values), -1, found.values.shape[-1])
        parts = [self._mismatch(found, grid, given, side).reshape(size) for side in self.sides]
        return torch.cat(parts, 1).square().mean()

    def _mismatch(self, found: Chosen, grid: tuple[int, ...], given: Tensor, side: Side) -> Tensor:
        """What is squared, (B, …, C), at one side; of a periodic axis at both of its ends."""
        axis, _ = side
        field = found.values.reshape(len(found.values), *grid, -1)
        if self.kind == "periodic":
            return self._at(field, (axis, 0)) - self._at(field, (axis, 1))
        if self.kind == "truth":
            return self._at(field - found.truth.reshape(field.shape), side)
        if self.kind == "value":
            return self._at(field, side) - (given - found.mean) / found.std
        slopes = self._at(field, side, slope=True) * grid[axis]  # per extent of the axis
        return slopes - given * self.fields.extent[axis] / found.std

    def _at(self, values: Tensor, side: Side, slope: bool = False) -> Tensor:
        """Values (B, *grid, C) at a side, or their outward slopes per spacing."""
        axis, end = side
        last = values.shape[axis + 1] - 1
        weights = outward(self._distance(side), slope)
        points = [last - number if end else number for number in range(3)]
        return sum(
            (weight * values.select(axis + 1, point) for weight, point in zip(weights, points, strict=True)),
            torch.zeros_like(values.select(axis + 1, 0)),
        )

    def _distance(self, side: Side) -> float:
        """How far the wall is from the last point before it, in spacings."""
        axis, end = side
        offset = self.fields.offset
        if offset == 0 and not self.fields.periodic[axis]:
            return 0.0
        return 1 - offset if end else offset


def outward(distance: float, slope: bool = False) -> tuple[float, float, float]:
    """What the parabola through values at 0, 1, 2 spacings inwards has at a distance outwards: its value or slope."""
    place = -distance
    if slope:  # outwards, against the direction that the points are counted in
        return (3 - 2 * place) / 2, 2 * place - 2, (1 - 2 * place) / 2
    return (place - 1) * (place - 2) / 2, place * (2 - place), place * (place - 1) / 2


@define(eq=False)
class FlaggedLoss:
    """Mean over samples of the mean square of (û − g) / s at points that a static field marks, g given or the truth.

    A point is marked where the field is above its mean: of zeros and ones, where it is 1. A sample without marked
    points counts as zero.
    """

    channels: Channels
    values: tuple[float, ...]  # physical, one for each of the channels
    truth: bool
    flag: int | None  # the channel of what the encoder is given, from behind
    step: int
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = field(init=False)
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.channels = None if self.flag is None else self.channels
        self.reaches, self.horizon = reaches_of(self.step, self.channels), self.step

    def needs(self, progress: Progress) -> Needs | None:
        return decoded_at(self.step, self.channels)

    def __call__(self, forward: ForwardPass) -> Tensor:
        if self.channels is None or self.flag is None or not places_in(forward, self.channels):
            return nothing(forward, self.step)
        found = chosen(forward, self.step, self.channels)
        marked = forward.batch.inputs.values[..., self.flag] > 0
        if marked.shape != found.values.shape[:2]:
            raise PluginError("this loss needs states at the points that the encoder is given; the batch has others")
        if found.mask is not None:
            marked = marked & found.mask
        if self.truth:
            mismatch = found.values - found.truth
        else:
            given = given_values(forward, self.channels, self.values, found)
            mismatch = found.values - (given - found.mean) / found.std
        return mean_over_points(mismatch.square(), marked).mean()


def given_values(forward: ForwardPass, channels: tuple[int, ...], values: tuple[float, ...], found: Chosen) -> Tensor:
    """The values of those channels that a batch has, (C,)."""
    present = forward.batch.channels
    own = [value for channel, value in zip(channels, values, strict=True) if present is None or channel in present]
    return found.mean.new_tensor(own)
