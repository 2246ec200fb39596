"""Builders of one cache, killed or side by side; run as a script, so that its forks share nothing with the tests.

usage: build_harness.py FOLDER kills COUNT | together PROCESSES
Prints one JSON object: kills, partial (shards that counted and were not whole), lost (shards that counted once and no
longer did), kept (shards that the last builder found), made (shards, by every builder that came to its end), equal (to
what one undisturbed builder writes), early (markers of completeness before all shards were there).
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

SIZE = {"trajectories": 150, "frames": 6, "tokens": 8, "width": 16, "shard_bytes": 4000}


def build(path: Path, seconds: float, acknowledge: int, begun: int | None = None) -> None:
    """What one process does: fill the store, with so many seconds of work for each shard, telling of each begun."""
    store = make_store(path, **SIZE)  # type: ignore[arg-type]

    def work(rows: range) -> tuple[np.ndarray, np.ndarray]:
        if begun is not None:
            os.write(begun, b".")
        time.sleep(seconds)
        return made(store.layout, rows)

    own = store.fill(work)
    store.complete()
    os.write(acknowledge, f"{own}\n".encode())


def started(path: Path, seconds: float, acknowledge: int, begun: int | None = None) -> int:
    child = os.fork()
    if child == 0:
        build(path, seconds, acknowledge, begun)
        os._exit(0)
    return child


def killed(path: Path, acknowledge: int, chance: random.Random) -> bool:
    """Whether a builder was killed in time: while it makes or writes its first, second or third shard."""
    reading, writing = os.pipe()
    child = started(path, 0.002, acknowledge, writing)
    os.close(writing)
    for _ in range(chance.randint(1, 3)):
        os.read(reading, 1)
    time.sleep(chance.uniform(0, 0.012))
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


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
    os.fsync = lambda descriptor: (
        None
    )  # a killed process loses nothing that it wrote; disks differ in how long it takes
    chance = random.Random(0)
    reading, writing = os.pipe()
    kills = partial = early = lost = 0
    kept: set[int] = set()
    if mode == "kills":
        while kills < count:
            if not killed(path / "cache", writing, chance):
                break
            kills += 1
            store = make_store(path / "cache", **SIZE)  # type: ignore[arg-type]
            partial += unsound(store)
            held = {shard for shard in range(store.layout.shards) if store.holds(shard)}
            lost, kept = lost + len(kept - held), held
            early += store.was_complete
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
                "lost": lost,
                "kept": len(kept),
                "equal": equal and store.is_complete,
                "shards": store.layout.shards,
                "made": own,
                "left": len(left),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
