"""Builders of one cache, killed or side by side; run as a script, so that its forks share nothing with the tests.

usage: build_harness.py FOLDER kills COUNT | together PROCESSES
Prints one JSON object: kills, partial (shards that counted and were not whole), made (shards, by all builders that
said so), equal (to what one undisturbed builder writes), early (markers of completeness before all shards were there).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from conftest import contents, filled, made, make_store, tokens_of

from ups_kit.data.latent_store import Damaged, LatentStore

SIZE = {"trajectories": 120, "frames": 6, "tokens": 8, "width": 16, "shard_bytes": 4000}


def build(path: Path, seconds: float, acknowledge: int) -> None:
    """What one process does: fill the store, with so many seconds of work for each shard."""
    store = make_store(path, **SIZE)  # type: ignore[arg-type]

    def work(rows: range) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(seconds)
        return made(store.layout, rows)

    own = store.fill(work)
    store.complete()
    os.write(acknowledge, f"{own}\n".encode())


def started(path: Path, seconds: float, acknowledge: int) -> int:
    child = os.fork()
    if child == 0:
        build(path, seconds, acknowledge)
        os._exit(0)
    return child


def unsound(store: LatentStore) -> int:
    """Shards that count, and are not what they should be."""
    wrong = 0
    for shard in range(store.layout.shards):
        if not store.holds(shard):
            continue
        try:
            tokens = tokens_of(store, shard, store.content(shard))
            wrong += not np.array_equal(tokens, made(store.layout, store.layout.rows(shard))[0])
        except Damaged:
            wrong += 1
    return wrong


def main(path: Path, mode: str, count: int) -> None:
    chance = random.Random(0)
    reading, writing = os.pipe()
    kills = partial = early = 0
    if mode == "kills":
        while kills < count:
            child = started(path / "cache", 0.004, writing)
            time.sleep(chance.uniform(0.01, 0.05))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                break
            kills += 1
            if (path / "cache" / "description.json").exists():
                store = make_store(path / "cache", **SIZE)  # type: ignore[arg-type]
                partial += unsound(store)
                early += store.is_complete and not all(store.holds(shard) for shard in range(store.layout.shards))
        build(path / "cache", 0.0, writing)
    else:
        children = [started(path / "cache", 0.002, writing) for _ in range(count)]
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    os.close(writing)
    with os.fdopen(reading) as handle:
        own = [int(line) for line in handle.read().splitlines()]
    store = make_store(path / "cache", **SIZE)  # type: ignore[arg-type]
    alone = contents(filled(path / "alone", **SIZE))  # type: ignore[arg-type]
    equal = all(np.array_equal(one, other) for one, other in zip(contents(store), alone))
    left = [str(entry) for entry in (path / "cache").rglob("*") if entry.name.startswith(".") and entry.is_file()]
    print(
        json.dumps(
            {
                "kills": kills,
                "partial": partial,
                "early": early,
                "equal": equal and store.is_complete,
                "shards": store.layout.shards,
                "made": own,
                "left": len(left),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
