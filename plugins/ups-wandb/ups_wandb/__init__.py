"""Weights & Biases as a tracker of ups_kit."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import WandbConfig


@hookimpl
def ups_kit_components() -> Components:
    """The tracker `wandb`."""
    return {"tracker": {"wandb": WandbConfig}}
