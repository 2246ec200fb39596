"""The data of a plan: how large they are, and a few trajectories in the place of those that are still to be made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
from attrs import frozen
from torch import Tensor

from ..console import notice
from ..data.making import make
from ..data.paths import to_be_made
from ..errors import UsageError
from ..interfaces import Batch, FitsFirst, Samples
from ..recipe import AnyRecipe

TRAIN, HELD_OUT = 4, 2  # trajectories of a sample
PATHS = ("path", "validation_path", "test_path")


@frozen
class Sample:
    """A file that is not there yet, and what a few of its trajectories tell of the whole."""

    path: Path
    trajectories: int  # of the whole
    sampled: int
    scale: float  # train trajectories of the whole, for each one of the sample
    seconds: float  # wall seconds of making the whole, at the sample's pace
    bytes: int  # of the whole, as its simulator reckons


@contextmanager
def with_data(recipe: AnyRecipe) -> Iterator[tuple[AnyRecipe, Sample | None]]:
    """The recipe, or one whose simulated data are a few trajectories in a temporary folder.

    Raises UsageError where data are to be made and cannot be sampled so.
    """
    missing = list(_to_be_made(recipe.dataset))
    if not missing:
        yield recipe, None
        return
    dataset: Any = recipe.dataset
    keys = {field.name for field in attrs.fields(type(dataset))}
    if (
        missing != [dataset]
        or not keys >= {"train", "validation", "test"}
        or not hasattr(dataset.simulate, "trajectories")
    ):
        listed = ", ".join(str(config.path) for config in missing)
        raise UsageError(
            f"{listed}: is still to be made, and a plan cannot make a sample of it; make the data first (`upskit data "
            "make SIMULATOR --out FILE` with the recipe's keys), or run the recipe"
        )
    with TemporaryDirectory(prefix="upskit_plan_") as folder:
        few, sample = _sampled(dataset, Path(folder))
        yield attrs.evolve(recipe, dataset=few), sample


def _to_be_made(config: Any) -> Iterator[Any]:
    """The tables of datasets whose files a simulator is to make, at any depth."""
    if isinstance(config, Mapping):
        for value in config.values():
            yield from _to_be_made(value)
    elif attrs.has(type(config)):
        if getattr(config, "simulate", None) is not None and to_be_made(config.path, config.simulate) is not None:
            yield config
        for field in attrs.fields(type(config)):
            yield from _to_be_made(getattr(config, field.name))


def _sampled(dataset: Any, folder: Path) -> tuple[Any, Sample]:
    """The dataset's table with a few trajectories, which are made now."""
    wanted = int(dataset.simulate.trajectories)
    held_out = {key: getattr(dataset, key) for key in ("validation", "test")}
    taken = sum(count for key, count in held_out.items() if getattr(dataset, f"{key}_path", None) is None)
    train = dataset.train if dataset.train is not None else max(1, wanted - taken)
    few = {"train": min(train, TRAIN), **{key: min(count, HELD_OUT) for key, count in held_out.items()}}
    simulate = attrs.evolve(dataset.simulate, trajectories=sum(few.values()))
    notice(f"{dataset.path}: is still to be made; a sample of {sum(few.values())} trajectories is made to plan with")
    path, started = folder / dataset.path.name, time.perf_counter()
    simulator = simulate.build()
    if isinstance(simulator, FitsFirst):
        simulator.fit()
    ready = time.perf_counter()
    make(path, simulate)
    seconds = ready - started + (time.perf_counter() - ready) * wanted / sum(few.values())
    sample = Sample(
        path=dataset.path,
        trajectories=wanted,
        sampled=sum(few.values()),
        scale=train / few["train"],
        seconds=seconds,
        bytes=dataset.simulate.build().bytes,
    )
    return attrs.evolve(dataset, path=path, simulate=simulate, **few), sample


def bytes_on_disk(config: Any) -> int:
    """Of all files and stores that a dataset's table names and that are on this machine."""
    if isinstance(config, Mapping):
        return sum(bytes_on_disk(value) for value in config.values())
    if not attrs.has(type(config)):
        return 0
    total = 0
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if field.name in PATHS and value is not None:
            total += sum(map(_size, value if isinstance(value, tuple) else (value,)))
        else:
            total += bytes_on_disk(value)
    return total


def _size(path: Path) -> int:
    """Of a file, a folder, or all that fits a pattern."""
    try:
        found = [path] if path.exists() else list(path.parent.glob(path.name))
        files = [file for entry in found for file in ([entry] if entry.is_file() else entry.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.is_file())
    except (OSError, ValueError):
        return 0


def window_bytes(batch: Samples) -> float:
    """Bytes of the values that one training window reads: of a batch of fields those alone, of another all."""
    values = (batch.inputs.values, batch.states) if isinstance(batch, Batch) else batch
    return float(sum(_tensor_bytes(values))) / batch.samples


def _tensor_bytes(values: object) -> Iterator[int]:
    if isinstance(values, Tensor):
        yield values.numel() * values.element_size()
    for value in values if isinstance(values, tuple) else ():
        yield from _tensor_bytes(value)
