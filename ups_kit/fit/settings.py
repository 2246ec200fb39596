"""The keys that every training stage shares: budget, batch, optimiser, schedule, stopping, checkpoints."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen
from attrs.validators import ge, gt, lt, optional

from ..interfaces import OptimizerConfig, ScheduleConfig


@frozen
class Budget:
    """How long a stage trains; where several limits are given, the first one reached ends it. 0 skips the stage.

    `seconds` are the process's CPU seconds on a CPU and wall seconds on a GPU.
    """

    steps: int | None = field(default=None, validator=optional(ge(0)), metadata={"help": "optimiser steps"})
    epochs: float | None = field(
        default=None, validator=optional(ge(0)), metadata={"help": "passes over the training windows"}
    )
    seconds: float | None = field(
        default=None,
        validator=optional(ge(0)),
        metadata={"help": "CPU seconds on a CPU, wall seconds on a GPU", "unit": "s"},
    )

    gpu_seconds: float | None = field(
        default=None,
        validator=optional(ge(0)),
        metadata={"help": "wall seconds on a GPU, in the place of `seconds`", "unit": "s"},
    )

    def __attrs_post_init__(self) -> None:
        if (
            self.steps is None and self.epochs is None and self.seconds is None
        ):  # gpu_seconds alone would not end on a CPU
            raise ValueError("one of steps, epochs or seconds is needed, for example { seconds = 300 }")

    def seconds_on(self, device_type: str) -> float | None:
        """The limit in seconds on such a device ("cpu", "cuda")."""
        return self.seconds if device_type == "cpu" or self.gpu_seconds is None else self.gpu_seconds

    @property
    def is_zero(self) -> bool:
        """Whether the stage is to be skipped."""
        return 0 in (self.steps, self.epochs, self.seconds)


@frozen(kw_only=True)
class FitSettings:
    """What every training stage can be told."""

    budget: Budget = field(metadata={"help": "how long to train", "example": "{ seconds = 300 }"})
    optimizer: OptimizerConfig = field(metadata={"help": "optimiser", "example": '{ use = "adamw", lr = 0.001 }'})
    schedule: ScheduleConfig | None = field(
        default=None, metadata={"help": "learning-rate schedule; constant where absent"}
    )
    batch: int = field(default=32, validator=gt(0), metadata={"help": "samples per optimiser step"})
    accumulation: int = field(
        default=1, validator=gt(0), metadata={"help": "parts that a batch is computed in; divides batch"}
    )
    clip: float | None = field(
        default=1.0,
        validator=optional(gt(0.0)),  # type: ignore[arg-type]  # mypy takes the type from the default alone
        metadata={"help": "largest gradient norm"},
    )
    ema: float | None = field(
        default=None,
        validator=optional([ge(0.0), lt(1.0)]),
        metadata={"help": "decay of the weights' moving average; evaluated and exported where given"},
    )
    patience: int | None = field(
        default=None,
        validator=optional(gt(0)),
        metadata={"help": "validations without improvement before the stage stops early"},
    )
    validate_every: int = field(
        default=250, validator=gt(0), metadata={"help": "steps between validations", "unit": "steps"}
    )
    checkpoint_every: int = field(
        default=500, validator=gt(0), metadata={"help": "steps between checkpoints", "unit": "steps"}
    )
    checkpoint_epochs: float | None = field(
        default=None,
        validator=optional(gt(0.0)),
        metadata={"help": "epochs between checkpoints, beside those of checkpoint_every", "unit": "epochs"},
    )
    keep: int = field(default=2, validator=gt(0), metadata={"help": "checkpoints kept beside the best"})
    log_every: int = field(default=25, validator=gt(0), metadata={"help": "steps between log lines", "unit": "steps"})
    on_nonfinite: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "a loss or gradient that is not finite: stop, or skip that step"},
    )

    def __attrs_post_init__(self) -> None:
        if self.batch % self.accumulation:
            near = max(n for n in range(1, self.accumulation + 1) if self.batch % n == 0)
            raise ValueError(
                f"accumulation = {self.accumulation} does not divide batch = {self.batch}; "
                f"nearest: accumulation = {near}"
            )


@frozen(kw_only=True)
class FieldFitSettings(FitSettings):
    """The same for stages that train on fields in space."""

    periodic_shifts: bool = field(
        default=True,
        metadata={"help": "shift every training sample by a random number of points along the periodic axes"},
    )
