"""Fields on regular grids: where the data come from, and how they become tokens."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import Burgers1DConfig, GridEncoderConfig, PDEBenchConfig


@hookimpl
def ups_kit_components() -> Components:
    """The parts for data on regular grids."""
    return {
        "dataset": {"pdebench": PDEBenchConfig},
        "simulator": {"burgers1d": Burgers1DConfig},
        "encoder": {"grid": GridEncoderConfig},
    }
