"""Several data sets as one: windows of all of them, each batch of one task, in the union of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import Batch, DataError, FieldSpec
from ups_kit.data.normalisation import Normaliser
from ups_kit.data.sample import GivesSamples, Sample
from ups_kit.data.splits import Splits
from ups_kit.data.stream import window_numbers
from ups_kit.interfaces import Dataset, ReadsPoints, Trajectories
from ups_kit.model import LatentModel
from ups_kit.tasks import Placement, TaskView

from .conditions import joint_normaliser, own_normaliser, renormalised
from .config import MixtureConfig
from .fields import of_task, union
from .turns import turn

SHOWN = 3  # pairs of trajectories that a message names


@frozen(eq=False)
class Task:
    """One data set of a mixture: as it is by itself, but that its conditions are normalised as the whole's are."""

    member: Dataset
    normaliser: Normaliser

    @property
    def fields(self) -> FieldSpec:
        return self.member.fields

    @property
    def splits(self) -> Splits:
        return self.member.splits

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds."""
        return self.member.windows(split, steps)

    def batch(self, split: str, windows: NDArray[np.integer], steps: int) -> Batch:
        """The windows with these numbers, normalised, in CPU memory."""
        return self._renormalised(self.member.batch(split, windows, steps))

    def batch_at_points(self, split: str, windows: NDArray[np.integer], steps: int, seed: int) -> Batch:
        """The same with states at some points alone, where the data set reads so."""
        if self.fields.sampled is None or not isinstance(self.member, ReadsPoints):
            return self.batch(split, windows, steps)
        return self._renormalised(self.member.batch_at_points(split, windows, steps, seed))

    def _renormalised(self, batch: Batch) -> Batch:
        return batch._replace(condition=renormalised(batch.condition, self.member.normaliser, self.normaliser))

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split in physical units; with `limit` only so many."""
        return self.member.trajectories(split, limit)


@frozen(eq=False)
class SampledTask(Task):
    """A task whose data set gives samples one by one."""

    def sample(self, split: str, number: int) -> Sample:
        """The trajectory with this number in a split, in physical units. Raises IndexError, and DataError."""
        assert isinstance(self.member, GivesSamples)
        return self.member.sample(split, number)


@frozen(eq=False)
class Mixture:
    """Several tasks as one dataset. Windows are numbered task by task; those of a batch are of one task."""

    fields: FieldSpec
    normaliser: Normaliser
    splits: Splits
    tasks: Mapping[str, Task]
    weights: Mapping[str, float] | None  # shares of the steps; None: as the tasks' shares of the windows
    first_ids: Mapping[str, int]  # what each task's trajectories are counted from

    @cached_property
    def placements(self) -> Mapping[str, Placement]:
        """Where each task's channels, conditions and places stand in the whole."""
        return {name: Placement.of(self.fields, task.fields, name) for name, task in self.tasks.items()}

    def windows(self, split: str, steps: int) -> int:
        """How many windows of `history` given and `steps` future frames a split holds, of all tasks."""
        return sum(task.windows(split, steps) for task in self.tasks.values())

    def batch(self, split: str, windows: NDArray[np.integer], steps: int) -> Batch:
        """The windows with these numbers, all of one task; raises IndexError, and ValueError for several tasks."""
        name, numbers = self._located(split, windows, steps)
        return self._placed(name, self.tasks[name].batch(split, numbers, steps))

    def batch_at_points(self, split: str, windows: NDArray[np.integer], steps: int, seed: int) -> Batch:
        """The same with states at some points alone, where the task reads so."""
        name, numbers = self._located(split, windows, steps)
        return self._placed(name, self.tasks[name].batch_at_points(split, numbers, steps, seed))

    def _located(self, split: str, windows: NDArray[np.integer], steps: int) -> tuple[str, NDArray[np.int64]]:
        """The task of some windows, and their numbers in it."""
        numbers = np.asarray(windows, np.int64)
        ends = np.cumsum([task.windows(split, steps) for task in self.tasks.values()])
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < ends[-1]:
            raise IndexError(f"the split '{split}' has {ends[-1]} windows of {steps} steps")
        found = np.unique(np.searchsorted(ends, numbers, side="right"))
        if len(found) > 1:
            names = ", ".join(list(self.tasks)[place] for place in found)
            raise ValueError(f"the windows of a batch are of one task, got some of each of {names}")
        place = int(found[0]) if len(found) else 0
        return list(self.tasks)[place], numbers - (ends[place - 1] if place else 0)

    def _placed(self, name: str, own: Batch) -> Batch:
        place = self.placements[name]
        inputs = place.points(own.inputs)
        shared = own.positions is own.inputs.positions
        return own._replace(
            inputs=inputs,
            states=place.states(own.states),
            positions=inputs.positions if shared else place.positions(own.positions),
            condition=place.condition(own.condition),
            ids=own.ids + self.first_ids[name],
            channels=place.channels,
        )

    def draw(self, split: str, steps: int, batch: int, seed: int, step: int) -> NDArray[np.int64]:
        """The windows of a step, (batch,), all of the task whose turn it is; a pure function of its arguments.

        A task's steps take its windows in the order of `data.stream.window_numbers`: permuted anew for each of its own
        epochs, and none twice in one.
        """
        counts = [task.windows(split, steps) for task in self.tasks.values()]
        shares = counts if self.weights is None else [self.weights[name] for name in self.tasks]
        task, own_step = turn(shares, seed, step)
        own_seed = int(np.random.SeedSequence([seed, task]).generate_state(1, np.uint64)[0])
        return sum(counts[:task]) + window_numbers(counts[task], batch, own_seed, own_step)

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """Raises DataError: the tasks' trajectories fit into no common array."""
        raise DataError("a mixture's trajectories are those of its tasks, one task at a time")

    def seen_by(self, task: str, model: LatentModel) -> LatentModel:
        """The model as one of this task alone."""
        return TaskView(model, self.placements[task], self.tasks[task].normaliser)


def read_mixture(config: MixtureConfig, seed: int) -> Mixture:
    """Build all tasks' data sets; look for trajectories in two splits; normalise conditions together.

    Raises DataError.
    """
    members: dict[str, Dataset] = {}
    for name, task in config.tasks.items():
        with of_task(name):
            members[name] = task.build(seed)
    fields = union({name: member.fields for name, member in members.items()})
    normaliser = joint_normaliser(fields, members)
    splits, first_ids = joint_splits({name: member.splits for name, member in members.items()})
    tasks: dict[str, Task] = {}
    for name, member in members.items():
        columns = [fields.conditions.index(condition) for condition in member.fields.conditions]
        kind = SampledTask if isinstance(member, GivesSamples) else Task
        tasks[name] = kind(member, own_normaliser(normaliser, columns, member.normaliser))
    return Mixture(fields, normaliser, splits, tasks, _shares(config), first_ids)


def _shares(config: MixtureConfig) -> Mapping[str, float] | None:
    if config.sampling == "equal":
        return dict.fromkeys(config.tasks, 1.0)
    return config.weights


def joint_splits(tasks: Mapping[str, Splits]) -> tuple[Splits, dict[str, int]]:
    """The splits of all tasks as one, and the number that each task's trajectories are counted from.

    Raises DataError where an initial condition of one task stands in another split of another one.
    """
    owners: dict[str, tuple[str, str, int]] = {}
    leaks: dict[tuple[str, str], list[str]] = {}
    ids: dict[str, list[int]] = {}
    hashes: dict[int, str] = {}
    starts, start = {}, 0
    for task, splits in tasks.items():
        for split, members in splits.ids.items():
            ids.setdefault(split, []).extend(start + member for member in members)
            for member in members:
                hashes[start + member] = splits.hashes[member]
                other, where, twin = owners.setdefault(splits.hashes[member], (task, split, member))
                if other != task and where != split:
                    leaks.setdefault((other, task), []).append(f"{twin} ({where}) = {member} ({split})")
        starts[task] = start
        start += max((member for members in splits.ids.values() for member in members), default=-1) + 1
    if leaks:
        (one, two), pairs = next(iter(leaks.items()))
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        raise DataError(
            f"{len(pairs)} initial conditions of tasks.{one} stand in another split of tasks.{two}, so that a score "
            f"would not be of unseen data; trajectories {', '.join(pairs[:SHOWN])}{more}; expected data with other "
            "initial conditions (another seed of the simulator), or the same numbers of trajectories in all splits of "
            "both tasks, which are then drawn alike",
            "tasks",
        )
    return Splits({split: tuple(members) for split, members in ids.items()}, hashes), starts
