"""Latent operators: one step in time on latent tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import FNOConfig, PDETransformerConfig, PersistenceConfig, TransformerConfig, UNetConfig


@hookimpl
def ups_kit_components() -> Components:
    """The operators."""
    return {
        "operator": {
            "fno": FNOConfig,
            "pde_transformer": PDETransformerConfig,
            "persistence": PersistenceConfig,
            "transformer": TransformerConfig,
            "unet": UNetConfig,
        }
    }
