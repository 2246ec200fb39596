"""Batches on their way into a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import numpy as np
import torch
from attrs import frozen

from ..batching import to_device
from ..data.latents import cached_dataset
from ..data.prefetch import prefetched
from ..data.stream import shift_periodic, window_numbers
from ..data.workers import WorkerStart, read_by_workers
from ..errors import DataError
from ..interfaces import Batch, Dataset, DrawsWindows, Preparation, Prepares, ReadsPoints, Samples
from ..tasks import tasks_of
from ..trackers import Trackers
from .forward import derived_seed
from .settings import FieldFitSettings

if TYPE_CHECKING:
    from ..assemble import Experiment


T = TypeVar("T", bound=tuple[Any, ...])


def check_length(dataset: Dataset, steps: int, what: str, split: str = "train") -> None:
    """The trajectories of a split, of every task, must have so many frames after the given ones; raises DataError.

    `what` looks so far ahead: the key path.
    """
    given = dataset.fields.history
    for task, held in tasks_of(dataset).items():
        if not steps or held.windows(split, steps):
            continue
        longest = max((k for k in range(steps) if held.windows(split, k)), default=0)
        raise DataError(
            f"{what} looks {steps} steps ahead, which takes {given + steps} frames ({given} given); the longest "
            f"{split} trajectory{f' of dataset.tasks.{task}' if task else ''} has {given + longest}: expected at most "
            f"{longest} steps"
        )


class BatchSource(Protocol):
    """Where a stage's batches come from. Batch k is a pure function of the source and k."""

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        ...

    def numbers(self, step: int) -> np.ndarray:
        """The windows that batch `step` is made of, for messages."""
        ...

    def stream(self, first: int) -> AbstractContextManager[Iterator[Any]]:
        """Batches `first`, `first + 1`, … on the training device: `Samples`, as the task's loss takes them."""
        ...


@contextmanager
def read_ahead(
    read: Callable[[int], T], first: int, device: torch.device, workers: int, worker_start: WorkerStart
) -> Iterator[Iterator[T]]:
    """`read(first)`, `read(first + 1)`, … on a device, read ahead by a thread, or by so many worker processes."""
    pinned = device.type == "cuda"
    ahead = (
        read_by_workers(read, first, workers, worker_start, pinned)
        if workers
        else prefetched(read, count(first), pinned=pinned)
    )
    with ahead as batches:
        yield (to_device(batch, device) for batch in batches)


@frozen(kw_only=True)
class TrainingWindows:
    """The train split of a dataset as a source of batches: permuted in every epoch, shifted, read ahead.

    Each batch has `steps` future frames; its inputs come prepared for the encoder. Raises DataError where the train
    split has no such window.
    """

    dataset: Dataset
    steps: int
    batch: int
    seed: int
    stage: str
    shift: bool
    device: torch.device
    workers: int = 0
    worker_start: WorkerStart = "forkserver"
    preparation: Preparation | None = None  # the encoder's look-ups, made where batches are read

    def __attrs_post_init__(self) -> None:
        if self.windows < 1:
            raise DataError(
                f"stage '{self.stage}': no train trajectory has {self.steps} frames after a first one; "
                "a loss with a shorter horizon, or longer trajectories, are needed"
            )

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        return self.dataset.windows("train", self.steps)

    def numbers(self, step: int) -> np.ndarray:
        """The windows that batch `step` is made of."""
        seed = derived_seed(self.seed, self.stage)
        if isinstance(self.dataset, DrawsWindows):
            return self.dataset.draw("train", self.steps, self.batch, seed, step)
        return window_numbers(self.windows, self.batch, seed, step)

    def read(self, step: int) -> Batch:
        """Batch `step` in CPU memory."""
        batch = self._read(step)
        if self.shift:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, f"{self.stage}/{step}/shift"))
            batch = shift_periodic(batch, self.dataset.fields, generator)
        return batch if self.preparation is None else batch._replace(inputs=self.preparation(batch.inputs))

    def _read(self, step: int) -> Batch:
        numbers = self.numbers(step)
        if not self.dataset.fields.reads_points or not isinstance(self.dataset, ReadsPoints):
            return self.dataset.batch("train", numbers, self.steps)
        seed = derived_seed(self.seed, f"{self.stage}/{step}/points")
        return self.dataset.batch_at_points("train", numbers, self.steps, seed)

    @contextmanager
    def stream(self, first: int) -> Iterator[Iterator[Batch]]:
        """Batches `first`, `first + 1`, … on the training device, read ahead by a thread or by worker processes."""
        with read_ahead(self.read, first, self.device, self.workers, self.worker_start) as batches:
            yield batches


def parts_of(batch: Samples, count: int) -> Iterator[Samples]:
    """A batch cut along its samples into `count` equal parts, in order."""
    size = batch.samples // count
    for start in range(0, size * count, size):
        yield batch if count == 1 else batch.part(slice(start, start + size))


def train_windows(experiment: Experiment, settings: FieldFitSettings, stage: str, steps: int) -> TrainingWindows:
    """The train windows of a stage of this name, with so many future frames, as its run reads them."""
    run, encoder = experiment.recipe.run, experiment.model.encoder
    return TrainingWindows(
        dataset=experiment.dataset,
        steps=steps,
        batch=settings.batch,
        seed=run.seed,
        stage=stage,
        shift=settings.periodic_shifts,
        device=experiment.device,
        workers=run.workers,
        worker_start=run.worker_start,
        preparation=encoder.preparation if isinstance(encoder, Prepares) else None,
    )


def on_cached_latents(
    experiment: Experiment, windows: TrainingWindows, reads_fields: bool, trackers: Trackers
) -> tuple[TrainingWindows, dict[str, Any]]:
    """The same windows with cached latents, with or without fields beside them, and what is to be said of the cache."""
    dataset, summary = cached_dataset(
        experiment, windows.steps, reads_fields, lambda text: trackers.line(f"{windows.stage}  {text}")
    )
    from_memory = dataset.latents.memory is not None and not reads_fields
    workers = 0 if from_memory else windows.workers
    return attrs.evolve(windows, dataset=dataset, workers=workers, preparation=None), summary
