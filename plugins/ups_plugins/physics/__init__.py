"""Physics that a recipe may ask of predictions, as losses with gradient; and what keeps latents from collapsing."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import (
    BoundaryConfig,
    ConservationConfig,
    DivergenceConfig,
    LatentDiversityConfig,
    LatentNormConfig,
    PositivityConfig,
)
from .constraint_keys import DivergenceFreeConfig, TotalConfig


@hookimpl
def ups_kit_components() -> Components:
    """The losses of docs/method.md §2 that know of physics, two of latents, and the constraints of §1."""
    return {
        "constraint": {"total": TotalConfig, "divergence_free": DivergenceFreeConfig},
        "loss": {
            "divergence": DivergenceConfig,
            "conservation": ConservationConfig,
            "boundary": BoundaryConfig,
            "positivity": PositivityConfig,
            "latent_norm": LatentNormConfig,
            "latent_diversity": LatentDiversityConfig,
        },
    }
