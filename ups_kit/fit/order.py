"""What the stages of a recipe train, what they have learnt from each other, and what they can say ahead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..interfaces import FieldSpec, StageConfig
from .settings import FitSettings

if TYPE_CHECKING:
    from ..assemble import Experiment


@runtime_checkable
class TrainsByData(Protocol):
    """A stage's config whose `trains` depends on the data."""

    def trained_on(self, fields: FieldSpec) -> tuple[str, ...]:
        """The parts that every model has, of which it changes the weights on such data."""
        ...


@runtime_checkable
class LearnsFrom(Protocol):
    """A stage's config whose part learns what other parts of the model give, and must not change after it."""

    @property
    def learns_from(self) -> tuple[str, ...]: ...


@runtime_checkable
class ForecastsAlone(Protocol):
    """A stage's config whose part makes forecasts without the model's encoder and operator."""

    @property
    def forecasts_alone(self) -> bool: ...


@runtime_checkable
class ChecksAhead(Protocol):
    """A training stage that can say, before any stage begins, why it could not train on the data as they are."""

    def check_ahead(self, experiment: Experiment) -> None:
        """Raises UsageError or DataError. Nothing is read but what says how long the data are."""
        ...


def is_skipped(stage: StageConfig) -> bool:
    """Whether a training stage has no budget."""
    return isinstance(stage, FitSettings) and stage.budget.is_zero


def trained_by(stages: Iterable[StageConfig], fields: FieldSpec | None = None) -> frozenset[str]:
    """The parts of the model that these stages train; a stage without a budget is skipped, and trains nothing.

    `fields` are the data, where they are known.
    """
    return frozenset(part for stage in stages if not is_skipped(stage) for part in _trains(stage, fields))


def _trains(stage: StageConfig, fields: FieldSpec | None) -> tuple[str, ...]:
    if fields is not None and isinstance(stage, TrainsByData):
        return stage.trained_on(fields)
    trains: tuple[str, ...] = getattr(stage, "trains", ())
    return trains


def forecasts_alone(stages: Iterable[StageConfig]) -> bool:
    """Whether one of these stages trains a part that makes forecasts by itself."""
    return any(
        isinstance(stage, ForecastsAlone) and stage.forecasts_alone and not is_skipped(stage) for stage in stages
    )
