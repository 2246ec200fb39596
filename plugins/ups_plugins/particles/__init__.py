"""Particles that move with the flow: files of them, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import ParticleEncoderConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on particles."""
    return {"encoder": {"particle": ParticleEncoderConfig}}
