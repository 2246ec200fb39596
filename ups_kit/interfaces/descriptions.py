"""What the data are, and how large the latent space is."""

from __future__ import annotations

import math
from typing import Literal

from attrs import field, frozen
from attrs.validators import gt, optional

Layout = Literal["grid", "mesh", "particles"]


@frozen
class Field:
    """One physical field: its name, its number of channels, and its unit."""

    name: str
    channels: int = 1
    unit: str = "1"


@frozen
class FieldSpec:
    """What the data are. It comes from the dataset, and everything downstream is sized from it.

    `targets` are the fields that evolve and are predicted; `statics` are given at every point and do not change.
    An encoder sees `history` frames of the targets, oldest first, and then the statics, as `input_channels` channels.
    With `history` 0 the data are steady: the targets follow from the statics and the conditions in one model step.
    `conditions` names the columns of a condition (B, P); the first is always "dt", the time between two model steps.
    `grid` is the number of points along each axis of a regular grid of cell centres or periodic nodes, else None;
    `offset` is where the first point lies in its cell, as a share of the spacing (0.5: cell centres, 0: nodes).
    `sampled` is at how many random points training reads the states (see `ReadsPoints`), None: at all of them.
    `sampled_inputs` is at how many it reads the inputs, at least; where `sampled` is None, the states are at the same.
    `counts` is the fewest and the most points that a trajectory has, where there is no grid.
    `moves_with` names the target field that the points move with: x_{t+1} = x_t + dt · u_{t+1}, u being the velocity
    with which a point has come to where it is (LagrangeBench's convention); None: points stand still.
    A static field named "kinematic", 1 at points that move as the data say and 0 elsewhere, marks walls, lids and the
    like: forecasts leave them their true motion, and no score counts them.
    """

    targets: tuple[Field, ...]
    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    layout: Layout
    grid: tuple[int, ...] | None
    dt: float
    statics: tuple[Field, ...] = ()
    history: int = 1
    conditions: tuple[str, ...] = ("dt",)
    offset: float = 0.5
    sampled: int | None = None
    sampled_inputs: int | None = None
    counts: tuple[int, int] | None = None
    moves_with: str | None = None

    @property
    def space_dims(self) -> int:
        """Number of space dimensions D."""
        return len(self.domain)

    @property
    def target_channels(self) -> int:
        """Number of predicted channels C."""
        return sum(field.channels for field in self.targets)

    @property
    def input_channels(self) -> int:
        """Number of channels that an encoder sees."""
        return self.history * self.target_channels + sum(field.channels for field in self.statics)

    @property
    def steady(self) -> bool:
        """Whether the targets are no time series, but one answer to the statics."""
        return self.history == 0

    @property
    def reads_points(self) -> bool:
        """Whether training reads windows at some of their points only."""
        return self.sampled is not None or self.sampled_inputs is not None

    @property
    def fewest_points(self) -> int | None:
        """The fewest points that an encoder is ever given, or None where that is not known."""
        if self.grid is not None:
            return self.points
        least = None if self.counts is None else self.counts[0]
        return min(count for count in (least, self.sampled_inputs) if count is not None) if least else None

    @property
    def motion(self) -> slice | None:
        """The target channels of the field that the points move with."""
        first = 0
        for target in self.targets:
            if target.name == self.moves_with:
                return slice(first, first + target.channels)
            first += target.channels
        return None

    @property
    def points(self) -> int | None:
        """Number of points of the grid, or None where it differs between samples."""
        return math.prod(self.grid) if self.grid is not None else None

    @property
    def extent(self) -> tuple[float, ...]:
        """Length of the domain along each axis."""
        return tuple(high - low for low, high in self.domain)


@frozen
class LatentSpec:
    """How large the latent space is: the width d of a token, and the number of tokens where the recipe fixes it."""

    width: int = field(validator=gt(0), metadata={"help": "width of a latent token", "example": "64"})
    tokens: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "number of latent tokens, where the encoder does not set it"},
    )
