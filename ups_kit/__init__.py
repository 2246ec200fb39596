"""ups_kit: train neural surrogates of PDEs in a latent space. Importing it imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import DataError, PluginError, RecipeError, StorageError, UpsKitError
from .hookspecs import hookimpl
from .interfaces import Batch, Components, Field, FieldSpec, Latent, LatentSpec, Needs, PointSet, Progress, Queries
from .weighting import Weighted

if TYPE_CHECKING:
    from .bundle import load_bundle as load
    from .bundle import load_model
    from .data.sample import Sample
    from .reading import read_recipe
    from .recipe import Recipe

__version__ = "0.1.0"

_LAZY = {  # names whose modules import torch, or are not needed to write a plugin
    "Recipe": ("recipe", "Recipe"),
    "Sample": ("data.sample", "Sample"),
    "load": ("bundle", "load_bundle"),
    "load_model": ("bundle", "load_model"),
    "read_recipe": ("reading", "read_recipe"),
}


def __getattr__(name: str) -> Any:
    """Import the heavier names when they are first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'ups_kit' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    from importlib import import_module

    return getattr(import_module(f".{module}", __name__), attribute)


__all__ = [
    "Batch",
    "Components",
    "DataError",
    "Field",
    "FieldSpec",
    "Latent",
    "LatentSpec",
    "Needs",
    "PluginError",
    "PointSet",
    "Progress",
    "Queries",
    "Recipe",
    "RecipeError",
    "Sample",
    "StorageError",
    "UpsKitError",
    "Weighted",
    "__version__",
    "hookimpl",
    "load",
    "load_model",
    "read_recipe",
]
