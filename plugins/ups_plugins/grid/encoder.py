"""Patches of a regular grid as anchored latent tokens, in one, two or three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups_kit import FieldSpec, Latent, LatentSpec, PointSet
from ups_kit.errors import DataError
from ups_kit.layers import Block, Positions, Rotary, continued, zero

ALIKE = 0.01  # of a spacing: what places in a cell differ by when they are the same


class GridEncoder(nn.Module):
    """One token for each patch, anchored at the patch's centre.

    A token sees its own patch and `overlap` patches to each side through a linear map and a small network that is zero
    at first, then
    `depth` transformer blocks mix the tokens. With `depth = 0` the encoder is local: a token depends on nothing
    beyond those patches. Input (batch, points, channels) in row-major order of any grid whose axes are multiples of
    the patch; output (batch, tokens, width).
    """

    def __init__(
        self,
        fields: FieldSpec,
        latent: LatentSpec,
        *,
        patch_size: int,
        overlap: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.fields = fields
        self.patch_size = patch_size
        self.overlap = overlap
        window = fields.input_channels * (patch_size * (1 + 2 * overlap)) ** fields.space_dims
        width = latent.width
        self.linear = nn.Linear(window, width)
        self.up = nn.Linear(window, 2 * width)
        self.down = zero(nn.Linear(2 * width, width))
        self.place = None
        if not all(fields.periodic):  # on a wholly periodic domain no place is special
            features = Positions(fields.domain, fields.periodic, 4)
            self.place = nn.Sequential(features, nn.Linear(features.width, width))
        self.rotary = Rotary(width // heads, fields.domain, fields.periodic)
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=mlp_ratio, periodic=fields.periodic) for _ in range(depth)
        )

    def forward(self, points: PointSet) -> Latent:
        if points.grid is None:
            raise DataError("the encoder 'grid' needs points on a regular grid; use 'mesh' or 'particle' for others")
        lattice = tuple(size // self.patch_size for size in points.grid)
        windows = self._windows(torch.unflatten(points.values, 1, points.grid))
        anchors = self._anchors(lattice, points)
        tokens = self.linear(windows) + self.down(F.gelu(self.up(windows)))
        if self.place is not None:
            tokens = tokens + self.place(anchors)
        if len(self.blocks):
            rotary = self.rotary(anchors)
            for block in self.blocks:
                tokens = block(tokens, rotary, lattice)
        return Latent(tokens, anchors, lattice)

    def _windows(self, values: Tensor) -> Tensor:
        """(batch, *grid, channels) to (batch, tokens, window): each patch with its neighbours to all sides."""
        margin = self.overlap * self.patch_size
        for axis, wraps in enumerate(self.fields.periodic, start=1):
            values = continued(values, margin, axis, wraps) if margin else values
            values = values.unfold(axis, self.patch_size + 2 * margin, self.patch_size)
        dims = len(self.fields.periodic)
        return values.flatten(dims + 1).flatten(1, dims)

    def _anchors(self, lattice: Sequence[int], points: PointSet) -> Tensor:
        """Centres of the patches, (tokens, space_dims)."""
        like, axes = points.positions, []
        for axis, (size, (low, high)) in enumerate(zip(lattice, self.fields.domain)):
            # with nodes instead of cell centres, a patch's middle lies half a spacing lower
            nodes: float | Tensor = (self.fields.offset - 0.5) / (size * self.patch_size)
            if points.grid != self.fields.grid:  # its points may lie elsewhere in their cells
                seen = (like[0, 0, axis].double() - low) / (high - low) - 0.5 / (size * self.patch_size)
                alike = (seen - nodes).abs() * size * self.patch_size < ALIKE
                nodes = torch.where(alike, nodes, seen).to(like.dtype)
            places = (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size + nodes
            axes.append(low + (high - low) * places)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(math.prod(lattice), len(lattice))
