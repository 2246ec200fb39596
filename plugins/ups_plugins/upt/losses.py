"""The losses of docs/method.md §2 that train an encoder E, an operator A and a decoder D, on normalised fields.

Symbols: u_t the fields at step t, z_t = E(u_t), q query points. Shapes: fields (batch, queries, channels), tokens
(batch, tokens, width). Every loss is a scalar. Where a loss has a sampler it compares at the sampled points only; the
scales that it divides by are those of the whole frame, so that sampling does not change an MSE's expectation.

Where a sampler's points count unequally (`Decoded.weights`), means over points are Σ weight · value; losses that are no
plain means say by their `takes_weights`, or its absence, that they do not go with such a sampler.

Where samples are filled up with padding (`Batch.mask`), every mean over points is one over a sample's real points, and
samples count alike however many points they have: a batch gives the mean of what its samples give one by one.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from attrs import define, field, frozen
from torch import Tensor

from ups_kit.averaging import mean_over_points
from ups_kit.errors import DataError, PluginError
from ups_kit.interfaces import ForwardPass, Latent, Needs, Progress, Sampler

Error = Literal["mse", "relative"]

ALL = ("encoder", "operator", "decoder")
QUIET = 0.01  # added to a frame's mean square (the fields' variance is 1), so that a frame at rest cannot dominate
SMALLEST_VARIANCE = 1e-6
SMALLEST_NORM = 1e-6


def mean_squared_error(forward: ForwardPass, step: int, error: Error) -> Tensor:
    """Squared error of the decoded step, averaged over samples, points and channels.

    With error = "relative", the squared error of each sample and channel is divided by the mean square of its true
    frame plus 0.01, so that fields that have nearly decayed count too.
    """
    decoded = forward.decoded(step)
    squared = (decoded.values - decoded.truth).square()
    if error == "mse":
        if decoded.mask is None and decoded.weights is None:
            return squared.mean()
        return mean_over_points(squared, decoded.mask, decoded.weights).mean()
    mean = mean_over_points(squared, decoded.mask, decoded.weights)
    relative: Tensor = mean / (_mean_square(forward, step, len(squared)) + QUIET)
    return relative.mean()


def _mean_square(forward: ForwardPass, step: int, samples: int) -> Tensor:
    """Mean square of the true frame of each sample and channel over all points, (B, C)."""
    frame, mask = forward.batch.states[:samples, step], forward.batch.mask
    squared = frame.to(torch.promote_types(frame.dtype, torch.float32)).square()
    return mean_over_points(squared, None if mask is None else mask[:samples])


@define(eq=False)
class ForwardLoss:
    """MSE( D(A(E(u_t)), q), u_{t+1}(q) ): the prediction of one step in physical space."""

    error: Error
    sampler: Sampler | None
    reaches: tuple[str, ...] = ALL
    takes_weights: ClassVar[bool] = True
    horizon: int = 1

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, decodes=(1,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        return mean_squared_error(forward, 1, self.error)


@define(eq=False)
class LatentForwardLoss:
    """MSE( A(z_t), stopgrad(E(u_{t+1})) ): the operator must land where the encoder puts the next frame.

    With `relative`, divided by the variance of the target latent, which carries no gradient.
    """

    relative: bool
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = ("encoder", "operator")
    horizon: int = 1

    latents_only: bool = True

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, encodes=(1,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        return _compared(forward, 1, self.relative)


def _compared(forward: ForwardPass, step: int, relative: bool) -> Tensor:
    """The error of the latent of a step to that of the true frame."""
    latent = forward.latent(step)
    _check_places(forward, latent)
    return latent_error(latent.tokens, forward.encoded(step).tokens, relative)


def _check_places(forward: ForwardPass, latent: Latent) -> None:
    """Raise DataError where tokens stand at points that move: those of another frame then stand elsewhere."""
    if forward.batch.positions.dim() == 4 and latent.anchors is not None and latent.grid is None:
        raise DataError(
            "these points move, and so do the tokens that stand at some of them: latents of two frames cannot be "
            "compared token by token; place the encoder's supernodes on a lattice, or leave such losses out"
        )


def latent_error(tokens: Tensor, target: Tensor, relative: bool) -> Tensor:
    """MSE of tokens to a target without gradient; with `relative`, over the target's variance."""
    target = target.detach()
    squared = (tokens - target).square().mean()
    return squared / target.var(correction=0).clamp_min(SMALLEST_VARIANCE) if relative else squared


@frozen
class Curriculum:
    """Which steps k a rollout is compared at: from `from_step` to a horizon that grows to K.

    None before `start`; from there the horizon grows linearly from `from_step`, and is K from `full` on. Both are
    shares of the stage's budget, or epochs.
    """

    horizon: int
    from_step: int
    start: float
    full: float
    clock: Literal["budget", "epochs"]

    def steps(self, progress: Progress) -> range:
        """The steps k that are compared now; none before the start."""
        now = progress.fraction if self.clock == "budget" else progress.epoch
        if now < self.start:
            return range(0)
        share = 1.0 if now >= self.full else (now - self.start) / (self.full - self.start)
        last = self.from_step + math.floor((self.horizon - self.from_step) * share)
        return range(self.from_step, last + 1)


@define(eq=False)
class RolloutLoss:
    """Mean over k of MSE( D(A^k(z_t), q), u_{t+k}(q) ), k as the curriculum says."""

    curriculum: Curriculum
    error: Error
    sampler: Sampler | None
    reaches: tuple[str, ...] = ALL
    takes_weights: ClassVar[bool] = True
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.horizon = self.curriculum.horizon

    def steps(self, progress: Progress) -> range:
        """The steps k that are compared now."""
        return self.curriculum.steps(progress)

    def needs(self, progress: Progress) -> Needs | None:
        steps = self.steps(progress)
        return Needs(steps=steps[-1], decodes=tuple(steps)) if steps else None

    def __call__(self, forward: ForwardPass) -> Tensor:
        errors = [mean_squared_error(forward, step, self.error) for step in self.steps(forward.progress)]
        return torch.stack(errors).mean()


@define(eq=False)
class LatentRolloutLoss:
    """Mean over k of MSE( A^k(z_t), stopgrad(E(u_{t+k})) ), k as the curriculum says: a rollout without a decoder.

    With `relative`, each step's error is divided by the variance of its target latent.
    """

    curriculum: Curriculum
    relative: bool
    sampler: Sampler | None = None
    reaches: tuple[str, ...] = ("encoder", "operator")
    latents_only: bool = True
    horizon: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.horizon = self.curriculum.horizon

    def needs(self, progress: Progress) -> Needs | None:
        steps = self.curriculum.steps(progress)
        return Needs(steps=steps[-1], encodes=tuple(steps)) if steps else None

    def __call__(self, forward: ForwardPass) -> Tensor:
        errors = [_compared(forward, step, self.relative) for step in self.curriculum.steps(forward.progress)]
        return torch.stack(errors).mean()


@define(eq=False)
class RelativeLoss:
    """L2 error of one step over the L2 norm of the true frame, of each sample and channel, then the mean.

    Both norms are root mean squares, so that their ratio does not depend on the number of points.
    """

    sampler: Sampler | None
    reaches: tuple[str, ...] = ALL
    horizon: int = 1

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, decodes=(1,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        decoded = forward.decoded(1)
        error = _root_mean_square(decoded.values - decoded.truth, decoded.mask)
        norm = _mean_square(forward, 1, len(error)).sqrt().clamp_min(SMALLEST_NORM)
        relative: Tensor = error / norm
        return relative.mean()


def _root_mean_square(values: Tensor, mask: Tensor | None) -> Tensor:
    """Root mean square of (B, N, C) over each sample's points, of those whose mask (B, N) is true: (B, C)."""
    if mask is None:
        norm: Tensor = torch.linalg.vector_norm(values, dim=1)
        return norm / math.sqrt(values.shape[1])
    masked: Tensor = torch.linalg.vector_norm(values.masked_fill(~mask.unsqueeze(-1), 0), dim=1)
    return masked / mask.sum(1, keepdim=True).sqrt()


@define(eq=False)
class SpectralLoss:
    """MSE of the magnitudes of the real FFT over the space axes, one step's prediction against the truth.

    The transform is orthonormal, so that the loss is on the scale of the fields whatever the grid's size. It says
    nothing of phases: it belongs beside a loss that does.
    """

    sampler: Sampler | None = None
    reaches: tuple[str, ...] = ALL
    horizon: int = 1

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, decodes=(1,), dense=True)

    def __call__(self, forward: ForwardPass) -> Tensor:
        decoded = forward.decoded(1)
        grid = _grid_of(forward)
        return (_magnitudes(decoded.values, grid) - _magnitudes(decoded.truth, grid)).square().mean()


def _magnitudes(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Magnitudes of the real FFT of (B, N, C) over the axes of its grid."""
    axes = tuple(range(1, 1 + len(grid)))
    magnitudes: Tensor = torch.fft.rfftn(values.reshape(len(values), *grid, -1), dim=axes, norm="ortho").abs()
    return magnitudes


def _grid_of(forward: ForwardPass) -> tuple[int, ...]:
    if forward.batch.grid is None:
        raise PluginError("this loss needs fields on a regular grid; the batch has none")
    return forward.batch.grid


@define(eq=False)
class MeanPreservationLoss:
    """MSE of the spatial means of one step's prediction and the truth, of each sample and channel."""

    sampler: Sampler | None
    reaches: tuple[str, ...] = ALL
    horizon: int = 1

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, decodes=(1,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        decoded = forward.decoded(1)
        return mean_over_points(decoded.values - decoded.truth, decoded.mask).square().mean()


@define(eq=False)
class TotalVariationLoss:
    """Mean absolute difference along the edges of a grid: of the predicted field, or of the predicted latent's lattice.

    Edges join neighbours along each axis, also around the periodic axes.
    """

    of: Literal["field", "latent"]
    periodic: tuple[bool, ...]
    reaches: tuple[str, ...]
    sampler: Sampler | None = None
    horizon: int = 1

    @property
    def latents_only(self) -> bool:
        return self.of == "latent"

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=1, decodes=(1,), dense=True) if self.of == "field" else Needs(steps=1)

    def __call__(self, forward: ForwardPass) -> Tensor:
        if self.of == "field":
            return total_variation(forward.decoded(1).values, _grid_of(forward), self.periodic)
        latent = forward.latent(1)
        return total_variation(latent.tokens, _lattice_of(latent), self.periodic)


def _lattice_of(latent: Latent) -> tuple[int, ...]:
    if latent.grid is None:
        raise DataError("total_variation of = 'latent' needs tokens on a lattice; this encoder's tokens are not on one")
    return latent.grid


def total_variation(values: Tensor, grid: tuple[int, ...], periodic: tuple[bool, ...]) -> Tensor:
    """Mean absolute difference of (B, N, C) along all edges of a grid of N points."""
    field = values.reshape(len(values), *grid, -1)
    total, edges = values.new_zeros(()), 0
    for axis, wraps in enumerate(periodic, start=1):
        ahead = field.roll(-1, axis) if wraps else field.narrow(axis, 1, field.shape[axis] - 1)
        here = field if wraps else field.narrow(axis, 0, field.shape[axis] - 1)
        total = total + (ahead - here).abs().sum()
        edges += here.numel()
    return total / max(edges, 1)


@define(eq=False)
class InverseEncodingLoss:
    """MSE( D(E(u_t), q), u_t(q) ), q drawn from the input points: the decoder undoes the encoder."""

    error: Error
    sampler: Sampler | None
    reaches: tuple[str, ...] = ("encoder", "decoder")
    takes_weights: ClassVar[bool] = True
    horizon: int = 0

    def needs(self, progress: Progress) -> Needs:
        return Needs(decodes=(0,))

    def __call__(self, forward: ForwardPass) -> Tensor:
        return mean_squared_error(forward, 0, self.error)


@define(eq=False)
class InverseDecodingLoss:
    """MSE( E(D(z, x)), stopgrad(z) ): the encoder undoes the decoder, on the latent of step 0 or of a later step.

    Decodes at all points. With a `share` below 1 only that share of the batch, its first samples, is decoded and
    encoded again. With `relative`, divided by the variance of z.
    """

    step: int
    share: float
    relative: bool
    reaches: tuple[str, ...]
    horizon: int
    sampler: Sampler | None = None

    def needs(self, progress: Progress) -> Needs:
        return Needs(steps=self.step, decodes=(self.step,), dense=True, share=self.share)

    def __call__(self, forward: ForwardPass) -> Tensor:
        values, latent = forward.decoded(self.step).values, forward.latent(self.step)
        if self.step:
            _check_places(forward, latent)
        target = latent.tokens[: len(values)]
        return latent_error(forward.reencode(values, self.step).tokens, target, self.relative)
