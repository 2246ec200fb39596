"""Some of the channels of a tensor, and a tensor with other channels around its own.

Numbers of channels stay Python's own, so that nothing waits for a device; channels that lie side by side cost no copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pick(values: Tensor, channels: Sequence[int] | None) -> Tensor:
    """These channels of (…, C), in this order; all where None."""
    if channels is None or list(channels) == list(range(values.shape[-1])):
        return values
    first = channels[0] if channels else 0
    if list(channels) == list(range(first, first + len(channels))):
        return values[..., first : first + len(channels)]
    return torch.stack([values[..., channel] for channel in channels], -1)


def spread(values: Tensor, channels: Sequence[int], total: int) -> Tensor:
    """(…, C) to (…, total): each channel at the number that it has here, zeros at the others."""
    if list(channels) == list(range(total)):
        return values
    first = channels[0] if channels else 0
    if list(channels) == list(range(first, first + len(channels))):
        return F.pad(values, (first, total - first - len(channels)))
    place = {channel: index for index, channel in enumerate(channels)}
    zeros = torch.zeros_like(values[..., 0])
    return torch.stack([values[..., place[c]] if c in place else zeros for c in range(total)], -1)
