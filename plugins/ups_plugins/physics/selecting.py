"""What losses of named fields share: their channels in a batch, units, and means over points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ups_kit.channels import pick
from ups_kit.interfaces import ForwardPass

ALL = ("encoder", "operator", "decoder")
QUIET = 0.01  # of a field's own scale, squared: added to what is divided by, so that a frame at rest cannot dominate


class Chosen(NamedTuple):
    """Some target channels of one decoded step, normalised, beside the truth: value = mean + std · normalised."""

    values: Tensor  # (B, N, C)
    truth: Tensor  # (B, N, C)
    mean: Tensor  # (C,)
    std: Tensor  # (C,)
    mask: Tensor | None  # (B, N)
    places: Tensor  # (B, N, D)

    @property
    def physical(self) -> Tensor:
        """The values in physical units."""
        return self.values * self.std + self.mean


def reaches_of(step: int, channels: object) -> tuple[str, ...]:
    """The parts that a loss on the prediction of a step reaches; none where its fields are another task's."""
    if channels is None:
        return ()
    return ALL if step else ("encoder", "decoder")


def places_in(forward: ForwardPass, channels: Sequence[int]) -> list[int]:
    """Where these target channels are among those that a batch has; those that it has not are left out."""
    present = forward.batch.channels
    if present is None:
        return list(channels)
    place = {channel: number for number, channel in enumerate(present)}
    return [place[channel] for channel in channels if channel in place]


def chosen(forward: ForwardPass, step: int, channels: Sequence[int]) -> Chosen:
    """These channels of the prediction of a step; fewer where the batch's task does not have all of them."""
    decoded, own = forward.decoded(step), places_in(forward, channels)
    zeros = decoded.values.new_zeros(decoded.values.shape[-1], dtype=torch.float64)
    mean = forward.physical(zeros)
    std = forward.physical(zeros + 1) - mean
    kind = decoded.values.dtype
    return Chosen(
        pick(decoded.values, own),
        pick(decoded.truth, own),
        pick(mean, own).to(kind),
        pick(std, own).to(kind),
        decoded.mask,
        decoded.queries.positions,
    )


def nothing(forward: ForwardPass, step: int) -> Tensor:
    """A zero that hangs on the prediction, for a batch of a task that does not have the fields."""
    return forward.decoded(step).values[..., :0].sum()
