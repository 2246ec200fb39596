"""What a model has to beat: forecasts that know the modality of the next token, and next to nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ..batch import counted
from ..dataset import TokenDataset
from ..training.forward import TokenPass
from ..training.validation import spread

FITTED_ON, AT_ONCE = 20_000, 256  # train sequences, at most
PRIOR = 0.5  # added to every count, so that a token that train lacks has a probability (Jeffreys)


@frozen(eq=False)
class Unigram:
    """How often each token of a modality, and each special token, comes in the train split, given that it is one."""

    shares: Mapping[str | None, Tensor]  # by modality, (V_m,); None: of special tokens

    def nats(self, modality: str | None, numbers: Tensor) -> Tensor:
        """−log of the share of each of these tokens, numbered within their modality."""
        return -self.shares[modality].to(numbers.device)[numbers].log()

    def value(self, modality: str, codebook: Tensor) -> Tensor:
        """What is expected of a token of the modality, (d_m,)."""
        return self.shares[modality].to(codebook) @ codebook


def fitted_unigram(dataset: TokenDataset) -> Unigram:
    """The counts of the train split, at most so many of its sequences."""
    vocabulary = dataset.description.vocabulary
    counts = torch.full((vocabulary.size,), PRIOR, dtype=torch.float64)
    for numbers in spread(dataset.count("train"), FITTED_ON, AT_ONCE):
        batch = dataset.batch("train", numbers)
        kept = batch.tokens[counted(batch.tokens, batch.mask, vocabulary)]
        counts += torch.bincount(kept, minlength=vocabulary.size)
    blocks: dict[str | None, slice] = {name: vocabulary.block(name) for name in vocabulary.names}
    blocks[None] = slice(0, len(vocabulary.special))
    return Unigram({name: counts[block] / counts[block].sum() for name, block in blocks.items()})


def previous_values(seen: TokenPass, places: Tensor, modality: str, otherwise: Tensor) -> Tensor:
    """The value of the token of the same modality before each of these, (n, d_m); `otherwise` at a sequence's first.

    Where a MISSING one stands between them, it is the one before that.
    """
    values, samples = seen.codebook(modality)[seen.numbers(places, modality)], seen.samples_of(places)
    has_one = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    has_one[1:] = samples[1:] == samples[:-1]
    return values.roll(1, 0).where(has_one[:, None], otherwise)


def quantised(dataset: TokenDataset, split: str, numbers: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """What the tokens of these sequences were made from, by modality, (n, d_m), where the data keep it."""
    found = dataset.originals(split, numbers)
    return {name: torch.from_numpy(values).to(device) for name, values in found.items()}
