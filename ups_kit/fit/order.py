"""What the stages before a stage have trained."""

from __future__ import annotations

from collections.abc import Iterable

from ..interfaces import StageConfig
from .settings import FitSettings


def trained_by(stages: Iterable[StageConfig]) -> frozenset[str]:
    """The parts of the model that these stages train; a stage without a budget is skipped, and trains nothing."""
    return frozenset(
        part
        for stage in stages
        if not (isinstance(stage, FitSettings) and stage.budget.is_zero)
        for part in getattr(stage, "trains", ())
    )
