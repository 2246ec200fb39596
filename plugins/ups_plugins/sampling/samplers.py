"""Samplers of query points (docs/method.md §3). All return indices (batch, queries), distinct within a sample, or None.

None means all points in their order, so that asking for all of them is the dense computation, bit for bit. Where
samples are filled up with padding (a mask), as many points are drawn of each as the one with the fewest real points
gives, and padding never. Samplers compare equal where their keys do.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from ups_kit import Progress

from .config import QueryCount, StratifiedConfig, UniformConfig

TIE = 1e-9  # far below the difference of two unequal remainders


@frozen
class UniformSampler:
    """Without replacement, every point equally likely: the points with the largest of N random keys."""

    keys: UniformConfig

    def __call__(
        self,
        positions: Tensor,
        grid: tuple[int, ...] | None,
        progress: Progress,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> Tensor | None:
        return uniform_points(self.keys, positions, progress, generator, mask)


def uniform_points(
    keys: QueryCount, positions: Tensor, progress: Progress, generator: torch.Generator, mask: Tensor | None
) -> Tensor | None:
    """So many points of each sample as the keys say, (batch, queries), every one equally likely; None for all."""
    batch, points = positions.shape[:2]
    queries = keys.count(fewest(points, mask), progress)
    if queries == points:
        return None
    random = torch.rand(batch, points, device=generator.device, generator=generator).to(positions.device)
    if mask is not None:
        random = random.masked_fill(~mask, -1.0)
    return random.topk(queries, dim=1, sorted=False).indices


@frozen
class StratifiedSampler:
    """Every block of the domain gives points in proportion to those it holds; uniform inside a block.

    The shares are rounded by largest remainders, equal ones at random, and every block that holds points gives at least
    one where there are enough queries. A point's chance is Q/N up to that rounding.
    """

    keys: StratifiedConfig

    def __call__(
        self,
        positions: Tensor,
        grid: tuple[int, ...] | None,
        progress: Progress,
        generator: torch.Generator,
        mask: Tensor | None = None,
    ) -> Tensor | None:
        batch, points = positions.shape[:2]
        queries = self.keys.count(fewest(points, mask), progress)
        if queries == points:
            return None
        blocks, sizes = self._strata(positions, grid, queries, mask)
        ties = torch.rand(sizes.shape, device=generator.device, generator=generator, dtype=torch.float64)
        shares = proportional_shares(sizes, queries, ties.to(positions.device))
        random = torch.rand(batch, points, device=generator.device, generator=generator, dtype=torch.float64)
        if mask is not None:  # padding lies in a block behind the others, which gives nothing
            blocks = blocks.masked_fill(~mask, sizes.shape[1])
            sizes, shares = F.pad(sizes, (0, 1)), F.pad(shares, (0, 1))
        return _draw(blocks, sizes, shares, random.to(positions.device), queries)

    def _strata(
        self, positions: Tensor, grid: tuple[int, ...] | None, queries: int, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The block (batch, points) of every point, and how many real points each block holds (batch, blocks)."""
        batch, _, dims = positions.shape
        along = self.keys.blocks_along(dims, queries)
        if grid is not None:
            blocks, sizes = (part.to(positions.device).expand(batch, -1) for part in _grid_strata(grid, along))
            if mask is None:
                return blocks, sizes
            count = sizes.shape[1]
        else:
            blocks, count = box_cells(positions, along, mask), along**dims
        sizes = torch.zeros(batch, count, dtype=torch.long, device=positions.device)
        real = torch.ones_like(blocks) if mask is None else mask.long()
        return blocks, sizes.scatter_add_(1, blocks, real)


def fewest(points: int, mask: Tensor | None) -> int:
    """How many real points the sample has that has the fewest."""
    return points if mask is None else int(mask.sum(1).min())


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


def box_cells(positions: Tensor, along: int, mask: Tensor | None = None) -> Tensor:
    """The cell (batch, points) of every point in a regular grid of cells over the bounding box of its sample.

    The box is that of the points whose `mask` (batch, points) is true.
    """
    low, high = positions, positions
    if mask is not None:
        out = ~mask.unsqueeze(-1)
        low, high = positions.masked_fill(out, torch.inf), positions.masked_fill(out, -torch.inf)
    low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
    extent = (high - low).clamp_min(torch.finfo(positions.dtype).tiny)
    part = ((positions - low) / extent * along).long().clamp_(0, along - 1)
    cell = part[..., 0]
    for axis in range(1, positions.shape[-1]):
        cell = cell * along + part[..., axis]
    return cell


def proportional_shares(sizes: Tensor, queries: int, ties: Tensor) -> Tensor:
    """How many of `queries` points each block gives, (batch, blocks), in proportion to its size.

    Largest remainders; at least one from every block that holds points where the queries suffice. No block gives more
    than it holds. `sizes` sum to the number of real points of each sample, at least `queries`; `ties` in [0, 1),
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
