"""Means over points that losses share. Public."""

from __future__ import annotations

from torch import Tensor


def mean_over_points(values: Tensor, mask: Tensor | None, weights: Tensor | None = None) -> Tensor:
    """Mean of (B, N, C) over each sample's points, of those whose mask (B, N) is true: (B, C); 0 where none is.

    With weights (B, N), which are those of drawn points, the sum of weight · value.
    """
    if weights is not None:
        return (values * weights.unsqueeze(-1)).sum(1)
    if mask is None:
        return values.mean(1)
    return values.masked_fill(~mask.unsqueeze(-1), 0).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
