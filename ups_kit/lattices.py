"""Lattices of tokens: windows of them, and coarser ones. Public: a plugin may use them.

Tokens are (batch, tokens, width) in row-major order of their lattice. An axis that is periodic wraps; beyond the ends
of any other there is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import Problem, RecipeError
from .interfaces import Latent

REGIONS = 3  # along an axis: no token, a token, a token that was rolled over an end


class Windows(NamedTuple):
    """A lattice cut into windows of one size, for attention inside them (Liu et al., arXiv:2103.14030).

    An axis of n tokens is cut into ⌈n / window⌉ parts, as short as they can be; what the last lacks is filled up with
    places that hold no token. Where an axis has several windows they may begin half a window later (`shifted`): on a
    periodic axis one then reaches over the seam, on any other its two ends do not hear each other.
    """

    lattice: tuple[int, ...]
    periodic: tuple[bool, ...]
    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, lattice: Sequence[int], window: int, periodic: Sequence[bool], shifted: bool = False) -> Windows:
        """Windows of at most `window` tokens along each axis."""
        counts = tuple(math.ceil(size / window) for size in lattice)
        sizes = tuple(math.ceil(size / count) for size, count in zip(lattice, counts))
        shifts = tuple(size // 2 if shifted and count > 1 else 0 for size, count in zip(sizes, counts))
        return cls(tuple(lattice), tuple(periodic), counts, sizes, shifts)

    def split(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) to (batch · windows, tokens of a window, width)."""
        values = torch.unflatten(tokens, 1, self.lattice)
        if any(self.shifts):
            values = values.roll([-shift for shift in self.shifts], self._axes)
        return self._cut(values)

    def join(self, windows: Tensor) -> Tensor:
        """The way back."""
        dims, width = len(self.lattice), windows.shape[-1]
        values = windows.reshape(-1, *self.counts, *self.sizes, width)
        order = [0, *(place for axis in self._axes for place in (axis, axis + dims)), 1 + 2 * dims]
        whole = [count * size for count, size in zip(self.counts, self.sizes)]
        values = values.permute(order).reshape(-1, *whole, width)
        for axis, size in zip(self._axes, self.lattice):
            values = values.narrow(axis, 0, size)
        if any(self.shifts):
            values = values.roll(self.shifts, self._axes)
        return values.flatten(1, dims)

    def mask(self, tokens: Tensor) -> Tensor | None:
        """Who hears whom in the windows of these tokens, (batch · windows, 1, n, n); None where all hear all."""
        padded = any(count * size > there for count, size, there in zip(self.counts, self.sizes, self.lattice))
        if not padded and all(wraps or not shift for wraps, shift in zip(self.periodic, self.shifts)):
            return None
        region = torch.zeros(self.lattice, device=tokens.device)
        for axis, (size, shift, wraps) in enumerate(zip(self.lattice, self.shifts, self.periodic)):
            own = torch.ones(size, device=tokens.device)
            if not wraps:
                own[size - shift :] = 2.0
            region = REGIONS * region + own.view([-1 if place == axis else 1 for place in range(len(self.lattice))])
        cut = self._cut(region[None, ..., None])
        heard = (cut == cut.mT)[None, :, None]
        return heard.expand(tokens.shape[0], -1, -1, -1, -1).flatten(0, 1)

    def places(self, domain: Sequence[tuple[float, float]], like: Tensor) -> Tensor:
        """Where the tokens of a window stand from its first one on, (tokens of a window, space_dims)."""
        axes = [
            torch.arange(size, device=like.device, dtype=like.dtype) * ((high - low) / count)
            for size, count, (low, high) in zip(self.sizes, self.lattice, domain)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + len(self.lattice)))

    def _cut(self, values: Tensor) -> Tensor:
        """(batch, *lattice, width), rolled, to windows; zeros are where there is no token."""
        lacks = [count * size - there for count, size, there in zip(self.counts, self.sizes, self.lattice)]
        if any(lacks):
            values = F.pad(values, [0, 0, *(end for lack in reversed(lacks) for end in (0, lack))])
        dims = len(self.lattice)
        parts = [part for both in zip(self.counts, self.sizes) for part in both]
        order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1]
        cut = values.reshape(values.shape[0], *parts, values.shape[-1]).permute(order)
        return cut.reshape(-1, math.prod(self.sizes), values.shape[-1])


# ---------------------------------------------------------------------------------------------------------------------
# Coarser lattices
# ---------------------------------------------------------------------------------------------------------------------
def halved(lattice: Sequence[int]) -> tuple[int, ...]:
    """The lattice whose tokens stand for two of this one's along every axis."""
    return tuple((size + 1) // 2 for size in lattice)


def lattice_of(latent: Latent, operator: str, key: str, levels: int) -> tuple[int, ...]:
    """The lattice of the tokens, where it has so many levels; raises RecipeError at `operator.use` or at the key."""
    if latent.grid is None:
        problem = f"'{operator}' needs tokens on a lattice; this encoder's tokens are not on one"
        raise RecipeError("the model", [Problem("operator.use", problem)])
    most = levels_of(latent.grid)
    if levels > most:
        problem = f"expected at most {most} levels for a lattice {latent.grid}; got {levels}"
        raise RecipeError("the model", [Problem(f"operator.{key}", problem)])
    return latent.grid


def levels_of(lattice: Sequence[int]) -> int:
    """How many lattices there are from this one to a single token, each the half of the one before."""
    return 1 + math.ceil(math.log2(max(lattice)))


def evened(values: Tensor, periodic: Sequence[bool], first: int = 1) -> Tensor:
    """Values with one more place on every axis of odd size: the first one's where it wraps, else the last one's.

    The lattice's axes begin at dimension `first`.
    """
    for axis, wraps in enumerate(periodic, start=first):
        size = values.shape[axis]
        if size % 2:
            values = torch.cat([values, values.narrow(axis, 0 if wraps else size - 1, 1)], axis)
    return values


class Merge(nn.Module):
    """Each 2 × … × 2 tokens made one: (batch, tokens, width) to (batch, tokens of `halved`, width of these).

    A linear map of them side by side. At first it is the beginning of Haar's transform: sums, then, where the new
    tokens are wider, differences.
    """

    def __init__(self, width: int, coarse_width: int, periodic: Sequence[bool]) -> None:
        super().__init__()
        self.periodic = tuple(periodic)
        self.linear = nn.Linear(2 ** len(self.periodic) * width, coarse_width, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(haar(width, coarse_width, len(self.periodic)))

    def forward(self, tokens: Tensor, lattice: Sequence[int]) -> Tensor:
        dims = len(self.periodic)
        values = evened(torch.unflatten(tokens, 1, tuple(lattice)), self.periodic)
        parts = [part for size in halved(lattice) for part in (size, 2)]
        order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1]
        values = values.reshape(tokens.shape[0], *parts, tokens.shape[-1]).permute(order)
        merged: Tensor = self.linear(values.reshape(tokens.shape[0], math.prod(halved(lattice)), -1))
        return merged


class Spread(nn.Module):
    """The way back from `Merge`'s tokens: each gives 2 × … × 2. At first the transpose of what `Merge` is at first."""

    def __init__(self, width: int, coarse_width: int, dims: int) -> None:
        super().__init__()
        self.linear = nn.Linear(coarse_width, 2**dims * width, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(haar(width, coarse_width, dims).T)

    def forward(self, tokens: Tensor, lattice: Sequence[int]) -> Tensor:
        """`lattice` is that of the tokens that are given back."""
        dims, coarse = len(lattice), halved(lattice)
        values: Tensor = self.linear(tokens).view(tokens.shape[0], *coarse, *[2] * dims, -1)
        order = [0, *(place for axis in range(1, 1 + dims) for place in (axis, axis + dims)), 1 + 2 * dims]
        values = values.permute(order).reshape(tokens.shape[0], *(2 * size for size in coarse), values.shape[-1])
        for axis, size in enumerate(lattice, start=1):
            values = values.narrow(axis, 0, size)
        return values.flatten(1, dims)


def haar(width: int, coarse_width: int, dims: int) -> Tensor:
    """The first rows of Haar's transform of 2 × … × 2 tokens, (coarse_width, 2^dims · width), orthonormal."""
    one = torch.ones(1, 1)
    for _ in range(dims):
        one = torch.kron(one, torch.tensor([[1.0, 1.0], [1.0, -1.0]])) / math.sqrt(2)
    return torch.kron(one, torch.eye(width))[:coarse_width]
