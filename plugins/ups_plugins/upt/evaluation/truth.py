"""The held-out trajectories that a model is scored on, and what the model is given of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import torch
from attrs import field, frozen
from torch import Tensor

from ups_kit.errors import DataError
from ups_kit.interfaces import Dataset, FieldSpec, PointSet, Queries, Trajectories
from ups_kit.metrics import forecast_frames

if TYPE_CHECKING:
    from ups_kit.data.normalisation import Normaliser

PART_BYTES = (64 << 20, 256 << 20)  # of a forecast that is held at a time: as a rule a quarter of the truth
BLOCK_VALUES = 4 << 20  # of a forecast that is computed with in float64 at a time


@frozen(eq=False)
class Truth:
    """Trajectories of a split, cut to the frames that are given and the steps that are rolled out.

    Forecasts of it have the shape of `values`, (S, frames, N, C) in physical units; their given frames are the truth's.
    Of steady data the one frame is the answer, no frame is given, and the one step that there is leads to it.
    """

    fields: FieldSpec
    normaliser: Normaliser
    values: Tensor  # (S, frames, N, C), physical
    statics: Tensor = field(repr=False)  # (S, N, static channels), normalised
    positions: Tensor = field(repr=False)  # (N, D)
    parameters: Tensor = field(repr=False)  # (S, P), physical
    condition: Tensor = field(repr=False)  # (S, P), normalised
    times: Tensor = field(repr=False)  # (frames,), physical

    @property
    def given(self) -> int:
        """Frames that the model is given."""
        return self.fields.history

    @property
    def steps(self) -> int:
        """Steps after the given frames."""
        return self.values.shape[1] - self.given

    @property
    def scored(self) -> range:
        """The frames that are scored: all but the given ones."""
        return forecast_frames(self.given, self.values.shape[1])

    @property
    def samples(self) -> int:
        """Number of trajectories S."""
        return self.values.shape[0]

    def part(self, rows: slice | list[int]) -> Truth:
        """Some of the trajectories; a slice shares the memory of the whole."""
        own = {name: getattr(self, name)[rows] for name in ("values", "statics", "parameters", "condition")}
        return attrs.evolve(self, **own)

    def parts(self, most: int) -> Iterator[slice]:
        """All trajectories, at most so many at a time, and so few that forecasts of them are small beside the truth."""
        size = self.values.numel() * self.values.element_size()
        least, largest = PART_BYTES
        allowed = min(max(size // 4, least), largest) * self.samples // max(size, 1)
        yield from self._slices(min(most, allowed))

    def blocks(self) -> Iterator[slice]:
        """All trajectories, as many at a time as are computed with in float64."""
        yield from self._slices(BLOCK_VALUES * self.samples // max(self.values.numel(), 1))

    def _slices(self, length: int) -> Iterator[slice]:
        length = max(1, length)
        for first in range(0, self.samples, length):
            yield slice(first, min(first + length, self.samples))

    def points(self, rows: slice, newest: int) -> PointSet:
        """What the model is given at frame `newest` of some trajectories: the frames up to it, then the statics."""
        given = self.normaliser.targets(self.values[rows, newest - self.given + 1 : newest + 1]) if self.given else None
        frames = [] if given is None else list(given.unbind(1))
        values = torch.cat([*frames, self.statics[rows]], -1)
        return PointSet(self.positions.expand(len(values), -1, -1), values, grid=self.fields.grid)

    def queries(self, rows: slice) -> Queries:
        """All points of some trajectories."""
        return Queries(self.positions.expand(len(self.values[rows]), -1, -1), self.fields.grid)


def read_truth(dataset: Dataset, split: str, steps: int | None, limit: int | None = None) -> Truth:
    """The trajectories of a split, to at most `steps` steps after the given frames, `limit` of them spread evenly.

    Raises DataError where there is no trajectory, or none that goes on after the given frames.
    """
    fields = dataset.fields
    held = read_trajectories(dataset, split, limit)
    samples, frames = held.values.shape[:2]
    if samples == 0:
        raise DataError(f"the split '{split}' holds no trajectory: nothing can be evaluated on it")
    if frames <= fields.history:
        raise DataError(
            f"the split '{split}' has {frames} frames, and {fields.history} are given: expected at least "
            f"{fields.history + 1}, so that there is a frame to score"
        )
    if steps is not None and fields.history + steps > frames:
        raise DataError(
            f"{steps} steps after {fields.history} given frames need {fields.history + steps} frames; the split "
            f"'{split}' has {frames}: nearest, steps = {frames - fields.history}"
        )
    last = frames if steps is None else fields.history + steps
    return _truth(dataset, held._replace(values=held.values[:, :last], times=held.times[:last]))


def read_trajectories(dataset: Dataset, split: str, limit: int | None) -> Trajectories:
    """The trajectories of a split in physical units, `limit` of them spread evenly where it is given."""
    return dataset.trajectories(split) if limit is None else dataset.trajectories(split, limit)


def _truth(dataset: Dataset, held: Trajectories) -> Truth:
    return Truth(
        fields=dataset.fields,
        normaliser=dataset.normaliser,
        values=held.values,
        statics=dataset.normaliser.statics(held.statics),
        positions=held.positions,
        parameters=held.parameters,
        condition=dataset.normaliser.condition(held.parameters),
        times=held.times,
    )
