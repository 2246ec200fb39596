"""A plugin that imports torch when it is listed."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen

from ups_kit import Components, Progress, hookimpl


@frozen(kw_only=True)
class Constant:
    """A constant factor."""

    factor: float = field(default=1.0, metadata={"help": "the factor"})

    def build(self) -> Any:
        return Kept(float(torch.tensor(self.factor)))


class Kept:
    def __init__(self, factor: float) -> None:
        self._factor = factor

    def factor(self, progress: Progress) -> float:
        return self._factor

    def observe(self, validation: float) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@hookimpl
def ups_kit_components() -> Components:
    return {"schedule": {"heavy": Constant}}
