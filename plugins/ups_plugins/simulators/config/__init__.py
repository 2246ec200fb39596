"""Recipe keys of the simulators plugin."""

from __future__ import annotations

from .one_dimension import Advection1DConfig, Burgers1DConfig
from .two_dimensions import Darcy2DConfig, DiffusionReaction2DConfig, NavierStokes2DConfig, ShallowWater2DConfig

__all__ = [
    "Advection1DConfig",
    "Burgers1DConfig",
    "Darcy2DConfig",
    "DiffusionReaction2DConfig",
    "NavierStokes2DConfig",
    "ShallowWater2DConfig",
]
