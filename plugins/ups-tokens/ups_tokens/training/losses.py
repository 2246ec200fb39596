"""Cross-entropy of the next token, and the error of the value that is expected of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .forward import TokenPass


class TokenLoss(Protocol):
    """What a loss config of this family builds: an error of each target, of which the stage takes the mean."""

    @property
    def modality(self) -> str | None:
        """Whose targets it is of; None: of all."""
        ...

    @property
    def positions(self) -> int | None:
        """How many targets are drawn at most; None: all are taken."""
        ...

    def errors(self, seen: TokenPass, places: Tensor) -> Tensor:
        """The error of each of these targets, (n,), with gradient."""
        ...


class NextToken:
    """−log p of the target among all of the vocabulary."""

    modality: str | None = None
    positions: int | None = None

    def errors(self, seen: TokenPass, places: Tensor) -> Tensor:
        return F.cross_entropy(seen.logits(places), seen.targets[places], reduction="none")


class ExpectedValue:
    """The mean over numbers of (Σ p_i c_i − c*)², with p the softmax within the modality's block."""

    def __init__(self, modality: str, positions: int | None = None, relative: bool = False) -> None:
        self.modality: str | None = modality
        self.positions = positions
        self._name = modality
        self._relative = relative

    def errors(self, seen: TokenPass, places: Tensor) -> Tensor:
        codebook = seen.codebook(self._name)
        expected = expected_values(seen.logits(places, self._name), codebook)
        squared = (expected - codebook[seen.numbers(places, self._name)]).square().mean(-1)
        return squared / codebook.var(0, correction=0).mean() if self._relative else squared


def expected_values(logits: Tensor, codebook: Tensor) -> Tensor:
    """softmax(logits) · codebook, (n, d), in float32 whatever the ambient precision."""
    with torch.autocast(logits.device.type, enabled=False):
        return logits.float().softmax(-1) @ codebook
