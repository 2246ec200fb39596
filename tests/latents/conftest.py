"""A small store of made latents: every number says which trajectory, frame, token and channel it is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from ups_kit.data.latent_store import STORED, LatentStore, Layout

SHAPE = {"trajectories": 11, "frames": 7, "tokens": 4, "width": 8, "conditions": 2}


def made(layout: Layout, rows: range, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and frames of some trajectories, a pure function of their numbers."""
    shape = (layout.frames, layout.tokens, layout.width)
    tokens = np.stack([np.random.default_rng([seed, row]).normal(size=shape) for row in rows])
    frames = np.stack([np.random.default_rng([seed, row, 1]).normal(size=(layout.frames, 3)) for row in rows])
    return tokens.astype("f4").astype(STORED[layout.dtype]), frames


def make_store(path: Path, key: str = "a", shard_bytes: int = 4000, **changed: Any) -> LatentStore:
    layout = Layout.cut(**(SHAPE | {"dtype": "float32"} | changed), shard_bytes=shard_bytes)
    return LatentStore.opened(path, {"key": key, "anchors": [[0.5]], "layout": attrs.asdict(layout)})


def contents(store: LatentStore) -> tuple[np.ndarray, np.ndarray]:
    """All tokens and frames of a store that is whole."""
    tokens, frames = [], []
    for shard in range(store.layout.shards):
        found = store.content(shard)
        tokens.append(tokens_of(store, shard, found))
        frames.append(store.frames(shard, found[store.names(shard)[1]]))
    return np.concatenate(tokens), np.concatenate(frames)


def tokens_of(store: LatentStore, shard: int, content: dict[str, bytes]) -> np.ndarray:
    layout = store.layout
    shape = (len(layout.rows(shard)), layout.frames, layout.tokens, layout.width)
    tokens = np.zeros(shape, STORED[layout.dtype])
    store.unpack(shard, content[store.names(shard)[0]], tokens)
    return tokens


def filled(path: Path, seed: int = 0, **keys: Any) -> LatentStore:
    store = make_store(path, **keys)
    store.fill(lambda rows: made(store.layout, rows, seed))
    store.complete()
    return store


@pytest.fixture
def make() -> Callable[..., LatentStore]:
    return make_store


@pytest.fixture
def fill() -> Callable[..., LatentStore]:
    return filled


@pytest.fixture
def whole() -> Callable[[LatentStore], tuple[np.ndarray, np.ndarray]]:
    return contents


@pytest.fixture
def expected() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return made
