"""The anchors nearest to queries, found without a table of all distances in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ups_kit import FieldSpec
from ups_kit.neighbours.tables import neighbour_table

TOGETHER = 2**24  # distances that are held at once
TREE_FROM = 128  # anchors, from which on a tree is faster on a CPU than all distances


def typical_spacing(fields: FieldSpec, anchors: int) -> float:
    """The side of the cube that each of so many anchors would have, were they spread evenly."""
    spacing: float = (math.prod(fields.extent) / anchors) ** (1 / fields.space_dims)
    return spacing


def nearest_anchors(
    positions: Tensor, anchors: Tensor, fields: FieldSpec, count: int, *, lattice: bool = False
) -> tuple[Tensor, Tensor]:
    """Indices (B, Q, k) of the anchors nearest to each position, in the order of their distance, and displacements.

    `positions` are (B, Q, D), `anchors` (T, D) or (B, T, D); distances are those of the nearest image on periodic axes.
    The displacements (B, Q, k, D) lead from the anchors to the positions, in units of the anchors' typical spacing.
    Where a `lattice` of anchors meets a grid, many are equally far, and which ones are taken never depends on how many
    there are.
    """
    tokens = anchors.shape[-2]
    spacing, count = typical_spacing(fields, tokens), min(count, tokens)
    tree = positions.device.type == "cpu" and tokens >= TREE_FROM and not (lattice and fields.grid is not None)
    if tree and not torch.compiler.is_exporting():
        index = _by_tree(positions.detach(), anchors.detach(), fields, count)
    else:
        index = _by_distances(positions.detach(), anchors.detach(), fields, count, spacing)
    if anchors.dim() == 2:
        chosen = anchors[index]
    else:
        spread = index.flatten(1).unsqueeze(-1).expand(-1, -1, anchors.shape[-1])
        chosen = anchors.gather(1, spread).view(*index.shape, -1)
    parts = [_offset(positions[..., None, axis], chosen[..., axis], fields, axis) for axis in range(fields.space_dims)]
    return index, torch.stack(parts, dim=-1) / spacing


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _by_tree(positions: Tensor, anchors: Tensor, fields: FieldSpec, count: int) -> Tensor:
    points = anchors.expand(len(positions), -1, -1)
    domain, periodic = fields.domain, fields.periodic
    return neighbour_table(points, positions, radius=None, most=count, domain=domain, periodic=periodic).neighbours


def _by_distances(positions: Tensor, anchors: Tensor, fields: FieldSpec, count: int, spacing: float) -> Tensor:
    if torch.compiler.is_exporting():  # for any number of queries, and so in one part
        return _squared(positions, anchors, fields, spacing).topk(count, dim=-1, largest=False).indices
    size = max(1, TOGETHER // (len(positions) * anchors.shape[-2]))
    parts = [
        _squared(part, anchors, fields, spacing).topk(count, dim=-1, largest=False).indices
        for part in torch.split(positions, size, dim=1)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _squared(positions: Tensor, anchors: Tensor, fields: FieldSpec, spacing: float) -> Tensor:
    """Squared distances (B, Q, T) in units of the spacing."""
    total: Tensor | None = None
    for axis in range(fields.space_dims):
        offset = _offset(positions[..., axis].unsqueeze(-1), anchors[..., axis].unsqueeze(-2), fields, axis) / spacing
        total = offset.square() if total is None else total + offset.square()
    assert total is not None
    return total


def _offset(positions: Tensor, anchors: Tensor, fields: FieldSpec, axis: int) -> Tensor:
    """From anchors to positions along one axis, to the nearest image where it is periodic."""
    offset, (low, high) = positions - anchors, fields.domain[axis]
    return offset - (high - low) * torch.round(offset / (high - low)) if fields.periodic[axis] else offset
