"""Scores of a model on windows of the validation split, always the same ones: what best weights are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..batching import to_device
from ..interfaces import Batch, Dataset
from ..tasks import tasks_of

SPLIT = "validation"
Scores = Callable[[Any, Batch], Mapping[str, Tensor]]


class Validation:
    """Scores a model on windows that are spread evenly over the validation split of every task, always the same ones.

    `scores(model, batch)` gives numbers of each sample by name; what is reported is their means, `score` among them.
    """

    def __init__(
        self, dataset: Dataset, device: torch.device, steps: int, samples: int, batch: int, scores: Scores
    ) -> None:
        self._scores = scores
        self._device = device
        self._batches = [
            dataset.batch(SPLIT, part, steps)
            for part in _by_task([held.windows(SPLIT, steps) for held in tasks_of(dataset).values()], samples, batch)
        ]

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        found: dict[str, list[Tensor]] = {}
        for batch in self._batches:
            for name, values in self._scores(model, to_device(batch, self._device)).items():
                found.setdefault(name, []).append(values)
        return {name: float(torch.cat(values).detach().double().mean()) for name, values in found.items()}


def _by_task(totals: Sequence[int], samples: int, batch: int) -> Iterator[np.ndarray]:
    """Parts of one task each: windows are numbered task by task, and every task gets its share of the samples."""
    for task, total in enumerate(totals):
        for part in _spread(total, max(1, samples // len(totals)), batch):
            yield sum(totals[:task]) + part


def _spread(total: int, samples: int, batch: int) -> list[np.ndarray]:
    """Up to so many of the window numbers 0 … total - 1, evenly spread, in parts of at most `batch`."""
    numbers = np.unique(np.linspace(0, total - 1, min(samples, total)).round().astype(np.int64))
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]
