"""What flows through a model: named tuples, so that torch's tree functions and compiler see through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Supernodes(NamedTuple):
    """Places that an encoder gathers points at, and the points that each of them hears: a table of fixed degree K.

    Places where `mask` is false hold no point, and their index is 0. A row's points are in the order of their distance,
    then of their offset. Made by `ups_kit.neighbours`, ahead of the model or by it.
    """

    positions: Tensor  # (B, S, D)
    neighbours: Tensor  # (B, S, K), int64, indices of points
    mask: Tensor  # (B, S, K), bool
    lattice: tuple[int, ...] | None = None  # the shape of the lattice that the places form, row-major, if they do


class PointSet(NamedTuple):
    """Fields at points: a grid, a mesh or particles.

    Samples with fewer points than others are filled up at the end, with points whose mask is false: those have no
    meaning, finite positions, and must not change what is made of the others.
    """

    positions: Tensor  # (B, N, D), in the domain's own unit of length
    values: Tensor  # (B, N, input channels), normalised
    mask: Tensor | None = None  # (B, N), true where a point is real and not padding; None: all are
    grid: tuple[int, ...] | None = None  # the grid's shape; points are then in row-major order
    supernodes: Supernodes | None = None  # what an encoder would look up first, where it was looked up ahead
    condition: Tensor | None = None  # (B, P), normalised, for encoders that are conditioned (`LatentModel.encode`)


class Queries(NamedTuple):
    """Where a decoder is asked. With `grid` set, the positions are all points of that regular grid, in order."""

    positions: Tensor  # (B, Q, D)
    grid: tuple[int, ...] | None = None


class Latent(NamedTuple):
    """Latent tokens and where they stand."""

    tokens: Tensor  # (B, T, d)
    anchors: Tensor | None  # (T, D) or (B, T, D), or None for tokens without a place
    grid: tuple[int, ...] | None = None  # the shape of the lattice of anchors, row-major, if they form one
    condition: Tensor | None = None  # (B, P), normalised, for decoders that are conditioned
    totals: Tensor | None = None  # (B, C), means of the newest given frame, for constraints that keep them (float64)


class Samples(Protocol):
    """A batch of any family, as the optimisation loop sees it; `Batch` is that of fields in space."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        ...

    def part(self, part: slice) -> Samples:
        """Some samples of the batch; losses of equal parts average to that of the whole."""
        ...


class Batch(NamedTuple):
    """Windows of trajectories, normalised: what goes in at time t, and the target fields at t, t+1 … t+K.

    Steady data have K = 1: states[:, 1] is the answer, and states[:, 0] is zero and means nothing. Where points move
    (`FieldSpec.moves_with`), `positions` are those of every frame, and `places` gives those of one.
    """

    inputs: PointSet  # at t
    states: Tensor  # (B, 1 + K, N, C); states[:, 0] is u_t, states[:, k] is u_{t+k}
    positions: Tensor  # (B, N, D), of the states; of moving points (B, 1 + K, N, D)
    grid: tuple[int, ...] | None  # of the states; None where only some points of a grid were read
    condition: Tensor  # (B, P), normalised, columns as FieldSpec.conditions
    ids: Tensor  # (B,), the trajectory of each sample
    times: Tensor  # (B,), t in physical units
    latents: tuple[Latent, ...] | None = None  # cached latents of t, t+1 … t+K, where there are any
    channels: tuple[int, ...] | None = None  # the target channels that these data have; None: all (see `Multitask`)
    mask: Tensor | None = None  # (B, N), of the states: true where a point is real and not padding; None: all are

    @property
    def samples(self) -> int:
        """Number of samples B."""
        return len(self.states)

    def part(self, part: slice) -> Batch:
        """Some samples of the batch."""
        from ..batching import batch_part

        return batch_part(self, part)

    def places(self, step: int) -> Tensor:
        """Where the states of frame t+step are, (B, N, D)."""
        return self.positions if self.positions.dim() == 3 else self.positions[:, step]


class Trajectories(NamedTuple):
    """Whole trajectories in physical units, for evaluation.

    Trajectories with fewer points than others are filled up at the end, with zeros and a mask that is false.
    """

    values: Tensor  # (S, frames, N, C)
    statics: Tensor  # (S, N, static channels)
    positions: Tensor  # (N, D); (S, N, D) where every trajectory has its own points; (S, frames, N, D) where they move
    parameters: Tensor  # (S, P), physical, columns as FieldSpec.conditions
    times: Tensor  # (frames,)
    ids: Tensor  # (S,)
    mask: Tensor | None = None  # (S, N), true where a point is real; None: all are
    weights: Tensor | None = None  # (S, N), the area or volume of each point, for integrals; None: all count alike


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
    mask: Tensor | None = None  # (B, Q), true where a query is real and not padding; None: all are


class Decoded(NamedTuple):
    """A decoded latent beside the truth, at the same points."""

    values: Tensor  # (B, Q, C)
    truth: Tensor  # (B, Q, C)
    queries: Queries
    mask: Tensor | None = None  # (B, Q), true where a query is real and not padding; None: all are
    weights: Tensor | None = None  # (B, Q), means over all points are Σ weight · value; None: the mean over the queries


class Weighed(NamedTuple):
    """Points that were drawn, and how much each counts in a mean over all points of its sample."""

    points: Tensor  # (B, Q), int64, indices that are distinct within a sample
    weights: Tensor  # (B, Q), float32
