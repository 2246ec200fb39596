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
from ups_kit.motion import Kinematic, kinematic_points, travelled

if TYPE_CHECKING:
    from ups_kit.data.normalisation import Normaliser

PART_BYTES = (64 << 20, 256 << 20)  # of a forecast that is held at a time: as a rule a quarter of the truth
BLOCK_VALUES = 4 << 20  # of a forecast that is computed with in float64 at a time


@frozen(eq=False)
class Truth:
    """Trajectories of a split, cut to the frames that are given and the steps that are rolled out.

    Forecasts of it have the shape of `values`, (S, frames, N, C) in physical units; their given frames are the truth's.
    Of steady data the one frame is the answer, no frame is given, and the one step that there is leads to it.
    Where trajectories have points of their own, those with fewer are filled up; such points never count.
    """

    fields: FieldSpec
    normaliser: Normaliser
    values: Tensor  # (S, frames, N, C), physical
    statics: Tensor = field(repr=False)  # (S, N, static channels), normalised
    positions: Tensor = field(repr=False)  # (N, D), (S, N, D) or (S, frames, N, D), as in `Trajectories`
    parameters: Tensor = field(repr=False)  # (S, P), physical
    condition: Tensor = field(repr=False)  # (S, P), normalised
    times: Tensor = field(repr=False)  # (frames,), physical
    ids: Tensor = field(repr=False)  # (S,)
    mask: Tensor | None = field(default=None, repr=False)  # (S, N), true where a point is real; None: all are
    weights: Tensor | None = field(default=None, repr=False)  # (S, N), areas or volumes of the points
    kinematic: Tensor | None = field(default=None, repr=False)  # (S, N), points whose motion is given; None: none is

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

    @property
    def moving(self) -> bool:
        """Whether the points move."""
        return self.positions.dim() == 4

    @property
    def counted(self) -> Tensor | None:
        """The points that are scored, (S, N): real, and not moved as given; None: all are."""
        if self.kinematic is None:
            return self.mask
        return ~self.kinematic if self.mask is None else self.mask & ~self.kinematic

    def part(self, rows: slice | list[int]) -> Truth:
        """Some of the trajectories; a slice shares the memory of the whole."""
        names = ["values", "statics", "parameters", "condition", "ids", "mask", "weights", "kinematic"]
        if self.positions.dim() > 2:
            names.append("positions")
        own = {name: getattr(self, name) for name in names}
        return attrs.evolve(self, **{name: each[rows] for name, each in own.items() if each is not None})

    def parts(self, most: int) -> Iterator[slice]:
        """All trajectories, at most so many at a time, and so few that forecasts of them are small beside the truth."""
        size = self.values.numel() * self.values.element_size()
        least, largest = PART_BYTES
        allowed = min(max(size // 4, least), largest) * self.samples // max(size, 1)
        yield from self._slices(min(most, allowed))

    def blocks(self) -> Iterator[slice]:
        """All trajectories, as many at a time as are computed with in float64: one, where not all points count."""
        most = BLOCK_VALUES * self.samples // max(self.values.numel(), 1)
        yield from self._slices(most if self.counted is None else 1)

    def scoring(self, rows: slice, values: Tensor) -> Tensor:
        """A block's trajectories of values (S, frames, N, C), at the points that count."""
        own = values[rows]
        return own if self.counted is None else own[:, :, self.counted[rows][0]]

    def _slices(self, length: int) -> Iterator[slice]:
        length = max(1, length)
        for first in range(0, self.samples, length):
            yield slice(first, min(first + length, self.samples))

    def points_of(self, sample: int) -> Tensor:
        """The numbers of a trajectory's real points."""
        count = self.values.shape[2]
        return torch.arange(count) if self.mask is None else self.mask[sample].nonzero().flatten()

    def places(self, rows: slice, frame: int) -> Tensor:
        """Where the points of some trajectories are at a frame, (S', N, D)."""
        if self.positions.dim() == 2:
            return self.positions.expand(len(self.values[rows]), -1, -1)
        return self.positions[rows, frame] if self.moving else self.positions[rows]

    def points(self, rows: slice, newest: int) -> PointSet:
        """What the model is given at frame `newest` of some trajectories: the frames up to it, then the statics."""
        given = self.normaliser.targets(self.values[rows, newest - self.given + 1 : newest + 1]) if self.given else None
        frames = [] if given is None else list(given.unbind(1))
        values = torch.cat([*frames, self.statics[rows]], -1)
        mask = None if self.mask is None else self.mask[rows]
        if mask is not None:
            values = values.masked_fill(~mask[..., None], 0.0)
        return PointSet(self.places(rows, newest), values, mask, grid=self.fields.grid)

    def queries(self, rows: slice, frame: int = 0) -> Queries:
        """All points of some trajectories, at a frame where they move."""
        return Queries(self.places(rows, frame), self.fields.grid)

    def known(self, rows: slice, first: int) -> Kinematic | None:
        """The points of some trajectories that move as given, and what they do from the frame `first` on."""
        if self.kinematic is None:
            return None
        return Kinematic(self.kinematic[rows], self.normaliser.targets(self.values[rows, first:]))

    def travelled(self, forecast: Tensor) -> Tensor:
        """Where moving points go with a forecast (S, frames, N, C): (S, steps, N, D), after the given frames."""
        return travelled(self.positions[:, self.given - 1], forecast[:, self.given :], self.fields)


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
    return truth_of(dataset, cut(held, last))


def read_trajectories(dataset: Dataset, split: str, limit: int | None) -> Trajectories:
    """The trajectories of a split in physical units, `limit` of them spread evenly where it is given."""
    return dataset.trajectories(split) if limit is None else dataset.trajectories(split, limit)


def cut(held: Trajectories, frames: int) -> Trajectories:
    """The first frames of trajectories."""
    positions = held.positions[:, :frames] if held.positions.dim() == 4 else held.positions
    return held._replace(values=held.values[:, :frames], times=held.times[:frames], positions=positions)


def truth_of(dataset: Dataset, held: Trajectories, fields: FieldSpec | None = None) -> Truth:
    """Trajectories of a dataset as a truth; `fields` say how they lie where that is not as in the dataset."""
    own, statics = fields or dataset.fields, dataset.normaliser.statics(held.statics)
    return Truth(
        fields=own,
        normaliser=dataset.normaliser,
        values=held.values,
        statics=statics,
        positions=held.positions,
        parameters=held.parameters,
        condition=dataset.normaliser.condition(held.parameters),
        times=held.times,
        ids=held.ids,
        mask=None if held.mask is None or bool(held.mask.all()) else held.mask,
        weights=held.weights,
        kinematic=kinematic_points(statics, own, dataset.normaliser) if own.moves_with is not None else None,
    )
