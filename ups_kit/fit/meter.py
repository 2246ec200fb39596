"""Running means of what a training step measures, kept on the device until they are read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Meter:
    """Means since the last reading; samples per second, and the share of the time that went by in waiting for them.

    Both are without validations and checkpoints.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.restart_clock()

    def awaited(self, batches: Iterator[T]) -> T:
        """The next batch, and the time that it took to come counted as waiting."""
        started = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - started
        return batch

    def add(self, samples: int, values: Mapping[str, Tensor]) -> None:
        """Take in one step: how many samples, and scalars by name."""
        self._samples += samples
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """What has been taken in since the last reading, so that a resumed run logs the same means."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def restart_clock(self) -> None:
        """Do not count the time that just went by as training."""
        self._samples, self._waited = 0, 0.0
        self._started = time.perf_counter()

    def read(self) -> dict[str, float]:
        """The means, `samples_per_second` and `data_wait`; starts anew. The only place that waits for the device.

        `data_wait` is the share of the time, 0 to 1, in which the training stood still for want of a batch.
        """
        names = list(self._sums)
        means = (
            torch.stack([self._sums[name].double() / self._counts[name] for name in names]).tolist() if names else []
        )
        values = dict(zip(names, means))
        if self._samples:
            seconds = max(time.perf_counter() - self._started, 1e-9)
            values["samples_per_second"] = self._samples / seconds
            values["data_wait"] = self._waited / seconds
        self._sums, self._counts = {}, {}
        self.restart_clock()
        return values
