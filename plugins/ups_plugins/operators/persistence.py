"""The operator that changes nothing: the floor under all others."""

from __future__ import annotations

from torch import Tensor, nn

from ups_kit import Latent


class PersistenceOperator(nn.Module):
    """A(z, c) = z, without parameters."""

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent
