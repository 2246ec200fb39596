"""Token batches on their way into a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from attrs import frozen

from ups_kit.data.stream import window_numbers
from ups_kit.data.workers import WorkerStart
from ups_kit.fit.batches import read_ahead
from ups_kit.fit.forward import derived_seed

from .batch import TokenBatch
from .dataset import TokenDataset


@frozen(kw_only=True)
class TokenWindows:
    """The train split as a source of batches, permuted in every epoch and read ahead; a window is a whole sequence.

    Batch k is a pure function of (seed, stage, k).
    """

    dataset: TokenDataset
    batch: int
    seed: int
    stage: str
    device: torch.device
    workers: int = 0
    worker_start: WorkerStart = "forkserver"

    @property
    def windows(self) -> int:
        """How many sequences an epoch has."""
        return self.dataset.count("train")

    def numbers(self, step: int) -> np.ndarray:
        """The sequences of the train split that batch `step` is made of."""
        return window_numbers(self.windows, self.batch, derived_seed(self.seed, self.stage), step)

    def read(self, step: int) -> TokenBatch:
        """Batch `step` in CPU memory."""
        return self.dataset.batch("train", self.numbers(step))

    @contextmanager
    def stream(self, first: int) -> Iterator[Iterator[TokenBatch]]:
        """Batches `first`, `first + 1`, … on the training device, read ahead by a thread or by worker processes."""
        with read_ahead(self.read, first, self.device, self.workers, self.worker_start) as batches:
            yield batches
