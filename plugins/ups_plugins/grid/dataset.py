"""Trajectories and steady fields on regular grids: checked, split, normalised, and read in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ups_kit import Batch, DataError, FieldSpec, PointSet
from ups_kit.data.making import make_if_missing
from ups_kit.data.normalisation import Normaliser
from ups_kit.data.splits import Splits, drawn, evenly
from ups_kit.data.thinning import number_drawn, points_drawn
from ups_kit.interfaces import Layout, Offer, Relaid, Trajectories

from .files import SEPARATE, FileSet, OpenFile, check_agreement, field_spec, open_files, to_be_made
from .settings import TrajectorySettings
from .source import AXES
from .survey import Survey, central_ranges, initial_hashes, look_through

if TYPE_CHECKING:
    from torch import Tensor

    from ups_kit import Sample

SHOWN = 8  # sample ids that a message names


@frozen(eq=False, slots=False)
class GridDataset:
    """A split and normalised set of trajectories. Nothing but its coordinates and parameters is kept in memory."""

    settings: TrajectorySettings
    fields: FieldSpec
    normaliser: Normaliser
    splits: Splits
    files: FileSet
    conditions: NDArray[np.float64]  # (trajectories, P), physical
    members: Mapping[str, NDArray[np.int64]] = field(repr=False)  # the splits' ids as arrays

    @property
    def fingerprint(self) -> str:
        """A hash of the files' names, sizes and times of change."""
        return self.files.fingerprint

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds; of steady data, one each."""
        return len(self.splits[split]) * self._starts(steps)

    def batch(self, split: str, windows: NDArray[np.integer], steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory. Raises IndexError for one that is not there."""
        return self._batch(split, windows, steps, None)

    def batch_at_points(self, split: str, windows: NDArray[np.integer], steps: int, seed: int) -> Batch:
        """The same at points of each sample that are drawn by seed.

        The states are at `fields.sampled` of them; the inputs are whole, or at as many as `input_points` says, and then
        the states are at the inputs' points where they have none of their own.
        """
        generator, samples = np.random.default_rng(seed), len(windows)
        points = self._drawn(generator, samples, self.fields.sampled)
        batch = self._batch(split, windows, steps, points)
        if self.settings.input_points is None:
            return batch
        index = self._drawn(generator, samples, number_drawn(self.settings.input_points, generator))
        return batch if index is None else _given_at(batch, index, points is None)

    def _drawn(self, generator: np.random.Generator, samples: int, count: int | None) -> NDArray[np.int64] | None:
        """So many distinct points of each sample in their order, (samples, count); None for all of them."""
        drawn = [points_drawn(self.fields.points or 0, count, generator) for _ in range(samples)]
        index = [points for points in drawn if points is not None]
        return np.stack(index) if index else None

    def _batch(self, split: str, windows: NDArray[np.integer], steps: int, points: NDArray[np.int64] | None) -> Batch:
        import torch

        total = self.windows(split, steps)
        if len(windows) and not 0 <= windows.min() <= windows.max() < total:
            raise IndexError(f"the split '{split}' has {total} windows of {steps} steps")
        member, start = np.divmod(np.asarray(windows, np.int64), max(self._starts(steps), 1))
        ids = self.members[split][member]
        self.files.check_unchanged(ids)
        inputs, states = self._values(ids, start, steps, points)
        whole = self._positions.expand(len(ids), -1, -1)
        newest = torch.from_numpy(self._times[start + max(self.fields.history, 1) - 1])
        return Batch(
            inputs=PointSet(whole, inputs, grid=self.fields.grid),
            states=states,
            positions=whole if points is None else self._positions[torch.from_numpy(points)],
            grid=self.fields.grid if points is None else None,
            condition=self.normaliser.condition(torch.from_numpy(self.conditions[ids])),
            ids=torch.from_numpy(ids),
            times=newest.float(),
        )

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split in physical units, at the recipe's strides, or `limit` of them spread evenly."""
        import torch

        ids = np.asarray(evenly(self.splits[split], limit), np.int64)
        self.files.check_unchanged(ids)
        values = self.files.rows(ids, slice(None, None, self.settings.time_stride))
        return Trajectories(
            values=torch.from_numpy(self._flat(values, 2)),
            statics=torch.from_numpy(self._flat(self.files.statics(ids), 1)),
            positions=self._positions,
            parameters=torch.from_numpy(self.conditions[ids]).float(),
            times=torch.from_numpy(self._times).float(),
            ids=torch.from_numpy(ids),
        )

    def offer(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Offer:
        """The points that `relay` would give states on. Raises DataError where they cannot be had."""
        from .relay import offer

        return offer(self, layout, points)

    def relay(self, split: str, layout: Layout, points: int, limit: int | None = None) -> Relaid:
        """Trajectories on other points, from the file's full resolution. Raises DataError."""
        from .relay import relay

        return relay(self, split, layout, points, limit)

    def parameters(self, split: str) -> NDArray[np.float64]:
        """The conditions of a split's trajectories (S, P), physical, in the order of its ids."""
        return self.conditions[self.members[split]]

    def sample(self, split: str, number: int) -> Sample:
        """The trajectory with this number in a split, checked, in physical units. Raises IndexError, and DataError."""
        from .samples import sample_of

        return sample_of(self, split, number)

    def _values(
        self, ids: NDArray[np.int64], start: NDArray[np.int64], steps: int, points: NDArray[np.int64] | None
    ) -> tuple[Tensor, Tensor]:
        """What goes in, (B, N, input channels), and the states (B, 1 + K, N or Q, C), normalised."""
        import torch

        history = self.fields.history
        given = history + steps if points is None else history
        frames = (start[:, None] + np.arange(max(given, 1))) * self.settings.time_stride
        statics = self.normaliser.statics(torch.from_numpy(self._flat(self.files.statics(ids), 1)))
        if self.fields.steady:
            answer = self._targets(ids, frames, points)
            return statics, torch.cat([torch.zeros_like(answer), answer], 1)
        seen = self.normaliser.targets(torch.from_numpy(self._flat(self.files.gather(ids, frames), 2)))
        inputs = seen[:, :history].transpose(1, 2).flatten(2)
        inputs = torch.cat([inputs, statics], 2) if statics.shape[2] else inputs
        if points is None:
            return inputs, seen[:, history - 1 :]
        index = torch.from_numpy(points)[:, :, None].expand(-1, -1, seen.shape[3])
        newest = seen[:, -1].gather(1, index)[:, None]
        if not steps:
            return inputs, newest
        later = (start[:, None] + np.arange(history, history + steps)) * self.settings.time_stride
        return inputs, torch.cat([newest, self._targets(ids, later, points)], 1)

    def _targets(self, ids: NDArray[np.int64], frames: NDArray[np.int64], points: NDArray[np.int64] | None) -> Tensor:
        """Target fields of frames (B, F), normalised: (B, F, N, C), or (B, F, Q, C) at points (B, Q)."""
        import torch

        if points is None:
            values = self._flat(self.files.gather(ids, frames), 2)
        else:
            values = self.files.gather_points(ids, frames, self._stored_points(points))
        return self.normaliser.targets(torch.from_numpy(values))

    def _stored_points(self, points: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of points at the recipe's stride as numbers in the file's grid."""
        stride = self.settings.space_stride
        if stride == 1:
            return points
        places = np.unravel_index(points, self.fields.grid or ())
        return np.ravel_multi_index(tuple(place * stride for place in places), self.files.header.grid)

    def _flat(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Values with the grid's axes from `axis` on, at the recipe's stride, the grid's points as one axis."""
        grid = self.fields.grid or ()
        every = (slice(None),) * axis + (slice(None, None, self.settings.space_stride),) * len(grid)
        taken = values[every] if self.settings.space_stride > 1 else values
        return np.ascontiguousarray(taken.reshape(*values.shape[:axis], math.prod(grid), values.shape[-1]))

    def _starts(self, steps: int) -> int:
        """Windows in one trajectory."""
        if self.fields.steady:
            return 1 if steps <= 1 else 0
        return max(0, len(self._times) - self.fields.history - steps + 1)

    @cached_property
    def _times(self) -> NDArray[np.float64]:
        return self.files.header.times[:: self.settings.time_stride]

    @cached_property
    def _positions(self) -> Tensor:
        """All points of the grid, (N, D), row-major."""
        import torch

        axes = [torch.from_numpy(axis[:: self.settings.space_stride]).float() for axis in self.files.header.axes]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def _given_at(batch: Batch, index: NDArray[np.int64], states: bool) -> Batch:
    """A batch with its inputs, and where it is asked its states, at points (B, n) of the grid alone."""
    import torch

    chosen = torch.from_numpy(index)[..., None]
    positions = batch.inputs.positions.gather(1, chosen.expand(-1, -1, batch.inputs.positions.shape[2]))
    values = batch.inputs.values.gather(1, chosen.expand(-1, -1, batch.inputs.values.shape[2]))
    batch = batch._replace(inputs=PointSet(positions, values))
    if not states:
        return batch
    later = chosen[:, None].expand(-1, batch.states.shape[1], -1, batch.states.shape[3])
    return batch._replace(states=batch.states.gather(2, later), positions=positions, grid=None)


# ---------------------------------------------------------------------------------------------------------------------
# Reading a dataset: once, when a run begins
# ---------------------------------------------------------------------------------------------------------------------
def read_dataset(settings: TrajectorySettings, seed: int) -> GridDataset:
    """Make the file if need be, look through all trajectories that are used, split them, fit the normalisation.

    Raises DataError.
    """
    missing = to_be_made(settings)
    if missing is not None and settings.simulate is not None:
        make_if_missing(missing, settings.simulate)
    own = open_files(settings)
    separate = {split: open_files(settings, key) for split, key in SEPARATE.items()}
    others = [file for group in separate.values() for file in group]
    check_agreement((*own, *others))
    fields = field_spec(settings, own)
    files = FileSet.of((*own, *others))
    hashes = initial_hashes(settings, files)
    pools = _pools({"": own, **separate})
    ids, survey = _split(settings, files, hashes, pools, seed)
    splits = Splits(ids, {member: hashes[member] for members in ids.values() for member in members})
    parameters = files.parameters
    conditions = np.concatenate([np.full((len(parameters), 1), fields.dt), parameters], 1)
    members = {name: np.asarray(trajectories, np.int64) for name, trajectories in ids.items()}
    try:
        normaliser = _fitted(settings, fields, files, survey, members["train"], conditions)
    except DataError as error:
        raise DataError(f"{files.header.path}: {error}", error.key) from error
    return GridDataset(settings, fields, normaliser, splits, files, conditions, members)


def _fitted(
    settings: TrajectorySettings,
    fields: FieldSpec,
    files: FileSet,
    survey: Survey,
    train: NDArray[np.int64],
    conditions: NDArray[np.float64],
) -> Normaliser:
    targets, statics = survey.merged(train)
    return Normaliser.fitted(
        fields,
        targets,
        conditions[train],
        statics,
        normalisation=settings.normalisation,
        central=central_ranges(settings, fields, files, survey, train),
    )


def _split(
    settings: TrajectorySettings, files: FileSet, hashes: Mapping[int, str], pools: Mapping[str, range], seed: int
) -> tuple[dict[str, tuple[int, ...]], Survey]:
    """Draw splits of trajectories without NaN or infinity, and look through all of them."""
    total = int(files.starts[-1])
    survey = Survey.empty(files)
    bad: set[int] = set()
    while True:
        candidates = [number for number in range(total) if number not in bad]
        ids = _draw(settings, candidates, hashes, pools, seed, files)
        members = np.asarray(sorted(member for members in ids.values() for member in members), np.int64)
        survey = look_through(settings, files, members, survey)
        found = survey.not_finite(members)
        if not len(found):
            return ids, survey
        if not settings.drop_bad_samples:
            raise DataError(_bad_samples(files, found))
        bad.update(found.tolist())


def _draw(
    settings: TrajectorySettings,
    candidates: list[int],
    hashes: Mapping[int, str],
    pools: Mapping[str, range],
    seed: int,
    files: FileSet,
) -> dict[str, tuple[int, ...]]:
    """Test and validation trajectories first: more train data leave them as they are."""
    source = ", ".join(str(file.header.path) for file in files.files)
    counts: dict[str, int | None] = {"test": settings.test, "validation": settings.validation, "train": settings.train}
    ids: dict[str, tuple[int, ...]] = {}
    for split, pool in pools.items():
        if split and len(pool):
            own = [number for number in candidates if number in pool]
            ids |= drawn({split: counts.pop(split)}, own, hashes, seed, source)
    mine = [number for number in candidates if number in pools[""]]
    return _in_order(ids | drawn(counts, mine, hashes, seed, source))


def _pools(groups: Mapping[str, Sequence[OpenFile]]) -> dict[str, range]:
    """The numbers of the trajectories that each split is drawn from alone; "" for all others. In the files' order."""
    pools, start = {}, 0
    for split, files in groups.items():
        stop = start + sum(file.header.trajectories for file in files)
        pools[split], start = range(start, stop), stop
    return pools


def _in_order(ids: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: ids[name] for name in ("train", "validation", "test")}


def _bad_samples(files: FileSet, bad: NDArray[np.int64]) -> str:
    header = files.header
    count, first = 0, None
    for number in bad.tolist():
        held = ((files.rows(np.array([number]), slice(None))[0], "time", header.targets),)
        given = ((files.statics(np.array([number])), "sample", header.statics),) if header.statics else ()
        for values, axis, fields in (*held, *given):
            places = np.argwhere(~np.isfinite(values))
            count += len(places)
            if first is None and len(places):
                names = [each.name for each in fields for _ in range(each.channels)]
                point = ", ".join(f"{letter} {place}" for letter, place in zip(AXES, places[0][1:-1], strict=False))
                time = f"{axis} {places[0][0]}, " if axis == "time" else ""
                first = f"[{time}{point}]" + (f" of '{names[places[0][-1]]}'" if len(names) > 1 else "")
    listed = ", ".join(str(member) for member in bad[:SHOWN]) + (", …" if len(bad) > SHOWN else "")
    return (
        f"{files.place(int(bad[0]))}: NaN or infinity at {first}; {len(bad)} trajectories hold {count} "
        f"such values (ids {listed}); to leave these trajectories out, set dataset.drop_bad_samples = true"
    )
