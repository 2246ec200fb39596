"""Optimisers and learning-rate schedules."""

from __future__ import annotations

from ups_kit.hookspecs import hookimpl
from ups_kit.interfaces import Components

from .config import (
    AdamConfig,
    AdamWConfig,
    ConstantScheduleConfig,
    CosineScheduleConfig,
    MuonConfig,
    PlateauScheduleConfig,
    SGDConfig,
    StepScheduleConfig,
)


@hookimpl
def ups_kit_components() -> Components:
    return {
        "optimizer": {"adamw": AdamWConfig, "adam": AdamConfig, "sgd": SGDConfig, "muon": MuonConfig},
        "schedule": {
            "constant": ConstantScheduleConfig,
            "cosine": CosineScheduleConfig,
            "step": StepScheduleConfig,
            "plateau": PlateauScheduleConfig,
        },
    }
