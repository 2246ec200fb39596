"""The keys of a dataset that is made of others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs
from attrs import field, frozen

from ups_kit import FieldSpec, LatentSpec
from ups_kit.errors import did_you_mean
from ups_kit.interfaces import Dataset, DatasetConfig

NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}"
TASKS_EXAMPLE = (
    '{ burgers = { use = "pdebench", path = "data/burgers.h5" }, '
    'advection = { use = "pdebench", path = "data/advection.h5" } }'
)


@frozen(kw_only=True)
class MixtureConfig:
    """Several data sets in one run: one model for several equations, fields and grid sizes.

    The model's fields are the union of the tasks' by name, its space is the unit cube, and conditions "task:NAME" tell
    it which task a sample is of. Every batch is of one task; losses see the fields that it has. The tasks agree in the
    number of space dimensions, in which axes are periodic, and in the frames given; their grids may differ.
    """

    tasks: Mapping[str, DatasetConfig] = field(
        metadata={"help": "the data sets by a name of the task", "example": TASKS_EXAMPLE}
    )
    sampling: Literal["proportional", "equal"] | None = field(
        default=None,
        metadata={
            "help": "how often a task's turn comes: as its share of the train windows (where neither this nor weights "
            "is given), or as often as any other's"
        },
    )
    weights: Mapping[str, float] | None = field(
        default=None,
        metadata={
            "help": "instead of sampling: shares of the steps by task, as ratios",
            "example": "{ burgers = 2.0, advection = 1.0 }",
        },
    )

    def __attrs_post_init__(self) -> None:
        keys = attrs.fields_dict(type(self))
        if not self.tasks:
            raise ValueError("expected one or more tables [dataset.tasks.NAME], got none", keys["tasks"])
        for name, task in self.tasks.items():
            if not re.fullmatch(NAME, name):
                message = f"'{name[:80]}' cannot be the name of a task; expected letters, digits, _ -"
                raise ValueError(message, keys["tasks"])
            if isinstance(task, MixtureConfig):
                message = f"'{name}' is a mixture itself; write its tasks beside the others, in dataset.tasks"
                raise ValueError(message, keys["tasks"])
        if self.weights is not None:
            self._refuse_weights(self.weights, keys)

    def _refuse_weights(self, weights: Mapping[str, float], keys: Mapping[str, attrs.Attribute[object]]) -> None:
        if self.sampling is not None:
            message = f"weights stand for sampling = '{self.sampling}'; leave one of the two out"
            raise ValueError(message, keys["weights"])
        for name, weight in weights.items():
            if name not in self.tasks:
                known = ", ".join(self.tasks)
                message = f"there is no task '{name[:80]}'{did_you_mean(name[:100], self.tasks)} (tasks: {known})"
                raise ValueError(message, keys["weights"])
            if weight <= 0:
                message = f"expected a number greater than 0 for '{name}', got {weight:g}; leave the task out instead"
                raise ValueError(message, keys["weights"])
        missing = [name for name in self.tasks if name not in weights]
        if missing:
            message = f"expected a weight for every task; missing: {', '.join(missing)}"
            raise ValueError(message, keys["weights"])

    def describe(self) -> FieldSpec:
        """The union of the tasks' fields; raises DataError where the tasks do not fit together."""
        from .fields import described, union

        return union(described(self))

    def describe_tasks(self) -> Mapping[str, FieldSpec]:
        """The fields of the whole, on each task's own grid."""
        from .fields import described, on_own_grids

        return on_own_grids(described(self))

    def check(self, fields: FieldSpec, latent: LatentSpec) -> Iterable[tuple[str, str]]:
        """What is wrong with the tasks' own keys."""
        from .fields import task_problems

        yield from task_problems(self, latent)

    def build(self, seed: int) -> Dataset:
        """Build every task's data set and put them together."""
        from .dataset import read_mixture

        return read_mixture(self, seed)
