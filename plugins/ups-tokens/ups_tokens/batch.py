"""A batch of token sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .vocabulary import Vocabulary


class TokenBatch(NamedTuple):
    """Sequences of tokens, filled up at the end with PAD, whose mask is false.

    The target of position i is the token at i + 1; PAD and MISSING are no targets. `expected` tells a part of a batch
    what the whole of it holds, so that the loss of a part, Σ / (expected · samples), averages over equal parts to the
    loss of the whole.
    """

    tokens: Tensor  # (B, L), int64
    types: Tensor  # (B, L), int64
    mask: Tensor  # (B, L), bool, true where a token is real and not padding
    ids: Tensor  # (B,), int64, the number of each sequence
    expected: Tensor  # (M + 1,), float32: targets per sequence of the whole batch, of all, then of each modality

    @property
    def samples(self) -> int:
        """Number of sequences B."""
        return len(self.tokens)

    def part(self, part: slice) -> TokenBatch:
        """Some sequences of the batch; `expected` stays that of the whole."""
        tokens, types, mask, ids, expected = self
        return TokenBatch(tokens[part], types[part], mask[part], ids[part], expected)


def counted(tokens: Tensor, mask: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Which tokens count as targets, (B, L): real ones behind the first, and neither PAD nor MISSING."""
    kept = mask & (tokens != vocabulary.id_of("PAD")) & (tokens != vocabulary.id_of("MISSING"))
    kept[:, 0] = False
    return kept


def expected_targets(tokens: Tensor, mask: Tensor, vocabulary: Vocabulary) -> Tensor:
    """How many targets a sequence has on average, (M + 1,): of all, then of each modality."""
    kept = counted(tokens, mask, vocabulary)
    blocks: Sequence[slice] = [vocabulary.block(name) for name in vocabulary.names]
    counts = [kept, *(kept & (tokens >= block.start) & (tokens < block.stop) for block in blocks)]
    return torch.stack([count.sum() for count in counts]).to(torch.float32) / len(tokens)
