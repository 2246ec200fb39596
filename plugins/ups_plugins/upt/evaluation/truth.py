"""The held-out trajectories that a model is scored on, and what the model is given of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import field, frozen
from torch import Tensor

from ups_kit.errors import DataError
from ups_kit.interfaces import Dataset, FieldSpec, PointSet, Queries
from ups_kit.metrics import forecast_frames

if TYPE_CHECKING:
    from ups_kit.data.normalisation import Normaliser


@frozen(eq=False)
class Truth:
    """Trajectories of a split, cut to the frames that are given and the steps that are rolled out.

    Forecasts of it have the shape of `values`, (S, frames, N, C) in physical units; their given frames are the truth's.
    """

    fields: FieldSpec
    normaliser: Normaliser
    values: Tensor  # (S, frames, N, C), physical
    inputs: Tensor = field(repr=False)  # the same, normalised
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

    def points(self, rows: slice, newest: int) -> PointSet:
        """What the model is given at frame `newest` of some trajectories: the frames up to it, then the statics."""
        frames = [self.inputs[rows, frame] for frame in range(newest - self.given + 1, newest + 1)]
        values = torch.cat([*frames, self.statics[rows]], -1)
        return PointSet(self.positions.expand(len(values), -1, -1), values, grid=self.fields.grid)

    def queries(self, rows: slice) -> Queries:
        """All points of some trajectories."""
        return Queries(self.positions.expand(len(self.values[rows]), -1, -1), self.fields.grid)


def read_truth(dataset: Dataset, split: str, steps: int | None) -> Truth:
    """The trajectories of a split, to at most `steps` steps after the given frames.

    Raises DataError where there is no trajectory, or none that goes on after the given frames.
    """
    held, fields, normaliser = dataset.trajectories(split), dataset.fields, dataset.normaliser
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
    values = held.values[:, :last]
    return Truth(
        fields=fields,
        normaliser=normaliser,
        values=values,
        inputs=normaliser.targets(values),
        statics=normaliser.statics(held.statics),
        positions=held.positions,
        parameters=held.parameters,
        condition=normaliser.condition(held.parameters),
        times=held.times[:last],
    )
