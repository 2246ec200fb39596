"""Fields on the nodes of meshes that differ between samples: stores of them, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import MeshEncoderConfig
from .flow.config import ObstacleFlow2DConfig
from .formats import MeshZarrConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on meshes."""
    return {
        "dataset": {"mesh_zarr": MeshZarrConfig},
        "encoder": {"mesh": MeshEncoderConfig},
        "simulator": {"obstacle_flow2d": ObstacleFlow2DConfig},
    }
