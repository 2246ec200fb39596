"""One task of several, in the place that it has among all of them (`interfaces.Multitask`).

The whole's target and static fields are the union of the tasks' by name, its conditions the union of theirs and one
column "task:NAME" each, one for a task's own samples and zero for others', and its space is the unit cube. Everything
here follows from the two field specs, so that a saved model needs no data set to be asked about one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from .channels import pick, spread
from .interfaces import Batch, Dataset, Example, Field, FieldSpec, Latent, Multitask, PointSet, Preparation, Queries
from .model import LatentModel

if TYPE_CHECKING:
    from .data.normalisation import Normaliser

COLUMN = "task:"  # how the column of a task's condition begins


@frozen
class Placement:
    """Where one task's channels, conditions and places stand among those of all tasks."""

    whole: FieldSpec
    own: FieldSpec
    targets: tuple[int, ...]  # the whole's channel of each of the task's own
    statics: tuple[int, ...]
    conditions: tuple[int, ...]  # the whole's column of each of the task's own
    column: int  # of the task itself

    @classmethod
    def of(cls, whole: FieldSpec, own: FieldSpec, task: str) -> Placement:
        """The placement of a task; raises ValueError for a field or a condition that the whole does not have."""
        return cls(
            whole,
            own,
            _channels(whole.targets, own.targets),
            _channels(whole.statics, own.statics),
            tuple(whole.conditions.index(name) for name in own.conditions),
            whole.conditions.index(COLUMN + task),
        )

    @property
    def channels(self) -> tuple[int, ...] | None:
        """The whole's target channels that the task has, in the whole's order; None where it has all."""
        return None if len(self.targets) == self.whole.target_channels else tuple(sorted(self.targets))

    def states(self, values: Tensor) -> Tensor:
        """Target fields (…, C of the task) as (…, C of the whole), zeros where the task has none."""
        return spread(values, self.targets, self.whole.target_channels)

    def answers(self, values: Tensor) -> Tensor:
        """Target fields of the whole (…, C) as those of the task."""
        return pick(values, self.targets)

    def condition(self, values: Tensor) -> Tensor:
        """Conditions (B, P of the task), normalised as the whole's, as (B, P of the whole)."""
        ones = torch.ones_like(values[:, :1])
        return spread(torch.cat([values, ones], -1), (*self.conditions, self.column), len(self.whole.conditions))

    def points(self, points: PointSet) -> PointSet:
        """A model's inputs: frames and statics at the whole's channels, places in the whole's space."""
        given = self.own.history * self.own.target_channels
        frames, statics = points.values[..., :given], points.values[..., given:]
        if self.own.history:
            frames = self.states(torch.unflatten(frames, -1, (self.own.history, -1))).flatten(-2)
        beside = spread(statics, self.statics, sum(field.channels for field in self.whole.statics))
        parts = [part for part in (frames, beside) if part.shape[-1]]
        values = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return points._replace(positions=self.positions(points.positions), values=values)

    def queries(self, queries: Queries) -> Queries:
        """Where a decoder is asked, in the whole's space."""
        return Queries(self.positions(queries.positions), queries.grid)

    def positions(self, positions: Tensor) -> Tensor:
        """Places (B, N, D) of the task's domain in the whole's; points of a grid come to stand alike in their cells."""
        shared = len(positions) > 1 and positions.stride(0) == 0  # one grid for all samples: moved once
        moved = positions[:1] if shared else positions
        axes = []
        for axis, ((low, high), (start, stop)) in enumerate(zip(self.own.domain, self.whole.domain, strict=True)):
            shift = (self.whole.offset - self.own.offset) / self.own.grid[axis] if self.own.grid is not None else 0.0
            place = (moved[..., axis] - low) * ((stop - start) / (high - low))
            axes.append(place + (start + shift * (stop - start)))
        return torch.stack(axes, -1).expand(len(positions), -1, -1)


def _channels(whole: Sequence[Field], own: Sequence[Field]) -> tuple[int, ...]:
    """The whole's number of each channel of the task's fields."""
    first, start = {}, 0
    for field in whole:
        first[field.name] = start
        start += field.channels
    missing = [field.name for field in own if field.name not in first]
    if missing:
        raise ValueError(f"the whole has no field '{missing[0]}' (fields: {', '.join(first)})")
    return tuple(first[field.name] + channel for field in own for channel in range(field.channels))


class TaskView(LatentModel):
    """A model of several tasks as one of a single task: it takes the task's channels and conditions, and gives its own.

    The parts are those of the model itself; its latents stand in the whole's space.
    """

    def __init__(self, model: LatentModel, placement: Placement, normaliser: Normaliser | None = None) -> None:
        super().__init__(
            model.encoder, model.operator, model.decoder, placement.own, normaliser, dict(model.added.items())
        )
        self.placement = placement
        self.training = model.training

    @property
    def preparation(self) -> Preparation | None:
        """None: what is looked up is looked up in the whole's space, by the encoder itself."""
        return None

    def placed(self, points: PointSet, condition: Tensor) -> tuple[PointSet, Tensor]:
        return self.placement.points(points), self.placement.condition(condition)

    def encode(self, points: PointSet, condition: Tensor | None = None) -> Latent:
        own = None if condition is None else self.placement.condition(condition)
        return super().encode(self.placement.points(points), own)

    def step(self, latent: Latent, condition: Tensor) -> Latent:
        return super().step(latent, self.placement.condition(condition))

    def decode(self, latent: Latent, queries: Queries) -> Tensor:
        return self.placement.answers(super().decode(latent, self.placement.queries(queries)))

    def example(self, batch: Batch) -> Example:
        """The example in the model's own channels and space."""
        example = super().example(batch)
        return example._replace(queries=self.placement.queries(example.queries), channels=self.placement.targets)


def tasks_of(dataset: Dataset) -> Mapping[str, Dataset]:
    """The tasks of a dataset by name; a dataset of one task is that, without a name."""
    return dataset.tasks if isinstance(dataset, Multitask) else {"": dataset}


def model_for(task: str, dataset: Dataset, model: LatentModel) -> LatentModel:
    """The model of a dataset as one of this task alone (of `tasks_of`)."""
    return dataset.seen_by(task, model) if isinstance(dataset, Multitask) else model
