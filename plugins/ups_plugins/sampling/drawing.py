"""Draws of exactly so many distinct points with given chances, and the weights that undo them.

A point i of N that is drawn with the chance π_i and counts 1/(N·π_i) makes the sum of weight · value, in expectation,
the mean of the values over all points (Horvitz and Thompson 1952). Chances are whole numbers of units here, so that
they are exact: what is drawn is never drawn twice, and no rounding biases the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ups_kit.interfaces import Weighed

UNIT = 2**40  # a chance of 1; the chances of 2^22 points that are drawn sum to 2^62


def chances(scores: Tensor, queries: int, epsilon: float, mask: Tensor | None = None) -> Tensor:
    """The chance of each point in units, (B, N), int64: Q · ((1 - ε)·score/Σscore + ε/N), at most 1, summing to Q.

    What chances above 1 are cut by is shared out among the others in their proportions. Scores (B, N) are finite and
    not negative; where all are 0, all points are alike. Points whose mask is false have no chance; of the others, which
    are at least `queries`, every one has at least one unit.
    """
    real = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    scores = scores.double().masked_fill(~real, 0)
    even = real.double() / real.sum(1, keepdim=True)
    total = scores.sum(1, keepdim=True)
    shares = torch.where(total > 0, (1 - epsilon) * scores / total.clamp_min(torch.finfo(torch.float64).tiny), 0)
    shares = torch.where(total > 0, shares + epsilon * even, even)
    units = (_capped(shares, queries) * UNIT).long().clamp_(1, UNIT).masked_fill_(~real, 0)
    lack = queries * UNIT - units.sum(1, keepdim=True)
    units = units + _fill((UNIT - units).masked_fill(~real, 0), lack.clamp_min(0))
    return units - _fill((units - 1).clamp_min(0), (-lack).clamp_min(0))


def _capped(shares: Tensor, queries: int) -> Tensor:
    """Q times shares (B, N) that sum to 1, none above 1: with the k < Q largest at 1, the others share Q - k."""
    ordered = shares.sort(dim=1, descending=True).values
    tail = ordered.flip(1).cumsum(1).flip(1)  # the sum of a share and of all smaller ones
    left = queries - torch.arange(shares.shape[1], device=shares.device)
    fits = left * ordered <= tail
    capped = fits.long().argmax(1, keepdim=True)  # how many are at 1: the first k with which no other is above
    scale = (queries - capped) / tail.gather(1, capped).clamp_min(torch.finfo(torch.float64).tiny)
    return (shares * scale).clamp_max(1)


def _fill(room: Tensor, amount: Tensor) -> Tensor:
    """How much of an amount (B, 1) goes to each place in order, none more than its room (B, N) of whole numbers."""
    before = room.cumsum(1) - room
    return (amount - before).clamp_min(0).minimum(room)


def systematic(units: Tensor, queries: int, generator: torch.Generator) -> Tensor:
    """Draw points with these chances (B, N), which sum to Q units: indices (B, Q), distinct within a row.

    Points are laid out in random order, each as long as its chance, and taken where a comb of Q teeth, one apart, with
    a random start hits them (Madow 1949): a length of at most 1 is hit once at most, and with exactly its chance.
    """
    batch, points = units.shape
    order = torch.rand(batch, points, device=generator.device, generator=generator, dtype=torch.float64)
    order = order.to(units.device).argsort(dim=1)
    start = torch.randint(UNIT, (batch, 1), device=generator.device, generator=generator).to(units.device)
    ends = units.gather(1, order).cumsum(1)
    teeth = start + UNIT * torch.arange(queries, device=units.device)
    return order.gather(1, torch.searchsorted(ends, teeth, right=True))


def weighed(units: Tensor, queries: int, generator: torch.Generator) -> Weighed:
    """Points drawn with these chances, and their weights 1/(N·π), N being how many points of a sample have a chance."""
    index = systematic(units, queries, generator)
    points = (units > 0).sum(1, keepdim=True)
    return Weighed(index, (UNIT / (points * units.gather(1, index).double())).float())
