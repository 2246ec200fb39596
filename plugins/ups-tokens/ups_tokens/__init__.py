"""Sequences of discrete tokens of several modalities: a family of models of its own for ups_kit."""

from __future__ import annotations

from ups_kit import Components, hookimpl


@hookimpl
def ups_kit_components() -> Components:
    """What the distribution offers."""
    return {}
