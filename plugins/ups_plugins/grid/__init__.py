"""Fields on regular grids: files of them, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import GridEncoderConfig, PDEBenchConfig
from .formats import GridZarrConfig, WellConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on regular grids."""
    return {
        "dataset": {"pdebench": PDEBenchConfig, "well": WellConfig, "grid_zarr": GridZarrConfig},
        "encoder": {"grid": GridEncoderConfig},
    }
