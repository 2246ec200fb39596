"""Parts of batches, point sets and latents, several of them as one, and their way to a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .interfaces import Batch, Latent, PointSet, Supernodes

T = TypeVar("T", bound=tuple[Any, ...])


def batch_part(batch: Batch, part: slice) -> Batch:
    """Some samples of a batch."""
    return batch._replace(
        inputs=points_part(batch.inputs, part),
        states=batch.states[part],
        positions=batch.positions[part],
        condition=batch.condition[part],
        ids=batch.ids[part],
        times=batch.times[part],
        latents=None if batch.latents is None else tuple(latent_part(latent, part) for latent in batch.latents),
        mask=_part(batch.mask, part),
    )


def points_part(points: PointSet, part: slice) -> PointSet:
    """Some samples of a point set."""
    found = points.supernodes
    return points._replace(
        positions=points.positions[part],
        values=points.values[part],
        mask=_part(points.mask, part),
        supernodes=None if found is None else _supernodes_part(found, part),
        condition=_part(points.condition, part),
    )


def _supernodes_part(found: Supernodes, part: slice) -> Supernodes:
    return Supernodes(found.positions[part], found.neighbours[part], found.mask[part], found.lattice)


def latent_part(latent: Latent, part: slice) -> Latent:
    """Some samples of a latent; anchors that all samples share stay."""
    anchors = latent.anchors
    if anchors is not None and anchors.dim() == 3:
        anchors = anchors[part]
    condition, totals = _part(latent.condition, part), _part(latent.totals, part)
    return Latent(latent.tokens[part], anchors, latent.grid, condition, totals)


def joined_points(parts: Sequence[PointSet]) -> PointSet:
    """Several point sets of one kind, one after the other along the batch axis."""
    if len(parts) == 1:
        return parts[0]
    supernodes = [part.supernodes for part in parts if part.supernodes is not None]
    return PointSet(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.values for part in parts]),
        _joined([part.mask for part in parts]),
        parts[0].grid,
        _joined_supernodes(supernodes) if len(supernodes) == len(parts) else None,
        _joined([part.condition for part in parts]),
    )


def _joined_supernodes(parts: Sequence[Supernodes]) -> Supernodes:
    return Supernodes(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.neighbours for part in parts]),
        torch.cat([part.mask for part in parts]),
        parts[0].lattice,
    )


def joined_latents(parts: Sequence[Latent]) -> Latent:
    """Several latents of one model, one after the other along the batch axis."""
    if len(parts) == 1:
        return parts[0]
    anchors = parts[0].anchors
    if anchors is not None and anchors.dim() == 3:
        anchors = torch.cat([part.anchors for part in parts if part.anchors is not None])
    tokens = torch.cat([part.tokens for part in parts])
    condition, totals = _joined([part.condition for part in parts]), _joined([part.totals for part in parts])
    return Latent(tokens, anchors, parts[0].grid, condition, totals)


def to_device(values: T, device: torch.device) -> T:
    """A batch, point set or latent on a device; the copies may still be under way when this returns."""

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if not isinstance(value, tuple):
            return value
        parts = [moved(part) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value  # it is there already
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)

    return cast("T", moved(values))


def _part(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None
