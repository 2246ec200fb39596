"""Equations that are solved here to make data, each in the public layout of a benchmark."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import (
    Advection1DConfig,
    Burgers1DConfig,
    Darcy2DConfig,
    DiffusionReaction1DConfig,
    DiffusionReaction2DConfig,
    KdV1DConfig,
    KS1DConfig,
    NavierStokes2DConfig,
    ShallowWater2DConfig,
)


@hookimpl
def ups_kit_components() -> Components:
    """The simulators."""
    return {
        "simulator": {
            "advection1d": Advection1DConfig,
            "burgers1d": Burgers1DConfig,
            "darcy2d": Darcy2DConfig,
            "diffusion_reaction1d": DiffusionReaction1DConfig,
            "diffusion_reaction2d": DiffusionReaction2DConfig,
            "kdv1d": KdV1DConfig,
            "ks1d": KS1DConfig,
            "navier_stokes2d": NavierStokes2DConfig,
            "shallow_water2d": ShallowWater2DConfig,
        }
    }
