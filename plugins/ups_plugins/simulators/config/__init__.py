"""Recipe keys of the simulators plugin."""

from __future__ import annotations

from .one_dimension import Advection1DConfig, Burgers1DConfig, DiffusionReaction1DConfig, KdV1DConfig, KS1DConfig
from .two_dimensions import Darcy2DConfig, DiffusionReaction2DConfig, NavierStokes2DConfig, ShallowWater2DConfig

__all__ = [
    "Advection1DConfig",
    "Burgers1DConfig",
    "Darcy2DConfig",
    "DiffusionReaction1DConfig",
    "DiffusionReaction2DConfig",
    "KS1DConfig",
    "KdV1DConfig",
    "NavierStokes2DConfig",
    "ShallowWater2DConfig",
]
