"""Arrays of different numbers of points as one dense tensor, and which of its points are real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def packed(arrays: Sequence[NDArray[np.float32]], channels: int, first: bool = False) -> Tensor:
    """Arrays (…, n, channels) as one tensor (B, …, N, channels), N being the largest n.

    Arrays with fewer points are filled up at the end: with zeros, or with copies of their `first` point.
    """
    import torch

    most = max((array.shape[-2] for array in arrays), default=0)
    lead = arrays[0].shape[:-2] if arrays else ()
    whole = np.zeros((len(arrays), *lead, most, channels), np.float32)
    for row, array in zip(whole, arrays, strict=True):
        count = array.shape[-2]
        row[..., :count, :] = array
        if first and count < most:
            row[..., count:, :] = array[..., :1, :]
    return torch.from_numpy(whole)


def mask_of(counts: Sequence[int]) -> Tensor | None:
    """Which points of such samples are real, (B, N), or None where all are."""
    import torch

    if len(set(counts)) <= 1:
        return None
    return torch.arange(max(counts))[None, :] < torch.tensor(counts)[:, None]
