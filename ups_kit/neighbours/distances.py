"""Distances, their order, and hashes of positions, in one way for all back ends, so that their tables are equal.

Differences of positions are taken in float64, wrapped to the nearest image on periodic axes, squared, and added up axis
by axis. Points at equal distances from a centre are in the order of their offset from it, axis by axis, and points at
one and the same place in the order of their index: nothing else depends on the order of the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

Bits = TypeVar("Bits", Tensor, NDArray[np.int64])

HALF = 0xFFFFFFFF


@frozen
class Box:
    """The domain: where it begins, how long it is, and along which axes it wraps."""

    low: tuple[float, ...]
    length: tuple[float, ...]
    periodic: tuple[bool, ...]

    @classmethod
    def of(cls, domain: Sequence[tuple[float, float]], periodic: Sequence[bool]) -> Box:
        return cls(
            tuple(float(low) for low, _ in domain),
            tuple(float(high) - float(low) for low, high in domain),
            tuple(bool(wraps) for wraps in periodic),
        )

    def wrapped(self, columns: Tensor) -> Tensor:
        """Columns (D, n) with periodic axes moved into [0, length); others are left as they are."""
        columns = columns.clone()
        for axis, (low, length, wraps) in enumerate(zip(self.low, self.length, self.periodic)):
            if wraps:
                share = columns[axis] - low
                share = share - length * torch.floor(share / length)
                columns[axis] = share.clamp(0.0, math.nextafter(length, 0.0))
        return columns

    def offsets(self, points: Tensor, centres: Tensor, index: Tensor) -> list[Tensor]:
        """For each axis the offset of the points `index` (R, M) of columns (D, n) from the centres (D, R), (R, M)."""
        found = []
        for axis, (length, wraps) in enumerate(zip(self.length, self.periodic)):
            offset = points[axis][index] - centres[axis].unsqueeze(-1)
            found.append(offset - length * torch.round(offset / length) if wraps else offset)
        return found


def squared(offsets: Sequence[Tensor]) -> Tensor:
    """The squared length of offsets that are given axis by axis; always added in this order."""
    total = offsets[0] * offsets[0]
    for offset in offsets[1:]:
        total = total + offset * offset
    return total


def in_order(box: Box, points: Tensor, centres: Tensor, index: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates `index` (R, M) with squared distances, inf where there is none, as rows in order.

    Costs little where they are in order already and no two are equally far.
    """
    rows = _out_of_order(distance)
    if len(rows):
        far, place = distance[rows].sort(dim=1)
        index, distance = index.clone(), distance.clone()
        index[rows], distance[rows] = index[rows].gather(1, place), far
        rows = rows[_out_of_order(far)]
    if len(rows):
        some = index[rows]
        keys = [distance[rows], *box.offsets(points, centres[:, rows], some), some]
        order = torch.argsort(keys[-1], dim=1, stable=True)
        for key in reversed(keys[:-1]):
            order = order.gather(1, torch.argsort(key.gather(1, order), dim=1, stable=True))
        index[rows], distance[rows] = some.gather(1, order), keys[0].gather(1, order)
    return index, distance


def _out_of_order(distance: Tensor) -> Tensor:
    """The rows of (R, M) where an entry is not further away than the one before it; inf may follow inf."""
    following = (distance[:, 1:] > distance[:, :-1]) | torch.isinf(distance[:, 1:])
    return (~following.all(1)).nonzero().squeeze(1)


def nearest(
    box: Box, points: Tensor, centres: Tensor, index: Tensor, distance: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """The first `most` of all candidates `index` (R, M), in order, (R, most); squared distances are inf beyond them."""
    if index.shape[1] > 2 * most:  # leave out those that are further away than the last one can be
        last = distance.kthvalue(most, dim=1, keepdim=True).values
        width = max(int((distance <= last).logical_and(~torch.isinf(distance)).sum(1).max()), most)
        if width < index.shape[1]:
            distance, place = distance.topk(width, dim=1, largest=False, sorted=True)
            index = index.gather(1, place)
    index, distance = in_order(box, points, centres, index, distance)
    return fitted(index, most, 0), fitted(distance, most, math.inf)


def fitted(columns: Tensor, most: int, filling: float) -> Tensor:
    """(R, M) cut or filled up to (R, most)."""
    if columns.shape[1] >= most:
        return columns[:, :most]
    return torch.nn.functional.pad(columns, (0, most - columns.shape[1]), value=filling)


# ---------------------------------------------------------------------------------------------------------------------
# Hashes
# ---------------------------------------------------------------------------------------------------------------------
def position_hash(positions: Tensor, salt: int = 0) -> Tensor:
    """A pseudo-random int64 for each position (…, D), from its float32 bits alone; equal places have equal hashes."""
    bits = (positions.to(torch.float32) + 0.0).contiguous().view(torch.int32).to(torch.int64) & HALF
    return mixed_bits([bits[..., axis] for axis in range(bits.shape[-1])], salt)


def mixed_bits(bits: Sequence[Bits], salt: int = 0) -> Bits:
    """Mix int64 arrays, of numpy or of torch, into one: multiplications modulo 2^64 and shifts, as in splitmix64."""
    state = bits[0] * 0 + (0x1E3779B97F4A7C15 ^ salt)
    for part in bits:
        state = mixed((state ^ part) * -0x61C8864680B583EB)
    return state


def mixed(state: Bits) -> Bits:
    """The finisher of splitmix64 (Steele, Lea and Flood 2014), one to one."""
    state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    state = (state ^ ((state >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return state ^ ((state >> 31) & 0x1FFFFFFFF)
