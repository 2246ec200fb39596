"""Trajectories on points that differ between samples, and that may move: windows of them in dense batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ...interfaces import Batch, FieldSpec, Layout, Offer, PointSet, Relaid, Trajectories
from ..normalisation import Normaliser
from ..splits import Splits, evenly
from ..thinning import number_drawn, points_drawn
from .files import PointFiles
from .packing import mask_of, packed
from .settings import PointSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..sample import Sample

Points = NDArray[np.int64]


class _Window(NamedTuple):
    """What is read of one sample, physical."""

    places: NDArray[np.float32]  # (n, D), of the inputs, at t
    seen: NDArray[np.float32]  # (frames, n, C), the given frames
    given: NDArray[np.float32]  # (n, static channels)
    later_places: NDArray[np.float32]  # (m, D), of the states; (1 + K, m, D) where points move
    later: NDArray[np.float32]  # (1 + K, m, C), the states


@frozen(eq=False, slots=False)
class PointDataset:
    """A split and normalised set of trajectories on points. Only headers and parameters are kept in memory.

    Samples with fewer points than others of their batch are filled up at the end: with copies of their first point,
    values 0 and a mask that is false.
    """

    settings: PointSettings
    fields: FieldSpec
    normaliser: Normaliser
    splits: Splits
    files: PointFiles
    conditions: NDArray[np.float64]  # (trajectories, P), physical
    members: Mapping[str, NDArray[np.int64]] = field(repr=False)  # the splits' ids as arrays

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change."""
        return self.files.fingerprint

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds; of steady data, one each."""
        self.splits[split]
        return int(self._ends(split, steps)[-1])

    def first_windows(self, split: str, steps: int) -> NDArray[np.int64]:
        """The number of the first window of every trajectory that has one."""
        ends = self._ends(split, steps)
        return ends[:-1][np.diff(ends) > 0]

    def batch(self, split: str, windows: NDArray[np.integer], steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory. Raises IndexError for one that is not there."""
        none: list[Points | None] = [None] * len(windows)
        return self._batch(split, windows, steps, none, none)

    def batch_at_points(self, split: str, windows: NDArray[np.integer], steps: int, seed: int) -> Batch:
        """The same at points drawn by seed: `input_points` of the inputs, `points` of the states.

        Inputs are whole where the first is not given; where the second is not, states are at the inputs' points. All
        points of samples that have no more.
        """
        given, compared = self.settings.input_points, self.settings.points
        generator = np.random.default_rng(seed)
        number = number_drawn(given, generator)
        ids, _ = self._located(split, windows, steps)
        counts = self.files.counts[ids].tolist()
        inputs = [points_drawn(count, number, generator) for count in counts]
        states = inputs if compared is None else [points_drawn(count, compared, generator) for count in counts]
        return self._batch(split, windows, steps, inputs, states)

    def _batch(
        self,
        split: str,
        windows: NDArray[np.integer],
        steps: int,
        inputs: Sequence[Points | None],
        states: Sequence[Points | None],
    ) -> Batch:
        import torch

        ids, starts = self._located(split, windows, steps)
        self.files.check_unchanged(ids)
        read = [
            self._window(number, start, steps, given, compared)
            for number, start, given, compared in zip(ids.tolist(), starts.tolist(), inputs, states, strict=True)
        ]
        mask = mask_of([len(window.places) for window in read])
        state_mask = mask_of([window.later.shape[1] for window in read])
        places = packed([window.places for window in read], self.fields.space_dims, first=True)
        later_places = packed([window.later_places for window in read], self.fields.space_dims, first=True)
        newest = [self._times(number)[start + max(self.fields.history, 1) - 1] for number, start in zip(ids, starts)]
        return Batch(
            inputs=PointSet(places, self._inputs(read, mask), mask),
            states=self._states(read, state_mask),
            positions=places if inputs is states and self.fields.moves_with is None else later_places,
            grid=None,
            condition=self.normaliser.condition(torch.from_numpy(self.conditions[ids])),
            ids=torch.from_numpy(ids),
            times=torch.tensor(newest, dtype=torch.float32),
            mask=state_mask,
        )

    def _inputs(self, read: Sequence[_Window], mask: Tensor | None) -> Tensor:
        """What goes in, (B, N, input channels), normalised, 0 where there is no point."""
        import torch

        statics = self.normaliser.statics(packed([window.given for window in read], self._static_channels))
        if self.fields.steady:
            return _cleared(statics, mask)
        seen = self.normaliser.targets(packed([window.seen for window in read], self.fields.target_channels))
        inputs = seen.transpose(1, 2).flatten(2)
        return _cleared(torch.cat([inputs, statics], 2) if statics.shape[2] else inputs, mask)

    def _states(self, read: Sequence[_Window], mask: Tensor | None) -> Tensor:
        """The states, (B, 1 + K, N, C), normalised, 0 where there is no point."""
        import torch

        states = self.normaliser.targets(packed([window.later for window in read], self.fields.target_channels))
        if self.fields.steady:
            states = torch.cat([torch.zeros_like(states), states], 1)
        return _cleared(states, None if mask is None else mask[:, None])

    def _window(self, number: int, start: int, steps: int, inputs: Points | None, states: Points | None) -> _Window:
        """One sample's window at these points of it; None: at all of them."""
        source, own = self.files.owner(number)
        given = max(self.fields.history, 1)
        frames = np.arange(start, start + self.fields.history + steps if self.fields.history else start + 1)
        values, places = source.values(own, frames), source.positions(own, frames)
        if self.fields.moves_with is None:
            at, later_places = places, _taken(places, states)
        else:
            at, later_places = places[given - 1], _taken(places[given - 1 :], states)
        return _Window(
            places=_taken(at, inputs),
            seen=_taken(values[:given], inputs),
            given=_taken(source.given(own), inputs),
            later_places=later_places,
            later=_taken(values[given - 1 :], states),
        )

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split in physical units, or `limit` of them spread evenly.

        Each has as many frames as the shortest of the split.
        """
        import torch

        ids = np.asarray(evenly(self.splits[split], limit), np.int64)
        self.files.check_unchanged(ids)
        frames = np.arange(int(self.files.frames[self.members[split]].min()), dtype=np.int64)
        owners = [self.files.owner(number) for number in ids.tolist()]
        mask = mask_of(self.files.counts[ids].tolist())
        weights = [source.weights(own) for source, own in owners]
        known = [each[:, None] for each in weights if each is not None]
        return Trajectories(
            values=packed([source.values(own, frames) for source, own in owners], self.fields.target_channels),
            statics=packed([source.given(own) for source, own in owners], self._static_channels),
            positions=packed(
                [source.positions(own, frames) for source, own in owners], self.fields.space_dims, first=True
            ),
            parameters=torch.from_numpy(self.conditions[ids]).float(),
            times=torch.from_numpy(self._times(int(ids[0]))[: len(frames)]).float(),
            ids=torch.from_numpy(ids),
            mask=mask,
            weights=packed(known, 1)[..., 0] if len(known) == len(ids) else None,
        )

    def parameters(self, split: str) -> NDArray[np.float64]:
        """The conditions of a split's trajectories (S, P), physical, in the order of its ids."""
        return self.conditions[self.members[split]]

    def sample(self, split: str, number: int) -> Sample:
        """The trajectory with this number in a split, checked, in physical units. Raises IndexError, and DataError."""
        from .samples import sample_of

        return sample_of(self, split, number)

    def cells(self, trajectory: int) -> NDArray[np.int64] | None:
        """The triangles between the points of the trajectory with this id, (M, 3), or None where it has none."""
        source, own = self.files.owner(trajectory)
        return source.cells(own)

    def offer(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Offer:
        """The points that `relay` would give states on. Raises DataError where they cannot be had."""
        from .relaying import offer

        return offer(self, split, layout, points, limit)

    def relay(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Relaid:
        """Trajectories on other points of the same domains. Raises DataError."""
        from .relaying import relay

        return relay(self, split, layout, points, limit)

    # -- numbers of windows --
    def _located(
        self, split: str, windows: NDArray[np.integer], steps: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The trajectories of windows, and their first frames."""
        ends, numbers = self._ends(split, steps), np.asarray(windows, np.int64)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < ends[-1]:
            raise IndexError(f"the split '{split}' has {ends[-1]} windows of {steps} steps")
        member = np.searchsorted(ends, numbers, side="right") - 1
        return self.members[split][member], numbers - ends[member]

    def _ends(self, split: str, steps: int) -> NDArray[np.int64]:
        """Windows before each trajectory of a split, and at last all of them."""
        frames = self.files.frames[self.members[split]]
        if self.fields.steady:
            counts = np.full(len(frames), 1 if steps <= 1 else 0)
        else:
            counts = np.maximum(0, frames - self.fields.history - steps + 1)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _times(self, number: int) -> NDArray[np.float64]:
        source, own = self.files.owner(number)
        return source.times(own)

    @property
    def _static_channels(self) -> int:
        return sum(each.channels for each in self.fields.statics)


def _taken(values: NDArray[np.float32], points: Points | None) -> NDArray[np.float32]:
    """Values (…, N, channels) at some points."""
    return values if points is None else values[..., points, :]


def _cleared(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values (B, …, N, channels), 0 where the mask (B, …, N) is false."""
    return values if mask is None else values.masked_fill(~mask[..., None], 0.0)
