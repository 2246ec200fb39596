"""Decoders: from latent tokens to fields at any point."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import LocalConfig, PartitionConfig, PerceiverConfig


@hookimpl
def ups_kit_components() -> Components:
    """The decoders."""
    return {"decoder": {"partition": PartitionConfig, "local": LocalConfig, "perceiver": PerceiverConfig}}
