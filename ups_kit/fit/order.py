"""What the stages of a recipe train, what they have learnt from each other, and what they can say ahead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from ..interfaces import FieldSpec, StageConfig
from .settings import FitSettings

TAKEN_WORDS = (  # what torch's modules have of their own, so that no part can be called so
    "T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double "
    "dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half "
    "ipu items keys load_state_dict modules mtia named_buffers named_children named_modules named_parameters "
    "parameters pop register_backward_hook register_buffer register_forward_hook register_forward_pre_hook "
    "register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook "
    "register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook "
    "register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to "
    "to_empty train training type update values xpu zero_grad"
)
TAKEN = frozenset(TAKEN_WORDS.split())


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
    """A stage that can say, before any stage begins, why it could not do its work on the data as they are."""

    def check_ahead(self, experiment: Any) -> None:
        """Raises UsageError or DataError. Nothing is read but what says how long the data are."""
        ...


def part_name(stage: str) -> str:
    """The nearest name that a stage which adds a part may have: without dots, and none of torch's own."""
    name = stage.replace(".", "_").lstrip("_") or "part"
    return f"{name}_stage" if name in TAKEN else name


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
