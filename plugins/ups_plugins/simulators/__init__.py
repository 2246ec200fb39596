"""Equations that are solved here to make data, each in the public layout of a benchmark."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import Burgers1DConfig


@hookimpl
def ups_kit_components() -> Components:
    """The simulators."""
    return {"simulator": {"burgers1d": Burgers1DConfig}}
