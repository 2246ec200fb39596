"""Samplers of query points (docs/method.md §3). All return indices (batch, queries), distinct within a sample, or None.

None means all points in their order, so that asking for all of them is the dense computation, bit for bit. Samplers
compare equal where their keys do.
"""

from __future__ import annotations

import functools

import torch
from attrs import frozen
from torch import Tensor

from ups_kit import Progress

from .config import StratifiedConfig, UniformConfig

TIE = 1e-9  # far below the difference of two unequal remainders


@frozen
class UniformSampler:
    """Without replacement, every point equally likely: the points with the largest of N random keys."""

    keys: UniformConfig

    def __call__(
        self, positions: Tensor, grid: tuple[int, ...] | None, progress: Progress, generator: torch.Generator
    ) -> Tensor | None:
        batch, points = positions.shape[:2]
        queries = self.keys.count(points, progress)
        if queries == points:
            return None
        random = torch.rand(batch, points, device=generator.device, generator=generator)
        return random.to(positions.device).topk(queries, dim=1, sorted=False).indices


@frozen
class StratifiedSampler:
    """Every block of the domain gives points in proportion to those it holds; uniform inside a block.

    The shares are rounded by largest remainders, equal ones at random, and every block that holds points gives at least
    one where there are enough queries. A point's chance is Q/N up to that rounding.
    """

    keys: StratifiedConfig

    def __call__(
        self, positions: Tensor, grid: tuple[int, ...] | None, progress: Progress, generator: torch.Generator
    ) -> Tensor | None:
        batch, points, dims = positions.shape
        queries = self.keys.count(points, progress)
        if queries == points:
            return None
        along = self.keys.blocks_along(dims, queries)
        if grid is not None:
            blocks, sizes = (part.to(positions.device).expand(batch, -1) for part in _grid_strata(grid, along))
        else:
            blocks = box_cells(positions, along)
            sizes = torch.zeros(batch, along**dims, dtype=torch.long, device=positions.device)
            sizes.scatter_add_(1, blocks, torch.ones_like(blocks))
        ties = torch.rand(sizes.shape, device=generator.device, generator=generator, dtype=torch.float64)
        shares = proportional_shares(sizes, queries, ties.to(positions.device))
        random = torch.rand(batch, points, device=generator.device, generator=generator, dtype=torch.float64)
        return _draw(blocks, sizes, shares, random.to(positions.device), queries)


def _draw(blocks: Tensor, sizes: Tensor, shares: Tensor, random: Tensor, queries: int) -> Tensor:
    """Of every block its share: points in random order within their block, of which the first ones are taken.

    `blocks` and `random` in [0, 1) are (batch, points); `sizes` and `shares` (batch, blocks).
    """
    batch, points = blocks.shape
    order = (blocks + random).argsort(dim=1)
    block = blocks.gather(1, order)
    first = (sizes.cumsum(1) - sizes).gather(1, block)
    rank = torch.arange(points, device=blocks.device) - first
    return order[rank < shares.gather(1, block)].view(batch, queries)


def grid_blocks(grid: tuple[int, ...], along: int) -> Tensor:
    """The block (points,) of every point of a grid cut into `along` parts on each axis, whose sizes differ by one."""
    block = torch.zeros(grid, dtype=torch.long)
    for axis, size in enumerate(grid):
        parts = min(along, size)
        part = torch.arange(size) * parts // size
        block = block * parts + part.view([-1 if other == axis else 1 for other in range(len(grid))])
    return block.flatten()


@functools.lru_cache(maxsize=64)
def _grid_strata(grid: tuple[int, ...], along: int) -> tuple[Tensor, Tensor]:
    """Blocks (1, points) and their sizes (1, blocks)."""
    blocks = grid_blocks(grid, along)
    return blocks[None], torch.bincount(blocks)[None]


def box_cells(positions: Tensor, along: int) -> Tensor:
    """The cell (batch, points) of every point in a regular grid of cells over the bounding box of its sample."""
    low, high = positions.amin(1, keepdim=True), positions.amax(1, keepdim=True)
    extent = (high - low).clamp_min(torch.finfo(positions.dtype).tiny)
    part = ((positions - low) / extent * along).long().clamp_(0, along - 1)
    cell = part[..., 0]
    for axis in range(1, positions.shape[-1]):
        cell = cell * along + part[..., axis]
    return cell


def proportional_shares(sizes: Tensor, queries: int, ties: Tensor) -> Tensor:
    """How many of `queries` points each block gives, (batch, blocks), in proportion to its size.

    Largest remainders; at least one from every block that holds points where the queries suffice. No block gives more
    than it holds. `sizes` sum to the number of points of each sample, which is more than `queries`; `ties` in [0, 1),
    of the same shape, decide between equal remainders.
    """
    quota = sizes.double() * queries / sizes.sum(1, keepdim=True)
    held = sizes > 0
    enough = held.sum(1, keepdim=True) <= queries
    shares = torch.where(held & enough, quota.floor().clamp_min(1), quota.floor()).long()
    missing = queries - shares.sum(1, keepdim=True)
    while bool((missing != 0).any()):
        lack = quota - shares + TIE * ties
        may_give, may_take = shares < sizes, shares > 1
        gives = _rank(torch.where(may_give, -lack, torch.inf)) < missing
        takes = _rank(torch.where(may_take, lack, torch.inf)) < -missing
        shares = shares + (gives & may_give).long() - (takes & may_take).long()
        missing = queries - shares.sum(1, keepdim=True)
    return shares


def _rank(values: Tensor) -> Tensor:
    """The place of every value in its row, the smallest first."""
    return values.argsort(dim=1).argsort(dim=1)
