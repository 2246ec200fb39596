"""Where a run's numbers and pictures can go besides its own files."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import JsonLinesConfig, TensorBoardConfig


@hookimpl
def ups_kit_components() -> Components:
    """TensorBoard and JSON lines."""
    return {"tracker": {"tensorboard": TensorBoardConfig, "json_lines": JsonLinesConfig}}
