"""Several data sets in one run, as one of several tasks."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import MixtureConfig


@hookimpl
def ups_kit_components() -> Components:
    """The dataset that is made of others."""
    return {"dataset": {"mixture": MixtureConfig}}
