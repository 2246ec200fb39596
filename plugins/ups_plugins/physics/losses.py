"""Losses of docs/method.md §2 that ask physics of predictions, and two that keep latents in shape.

û is the prediction of a step, D(Aᵏ(E(u_t))), at all points, with gradient to every part that made it. Means over
points are over a sample's real points, each counting alike, and samples count alike: a batch gives the mean of what its
samples give one by one. In a batch of a task that does not have a loss's fields the loss is zero.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from attrs import define, field
from torch import Tensor

from ups_kit import FieldSpec
from ups_kit.averaging import mean_over_points
from ups_kit.derivatives import (
    STENCIL,
    Derivative,
    GridDerivative,
    Stencils,
    divergence,
    squared_gradient,
)
from ups_kit.errors import PluginError
from ups_kit.interfaces import ForwardPass, Needs, Progress, Sampler

from .selecting import QUIET, Chosen, chosen, nothing, places_in, reaches_of

Channels = tuple[int, ...] | None
Of = Literal["mass", "momentum", "energy"]
SMALLEST = 1e-30  # of a square that is divided by: a product that is zero everywhere


def decoded_at(step: int, channels: Channels) -> Needs | None:
    """The prediction of a step at all points; nothing where the fields are another task's."""
    return None if channels is None else Needs(steps=step, decodes=(step,), dense=True)


# ---------------------------------------------------------------------------------------------------------------------
# Predicted fields
# ---------------------------------------------------------------------------------------------------------------------
@define(eq=False)
class DivergenceLoss:
    """mean (∇·û)² of a vector field, in physical units; with `relative` over mean |∇u|² + 0.01 Σ (s_i / L_i)².

    u is the true frame of that step, |∇u|² = Σ_ij (∂_j u_i)², s_i the deviation of a component, L_i the axis's extent.
    A central difference does not see waves of two spacings, a mesh's fit hardly: it belongs beside a loss that does.
    """

    channels: Channels
    step: int
    relative: bool
    extent: tuple[float, ...]
    derivative: GridDerivative | None  # of the grid that the data have; None: `stencils`
    stencils: Stencils | None
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = field(init=False)
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaches, self.horizon = reaches_of(self.step, self.channels), self.step

    @classmethod
    def of(
        cls, fields: FieldSpec, channels: Channels, step: int, method: str, neighbours: int | None, relative: bool
    ) -> DivergenceLoss:
        """The loss on such data, whose derivatives are taken by one of the methods of `DivergenceConfig`."""
        on_grid = on_points = None
        if method == "least_squares":
            count = STENCIL[fields.space_dims] if neighbours is None else neighbours
            on_points = Stencils(fields.domain, fields.periodic, count)
        elif fields.grid is not None:
            on_grid = GridDerivative(fields.grid, fields.extent, fields.periodic, method == "spectral")
        return cls(channels, step, relative, fields.extent, on_grid, on_points)

    def needs(self, progress: Progress) -> Needs | None:
        return decoded_at(self.step, self.channels)

    def __call__(self, forward: ForwardPass) -> Tensor:
        if self.channels is None or len(places_in(forward, self.channels)) < len(self.channels):
            return nothing(forward, self.step)
        found = chosen(forward, self.step, self.channels)
        derivative = self._derivative(forward, found)
        squared = mean_over_points(divergence(found.values * found.std, derivative).square(), found.mask)
        if self.relative:
            rough = squared_gradient(found.truth * found.std, derivative, len(self.extent))
            least = QUIET * (found.std / found.std.new_tensor(self.extent)).square().sum()
            squared = squared / (mean_over_points(rough, found.mask) + least)
        return squared.mean()

    def _derivative(self, forward: ForwardPass, found: Chosen) -> Derivative:
        if self.stencils is not None:
            return self.stencils(found.places, found.mask)
        if self.derivative is None or forward.batch.grid != self.derivative.grid:
            raise PluginError(f"this loss needs fields on the data's grid; the batch has {forward.batch.grid}")
        return self.derivative


@define(eq=False)
class ConservationLoss:
    """Mean ((I(û) − I(u)) / scale)², I the mean over points of a density q: u_i, ρu_i or ρ|u|²/2.

    u is the true state at t, or that of the step. Of a field itself the scale is its deviation s; of a product it is
    √(mean q(u)² + 0.01 mean q(s)²), over the points of that true state and with its ρ.
    """

    channels: Channels
    density: Channels
    of: Of
    linear: bool
    against: Literal["start", "truth"]
    step: int
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = field(init=False)
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaches, self.horizon = reaches_of(self.step, self.channels), self.step

    def needs(self, progress: Progress) -> Needs | None:
        return decoded_at(self.step, self.channels)

    def __call__(self, forward: ForwardPass) -> Tensor:
        channels = (*(self.channels or ()), *(self.density or ()))
        if self.channels is None or len(places_in(forward, channels)) < len(channels):
            return nothing(forward, self.step)
        found = chosen(forward, self.step, channels)
        if self.against == "start":
            start = forward.batch.states[..., places_in(forward, channels)][:, 0]
            found = found._replace(truth=start.to(found.values.dtype))
        if self.linear:
            drift = mean_over_points(found.values - found.truth, found.mask)
            return drift.square().mean()
        return self._of_product(found)

    def _of_product(self, found: Chosen) -> Tensor:
        truth = found.truth * found.std + found.mean
        own = self._product(truth)
        drift = mean_over_points(self._product(found.physical) - own, found.mask)
        usual = self._product(
            torch.cat([found.std.expand_as(truth)[..., : self._fields], truth[..., self._fields :]], -1)
        )
        scale = mean_over_points(own.square() + QUIET * usual.square(), found.mask)
        return (drift.square() / scale.clamp_min(SMALLEST)).mean()

    @property
    def _fields(self) -> int:
        return len(self.channels or ())

    def _product(self, physical: Tensor) -> Tensor:
        """q of fields (B, N, C), the last channel ρ where there is one: (B, N, 1), or a column for each component."""
        values = physical[..., : self._fields]
        density = physical[..., self._fields :] if self.density is not None else 1.0
        if self.of == "energy":
            return density * values.square().sum(-1, keepdim=True) / 2
        return density * values


@define(eq=False)
class PositivityLoss:
    """mean relu((m − û) / s)² of fields that never fall below m, s their deviation: zero where none does."""

    channels: Channels
    minimum: float
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
        found = chosen(forward, self.step, self.channels)
        below = torch.relu((self.minimum - found.mean) / found.std - found.values)
        return mean_over_points(below.square(), found.mask).mean()


# ---------------------------------------------------------------------------------------------------------------------
# Latents
# ---------------------------------------------------------------------------------------------------------------------
@define(eq=False)
class LatentNormLoss:
    """Mean over samples of (mean_a ‖z_a‖ − target)²; with `relative` of norms over √d, d the width."""

    target: float
    relative: bool
    step: int
    sampler: Sampler | None = None
    latents_only: bool = True
    horizon: int = 0
    reaches: tuple[str, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaches = ("encoder", "operator") if self.step else ("encoder",)

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=self.step)

    def __call__(self, forward: ForwardPass) -> Tensor:
        tokens = forward.latent(self.step).tokens
        norms: Tensor = torch.linalg.vector_norm(tokens, dim=-1)
        if self.relative:
            norms = norms / math.sqrt(tokens.shape[-1])
        return (norms.mean(1) - self.target).square().mean()


@define(eq=False)
class LatentDiversityLoss:
    """Mean over samples and pairs a ≠ b of tokens of cos²(z_a, z_b): 0 for orthogonal tokens, 1 for parallel ones.

    T tokens of width d cannot all be orthogonal where T > d: the least is then (T/d − 1)/(T − 1).
    """

    step: int
    sampler: Sampler | None = None
    latents_only: bool = True
    horizon: int = 0
    reaches: tuple[str, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reaches = ("encoder", "operator") if self.step else ("encoder",)

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=self.step)

    def __call__(self, forward: ForwardPass) -> Tensor:
        tokens = forward.latent(self.step).tokens
        count, width = tokens.shape[1:]
        unit = torch.nn.functional.normalize(tokens, dim=-1)
        products = unit @ unit.mT if count <= width else unit.mT @ unit  # both have the same sum of squares
        own = unit.square().sum(-1).square().sum(-1)
        pairs: Tensor = (products.square().sum((1, 2)) - own) / max(count * (count - 1), 1)
        return pairs.mean()
