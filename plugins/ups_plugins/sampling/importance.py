"""The sampler `importance`: points where fields are steep, or errors have been large, are drawn more often.

Each counts the less in the loss, so that the expectation of a mean over points is that over all of them
(docs/method.md §3). With equal scores, and before any error is known, all points have the same chance.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ups_kit import Batch, Progress
from ups_kit.interfaces import Weighed

from .config import ImportanceConfig
from .drawing import chances, weighed
from .samplers import fewest, uniform_points
from .steepness import Scattered, on_grid

Domain = tuple[tuple[float, float], ...]


@define
class ImportanceSampler:
    """What both scores have in common: how many points, and their draw by the score that `scores` gives."""

    keys: ImportanceConfig
    domain: Domain
    periodic: tuple[bool, ...]

    def __call__(
        self,
        positions: Tensor,
        grid: tuple[int, ...] | None,
        progress: Progress,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> Tensor | None:
        """Without fields there is no score: every point is equally likely."""
        return uniform_points(self.keys, positions, progress, generator, mask)

    @torch.no_grad()
    def weighed(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Weighed | None:
        """Points of the batch's states by their score, and how much each counts."""
        points = batch.states.shape[2]
        queries = self.keys.count(fewest(points, batch.mask), progress)
        if queries == points:
            return None
        units = chances(self.scores(batch), queries, self.keys.epsilon, batch.mask)
        return weighed(units, queries, generator)

    def scores(self, batch: Batch) -> Tensor:
        """The score of every point, (B, N), not negative; those of padding mean nothing."""
        raise NotImplementedError


@define
class GradientSampler(ImportanceSampler):
    """By |∇u| of the true normalised fields, its root mean square over the batch's frames t … t+K.

    All frames, so that losses that are decoded at different steps share one set of points. Points that move have the
    neighbours that they have at t.
    """

    _scattered: Scattered = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._scattered = Scattered(self.domain, self.periodic)

    def scores(self, batch: Batch) -> Tensor:
        if batch.grid is not None:
            return on_grid(batch.states, batch.places(0), batch.grid, self.periodic)
        return self._scattered(batch.states, batch.places(0), batch.mask)


@define
class ErrorSampler(ImportanceSampler):
    """By the root of the mean squared error that has lately been seen in the point's cell of the domain."""

    _errors: CellErrors = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        dims = len(self.domain)
        self._errors = CellErrors(self.domain, self.keys.cells_along(dims), self.keys.decay)

    def scores(self, batch: Batch) -> Tensor:
        return self._errors.at(batch.places(0))

    def observe(self, positions: Tensor, squared: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
        """Note the squared errors of this step; draws follow them from the next step on."""
        self._errors.observe(positions, squared, weights, mask)

    def advance(self, taken: bool) -> None:
        """The step is over: what it saw counts from now on, or never where its update was left out."""
        self._errors.advance(taken)

    def state_dict(self) -> dict[str, Any]:
        return self._errors.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._errors.load_state_dict(state)


class CellErrors:
    """A running mean of the squared error in each cell of a regular lattice over the domain.

    The ratio of two sums over all that was seen, of weight · error and of weight, that both decay by a factor in every
    step. Weights undo the chances of the draws, so that errors are not overrated where more points are drawn. Sums of
    the parts of an accumulated batch add up to those of the whole batch, up to rounding.
    """

    def __init__(self, domain: Domain, along: int, decay: float) -> None:
        self._domain, self._along, self._decay = domain, along, decay
        count = along ** len(domain)
        self._sums = torch.zeros(2, count, dtype=torch.float64)  # of weight · error, and of weight
        self._seen = torch.zeros(2, count, dtype=torch.float64)  # the same of this step

    def at(self, positions: Tensor) -> Tensor:
        """The root mean squared error (B, N) in the cells of positions (B, N, D).

        In cells that nothing was seen of, that of all cells; 0 before anything was seen.
        """
        errors, weights = self._sums
        total = weights.sum()
        overall = errors.sum() / total if total > 0 else total
        mean = torch.where(weights > 0, errors / weights.clamp_min(torch.finfo(torch.float64).tiny), overall)
        return mean.sqrt().to(positions.device)[self.cells(positions)]

    def observe(self, positions: Tensor, squared: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
        """Add squared errors (B, Q) at positions (B, Q, D) to what was seen in this step, where they are finite."""
        if weights is None:
            real = torch.ones_like(squared) if mask is None else mask.to(squared.dtype)
            weights = real / real.sum(1, keepdim=True)
        good = torch.isfinite(squared) & (weights > 0)
        weights = weights.double().masked_fill(~good, 0)
        both = torch.stack([weights * squared.masked_fill(~good, 0), weights]).flatten(1)
        cells = self.cells(positions).flatten().expand(2, -1)
        self._seen = self._seen.to(both.device)
        self._seen.scatter_add_(1, cells, both)

    def advance(self, taken: bool) -> None:
        """Let what was seen count."""
        if taken:
            self._sums = self._sums.to(self._seen.device) * self._decay + self._seen
        self._seen = torch.zeros_like(self._seen)

    def cells(self, positions: Tensor) -> Tensor:
        """The cell (B, N) of positions (B, N, D); positions outside belong to the nearest one."""
        number = torch.zeros(positions.shape[:-1], dtype=torch.long, device=positions.device)
        for axis, (low, high) in enumerate(self._domain):
            part = ((positions[..., axis].double() - low) / (high - low) * self._along).floor().long()
            number = number * self._along + part.clamp_(0, self._along - 1)
        return number

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums.cpu().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["sums"].shape != self._sums.shape:
            raise ValueError(f"errors of {state['sums'].shape[1]} cells, expected {self._sums.shape[1]}")
        self._sums = state["sums"].to(torch.float64).clone()
        self._seen = torch.zeros_like(self._sums)
