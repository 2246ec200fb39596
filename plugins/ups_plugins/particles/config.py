"""The keys of the parts for particles."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from ups_kit import FieldSpec, LatentSpec
from ups_kit.supernodes import SupernodeKeys

# ---------------------------------------------------------------------------------------------------------------------
# Encoders
# ---------------------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ParticleEncoderConfig(SupernodeKeys):
    """Particles to latent tokens through supernodes that stand still while the particles move.

    The lattice of supernodes makes the latents of one time comparable with those of the next. With choice = 'farthest'
    or 'random' the tokens stand on particles, whose places differ from frame to frame, unless they are pooled to a
    fixed number (latent.tokens).
    """

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """Besides what holds for all supernodes: an anchor that moves with a particle cannot be stepped in time."""
        yield from super().check(fields, latent)
        if fields.moves_with is not None and self.choice != "grid" and latent.tokens is None:
            yield (
                "choice",
                f"tokens on particles (choice = '{self.choice}') move with them, and a latent step does not; use "
                "choice = 'grid', or give latent.tokens to pool them to a fixed number",
            )
