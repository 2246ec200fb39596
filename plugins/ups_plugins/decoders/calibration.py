"""Least squares for the calibration of a partition of unity: normal equations, and expansions around tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ups_kit.interfaces import Example

Equations: TypeAlias = tuple[Tensor, Tensor]  # (F, F) and (F, channels, columns)

SEEN = 1e-6  # windows smaller than that are left out


def chosen_points(example: Example, sample: int, every: int) -> Tensor:
    """Indices of every n-th of a sample's real queries; which ones differs between samples."""
    if example.mask is None:
        points = torch.arange(example.values.shape[1], device=example.values.device)
    else:
        points = example.mask[sample].nonzero().squeeze(1)
    return points[sample % every :: every]


def token_fits(
    pieces: Iterable[tuple[Tensor, Tensor]], values: Tensor, tokens: int, ridge: Tensor
) -> tuple[Tensor, Tensor]:
    """The expansion around each token that fits the points in its window best, (T, C, M), and how much each counts.

    `pieces` are indices (Q,) of tokens, and window times expansion (Q, M) whose first function is 1; `values` (Q, C).
    Every point's squared error is weighted by the window. `ridge` (M,) is in units of the mean diagonal of all tokens'
    normal equations, so that what few points leave open is small. A token counts by the sum of its window, which is 1
    on average.
    """
    indices, bases = zip(*pieces)
    index, rows = torch.cat(indices), torch.cat(bases)
    point = torch.arange(len(values), device=values.device).repeat(len(indices))
    order = index.argsort(stable=True)
    order = order[rows[order, 0] > SEEN]
    index, rows, point = index[order], rows[order], point[order]
    window = rows[:, 0].clone()
    root = window.sqrt().unsqueeze(-1)
    rows, wanted = rows / root, root * values[point]
    sizes = torch.bincount(index, minlength=tokens).tolist()
    parts, goals = torch.split(rows, sizes), torch.split(wanted, sizes)
    gram = torch.stack([part.T @ part for part in parts])
    right = torch.stack([part.T @ goal for part, goal in zip(parts, goals)])
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += ridge * diagonal.mean()
    solution: Tensor = torch.linalg.solve(gram, right)
    shares = torch.zeros(tokens, dtype=window.dtype, device=window.device).index_add_(0, index, window)
    return solution.transpose(1, 2), shares / shares.mean()


def of_channels(held: Sequence[int], equations: Equations, channels: Sequence[int]) -> Equations:
    """Normal equations of an example that holds some channels, for these of them alone."""
    gram, right = equations
    places = [list(held).index(channel) for channel in channels]
    return gram, right if places == list(range(right.shape[1])) else right[:, places]


def summed(equations: Iterable[Equations]) -> Equations:
    """Normal equations of several examples as one, in tensors of their own."""
    grams, rights = zip(*equations)
    gram, right = grams[0].clone(), rights[0].clone()
    for more, beside in zip(grams[1:], rights[1:]):
        gram += more
        right += beside
    return gram, right
