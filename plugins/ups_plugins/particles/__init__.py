"""Particles that move with the flow: files of them, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import ParticleEncoderConfig
from .formats import LagrangeBenchConfig, ParticleZarrConfig
from .sph.config import LidDrivenCavitySPH2DConfig, TaylorGreenSPH2DConfig, TaylorGreenSPH3DConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on particles."""
    return {
        "dataset": {"particle_zarr": ParticleZarrConfig, "lagrangebench": LagrangeBenchConfig},
        "encoder": {"particle": ParticleEncoderConfig},
        "simulator": {
            "lid_driven_cavity_sph2d": LidDrivenCavitySPH2DConfig,
            "taylor_green_sph2d": TaylorGreenSPH2DConfig,
            "taylor_green_sph3d": TaylorGreenSPH3DConfig,
        },
    }
