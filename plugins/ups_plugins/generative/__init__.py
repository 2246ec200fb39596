"""Stages that learn distributions: of what the operator leaves out, its distillation, and of steady states."""

from __future__ import annotations

from ups_kit import Components, hookimpl

from .config import ConsistencyStageConfig, DiffusionStageConfig, SteadyPriorStageConfig


@hookimpl
def ups_kit_components() -> Components:
    """The stages of docs/method.md §4 that learn distributions."""
    return {
        "stage": {
            "diffusion": DiffusionStageConfig,
            "consistency": ConsistencyStageConfig,
            "steady_prior": SteadyPriorStageConfig,
        }
    }
