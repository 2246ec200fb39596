"""Particles that move with the flow: files of them, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import ParticleEncoderConfig
from .formats import LagrangeBenchConfig, ParticleZarrConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on particles."""
    return {
        "dataset": {"particle_zarr": ParticleZarrConfig, "lagrangebench": LagrangeBenchConfig},
        "encoder": {"particle": ParticleEncoderConfig},
    }
