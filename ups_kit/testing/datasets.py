"""The contract of data sets: trajectories, split and normalised, the same whoever reads them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..interfaces import Batch, Dataset, FieldSpec, Trajectories
from ..keys import keys_of
from ..tasks import tasks_of
from .examples import tiny_settings
from .files import table_for
from .report import Broken, Skipped, expect
from .subject import Clause, Subject

SPLITS = ("train", "validation", "test")
CLOSE = 1e-4


def _config(subject: Subject) -> Any:
    """A config whose data are there: of the settings, of its own tiny version, or of what a simulator makes."""
    return subject.once("with data", lambda: _found(subject))


def _found(subject: Subject) -> Any:
    """A config whose data are there. Raises Skipped where there is none."""
    named = {**tiny_settings(subject.config), **subject.settings}
    missing = [key.name for key in keys_of(subject.config).values() if key.required and key.name not in named]
    made = table_for(subject.catalog["dataset"][subject.name], subject.catalog, named) if missing else None
    if made is not None:
        subject.notes.append("on a file that a simulator has made")
        return subject.read(made)
    refused = ""
    for config in subject.versions(defaults_first=False):
        try:
            config.describe()
        except DataError as error:
            if not missing:  # data that were named are not there, or wrong
                raise Broken(str(error), "give settings with data that are there") from error
            refused = refused or str(error).split("; ")[0].split(" (")[0]
            continue
        return config
    raise Skipped(f"no data: {refused}, and no simulator makes its files; give settings with a small file")


def _dataset(subject: Subject) -> Dataset:
    built: Dataset = subject.once("built", lambda: _config(subject).build(0))
    return built


def _tasks(subject: Subject) -> list[Dataset]:
    """The data set, or of several tasks each one's."""
    return list(tasks_of(_dataset(subject)).values())


def _steps(dataset: Dataset, split: str = "train") -> int:
    """Future frames that the trajectories have, at most two."""
    return max((steps for steps in (1, 2) if dataset.windows(split, steps)), default=1)


def _batch(dataset: Dataset, split: str = "train") -> Batch:
    steps = _steps(dataset, split)
    count = dataset.windows(split, steps)
    return dataset.batch(split, np.unique([0, count // 2, count - 1]), steps)


def describes(subject: Subject) -> str | None:
    """`describe`, from headers alone, says what `build` gives."""
    config = _config(subject)
    said, built = config.describe(), _dataset(subject).fields
    expect(isinstance(said, FieldSpec), f"describe gives a {type(said).__name__}", "return an ups_kit.FieldSpec")
    if said != built:
        names = [each.name for each in attrs.fields(FieldSpec) if getattr(said, each.name) != getattr(built, each.name)]
        told = "; ".join(f"{name} = {getattr(said, name)!r} and {getattr(built, name)!r}" for name in names)
        raise Broken(told, "let `build` take its fields from `describe`")
    return None


def splits(subject: Subject) -> str | None:
    """The splits train, validation and test hold trajectories, none of them in two, and follow from the seed."""
    for dataset in _tasks(subject):
        ids = {name: dataset.splits[name] for name in SPLITS}
        for name, members in ids.items():
            expect(members, f"the split {name} is empty")
        every = [member for members in ids.values() for member in members]
        mend = "ups_kit.data.splits.drawn draws splits, and refuses leaks"
        expect(len(set(every)) == len(every), "a trajectory stands in two splits", mend)
        hashes = [{dataset.splits.hashes[member] for member in members} for members in ids.values()]
        apart = not (hashes[0] & hashes[1] or hashes[0] & hashes[2] or hashes[1] & hashes[2])
        expect(apart, "one initial condition stands in two splits", mend)
    again = _config(subject).build(0)
    expect(again.splits.digest == _dataset(subject).splits.digest, "one seed gave two splits", "draw by the seed alone")
    return None


def shapes(subject: Subject) -> str | None:
    """Batches and trajectories have the shapes that the fields say, and are finite."""
    for dataset in _tasks(subject):
        for split in SPLITS:
            _check_batch(_batch(dataset, split), dataset.fields, f"a batch of {split}")
            _check_trajectories(dataset.trajectories(split, 2), dataset.fields, f"trajectories of {split}")
    return None


def _check_batch(batch: Batch, fields: FieldSpec, what: str) -> None:
    samples, frames, points, channels = batch.states.shape
    expect(channels == fields.target_channels, f"{what}: {channels} channels, the fields have {fields.target_channels}")
    given = batch.inputs.values.shape[1]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "inputs.values": (batch.inputs.values, (samples, given, fields.input_channels)),
        "inputs.positions": (batch.inputs.positions, (samples, given, fields.space_dims)),
        "inputs.mask": (batch.inputs.mask, (samples, given)),
        "mask": (batch.mask, (samples, points)),
        "condition": (batch.condition, (samples, len(fields.conditions))),
        "ids": (batch.ids, (samples,)),
        "times": (batch.times, (samples,)),
    }
    moving = (frames,) if fields.moves_with else ()
    expected["positions"] = (batch.positions, (samples, *moving, points, fields.space_dims))
    for name, (values, shape) in expected.items():
        if values is not None:
            expect(tuple(values.shape) == shape, f"{what}: {name} is {tuple(values.shape)}, expected {shape}")
            expect(torch.isfinite(values).all(), f"{what}: {name} has NaN or infinities")
    expect(torch.isfinite(batch.states).all(), f"{what}: states have NaN or infinities")
    right = batch.states.dtype == batch.inputs.values.dtype == torch.float32
    expect(right, f"{what}: states are {batch.states.dtype}", "values are float32")
    expect(batch.grid == fields.grid, f"{what}: grid {batch.grid}, the fields say {fields.grid}")


def _check_trajectories(found: Trajectories, fields: FieldSpec, what: str) -> None:
    samples, frames, points, channels = found.values.shape
    statics = sum(field.channels for field in fields.statics)
    expect(channels == fields.target_channels, f"{what}: {channels} channels")
    expect(len(found.times) == frames, f"{what}: {len(found.times)} times for {frames} frames")
    shape = tuple(found.statics.shape)
    expect(shape == (samples, points, statics), f"{what}: statics {shape}, expected {(samples, points, statics)}")
    shape = tuple(found.positions.shape)
    allowed = ((points, fields.space_dims), (samples, points, fields.space_dims))
    expect(shape in (*allowed, (samples, frames, points, fields.space_dims)), f"{what}: positions {shape}")
    expect(torch.isfinite(found.values).all(), f"{what}: values that are not finite")


def normalisation(subject: Subject) -> str | None:
    """A batch whose normalisation is undone is what `trajectories` gives of the same trajectory and time."""
    for dataset in _tasks(subject):
        batch, whole = _batch(dataset), dataset.trajectories("train")
        steady, mend = dataset.fields.steady, "normalise targets with `normaliser.targets`, and nothing twice"
        for sample in range(len(batch.states)):
            row = whole.ids.tolist().index(int(batch.ids[sample]))
            frame = 0 if steady else int((whole.times.double() - batch.times[sample].double()).abs().argmin())
            for step in range(1 if steady else 0, batch.states.shape[1]):
                seen = dataset.normaliser.physical(batch.states[sample, step].double())
                truth = whole.values[row, 0 if steady else frame + step].double()
                real = slice(None) if batch.mask is None else batch.mask[sample]
                count = min(len(seen), len(truth))
                seen, truth = seen[:count][real if isinstance(real, slice) else real[:count]], truth[:count]
                truth = truth[real if isinstance(real, slice) else real[:count]]
                apart = float((seen - truth).abs().max()) / (float(truth.abs().max()) + 1e-12)
                expect(apart < CLOSE, f"trajectory {int(batch.ids[sample])} is {apart:.3g} off, relatively", mend)
    return None


def same_numbers(subject: Subject) -> str | None:
    """The same windows give the same numbers: read twice, after it was built again, and from a pickled copy."""
    dataset, again = _dataset(subject), _config(subject).build(0)
    try:
        copy = pickle.loads(pickle.dumps(dataset))
    except Exception as error:  # whatever does not pickle says so in its own way
        mend = "hold paths and numbers, and open files where they are read"
        raise Broken(f"it cannot be pickled for data workers: {error}", mend) from error
    for one, other, what in (
        (dataset, dataset, "read twice"),
        (dataset, again, "built again"),
        (dataset, copy, "pickled"),
    ):
        for first, second in zip(tasks_of(one).values(), tasks_of(other).values(), strict=True):
            equal = _equal(_batch(first), _batch(second))
            expect(equal, f"{what}, a batch has other numbers", "let batches follow from their windows alone")
    return None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(_equal(mine, its) for mine, its in zip(one, other))
    return bool(one == other)


CLAUSES: Mapping[str, Clause] = {
    "describe": describes,
    "splits": splits,
    "shapes": shapes,
    "normalisation": normalisation,
    "same-numbers": same_numbers,
}
