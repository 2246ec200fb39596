"""What a training chooses its best weights by: its losses on some sequences of a split, always the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ups_kit.batching import to_device
from ups_kit.data.splits import evenly

from ..dataset import TokenDataset
from ..model.transformer import TokenTransformer
from .forward import TokenPass, TokenTerm


class TokenValidation:
    """Each loss by its name at all positions, and `score`, their sum with full weights."""

    def __init__(
        self,
        dataset: TokenDataset,
        device: torch.device,
        terms: Sequence[TokenTerm],
        samples: int,
        batch: int,
        split: str = "validation",
    ) -> None:
        self._terms = tuple(terms)
        self._device = device
        self._batches = [dataset.batch(split, part) for part in spread(dataset.count(split), samples, batch)]

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        sums = {term.name: torch.zeros((), dtype=torch.float64) for term in self._terms}
        counts = dict.fromkeys(sums, 0)
        for batch in self._batches:
            seen = TokenPass(cast("TokenTransformer", model), to_device(batch, self._device))
            for term in self._terms:
                places = seen.places(term.loss.modality)
                sums[term.name] += _summed(term.loss.errors(seen, places))
                counts[term.name] += len(places)
        found = {name: float(value) / max(counts[name], 1) for name, value in sums.items()}
        return {"score": sum(_full(term) * found[term.name] for term in self._terms), **found}


def spread(total: int, samples: int | None, batch: int) -> list[NDArray[np.int64]]:
    """Up to so many of the numbers 0 … total - 1, evenly spread, in parts of at most `batch`."""
    numbers = np.array(evenly(range(total), samples), np.int64)
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def _summed(errors: Tensor) -> Tensor:
    return errors.double().sum().cpu()


def _full(term: TokenTerm) -> float:
    weighting = term.weighting
    return weighting.weight if weighting.cap is None else min(weighting.weight, weighting.cap)
