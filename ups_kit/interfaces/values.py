"""What flows through a model: named tuples, so that torch's tree functions and compiler see through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class PointSet(NamedTuple):
    """Fields at points: a grid, a mesh or particles."""

    positions: Tensor  # (B, N, D), in the domain's own unit of length
    values: Tensor  # (B, N, input channels), normalised
    mask: Tensor | None = None  # (B, N), true where a point is real and not padding
    grid: tuple[int, ...] | None = None  # the grid's shape; points are then in row-major order
    neighbours: Tensor | None = None  # (B, S, K) indices of points, or None


class Queries(NamedTuple):
    """Where a decoder is asked. With `grid` set, the positions are all points of that regular grid, in order."""

    positions: Tensor  # (B, Q, D)
    grid: tuple[int, ...] | None = None


class Latent(NamedTuple):
    """Latent tokens and where they stand."""

    tokens: Tensor  # (B, T, d)
    anchors: Tensor | None  # (T, D) or (B, T, D), or None for tokens without a place
    grid: tuple[int, ...] | None = None  # the shape of the lattice of anchors, row-major, if they form one


class Batch(NamedTuple):
    """Windows of trajectories, normalised: what goes in at time t, and the target fields at t, t+1 … t+K.

    Steady data have K = 1: states[:, 1] is the answer, and states[:, 0] is zero and means nothing.
    """

    inputs: PointSet  # at t
    states: Tensor  # (B, 1 + K, N, C); states[:, 0] is u_t, states[:, k] is u_{t+k}
    positions: Tensor  # (B, N, D), of the states
    grid: tuple[int, ...] | None  # of the states; None where only some points of a grid were read
    condition: Tensor  # (B, P), normalised, columns as FieldSpec.conditions
    ids: Tensor  # (B,), the trajectory of each sample
    times: Tensor  # (B,), t in physical units
    latents: tuple[Latent, ...] | None = None  # cached latents of t, t+1 … t+K, where there are any
    channels: tuple[int, ...] | None = None  # the target channels that these data have; None: all (see `Multitask`)


class Trajectories(NamedTuple):
    """Whole trajectories in physical units, for evaluation."""

    values: Tensor  # (S, frames, N, C)
    statics: Tensor  # (S, N, static channels)
    positions: Tensor  # (N, D)
    parameters: Tensor  # (S, P), physical, columns as FieldSpec.conditions
    times: Tensor  # (frames,)
    ids: Tensor  # (S,)


class Progress(NamedTuple):
    """How far a stage has come."""

    step: int  # optimiser steps done
    epoch: float  # passes over the training windows, fractional
    fraction: float  # share of the stage's budget that is spent, 0 to 1


class Example(NamedTuple):
    """Latents, and the fields that a decoder shall give for them."""

    latent: Latent
    queries: Queries
    values: Tensor  # (B, Q, C) at the queries, normalised
    channels: tuple[int, ...] | None = None  # the model's channel of each of them; None: all, in their order


class Decoded(NamedTuple):
    """A decoded latent beside the truth, at the same points."""

    values: Tensor  # (B, Q, C)
    truth: Tensor  # (B, Q, C)
    queries: Queries
