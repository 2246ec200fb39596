"""A small vocabulary, batches of random sequences, and a model, all made in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ups_tokens.batch import TokenBatch, expected_targets
from ups_tokens.description import TokenSpec
from ups_tokens.model.config import TokenTransformerConfig
from ups_tokens.model.transformer import TokenTransformer
from ups_tokens.vocabulary import Modality, Vocabulary

MODALITIES = (Modality("image", "image", 7, 4), Modality("spectrum", "spectrum", 5, 3), Modality("mass", "scalar", 6))
SIZES: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 24, "length": 24, "types": 4}


def make_spec() -> TokenSpec:
    generator = np.random.default_rng(0)
    books = {own.name: generator.normal(size=(own.size, own.dims)).astype(np.float32) for own in MODALITIES}
    return TokenSpec(Vocabulary(MODALITIES), 24, 4, books)


def make_model(seed: int = 0, **keys: Any) -> TokenTransformer:
    torch.manual_seed(seed)
    return TokenTransformer(TokenTransformerConfig(**(SIZES | keys)), make_spec())


def make_batch(lengths: tuple[int, ...] = (20, 24, 9, 14), without: tuple[str, ...] = (), seed: int = 1) -> TokenBatch:
    """BOS, then tokens of the modalities by turns, some of them MISSING, then EOS and padding."""
    vocabulary, generator = make_spec().vocabulary, torch.Generator().manual_seed(seed)
    names = [name for name in vocabulary.names if name not in without]
    tokens = torch.full((len(lengths), 24), vocabulary.id_of("PAD"))
    types = torch.zeros(len(lengths), 24, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, 0], tokens[row, length - 1] = vocabulary.id_of("BOS"), vocabulary.id_of("EOS")
        for place in range(1, length - 1):
            name = names[place % len(names)]
            block, draw = vocabulary.block(name), int(torch.randint(1000, (), generator=generator))
            gone = place % 11 == 5
            tokens[row, place] = (
                vocabulary.id_of("MISSING") if gone else block.start + draw % (block.stop - block.start)
            )
            types[row, place] = 1 + vocabulary.index(name)
    mask = torch.arange(24) < torch.tensor(lengths)[:, None]
    ids = torch.arange(len(lengths))
    return TokenBatch(tokens, types, mask, ids, expected_targets(tokens, mask, vocabulary))


@pytest.fixture
def made() -> SimpleNamespace:
    """What makes descriptions, models and batches."""
    return SimpleNamespace(spec=make_spec, model=make_model, batch=make_batch, sizes=SIZES)
