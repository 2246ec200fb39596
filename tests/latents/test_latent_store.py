"""Latents on disk: what is written is read, every damage is seen, nothing of another cache is taken."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from ups_kit.data.latent_store import Damaged, LatentStore, Layout
from ups_kit.errors import StorageError

Make = Callable[..., LatentStore]
Whole = Callable[[LatentStore], tuple[np.ndarray, np.ndarray]]
Expected = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_bytes", [1, 4000, 10**9])
def test_what_is_written_is_read(
    tmp_path: Path, fill: Make, whole: Whole, expected: Expected, dtype: str, shard_bytes: int
) -> None:
    store = fill(tmp_path / "a", dtype=dtype, shard_bytes=shard_bytes)
    tokens, frames = expected(store.layout, range(11))
    found = whole(store)
    np.testing.assert_array_equal(found[0], tokens)
    np.testing.assert_array_equal(found[1], frames)
    assert store.is_complete
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a/tokens", mode="r")[:], tokens)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a/frames", mode="r")[:], frames)


def test_shards_hold_whole_trajectories_and_are_as_large_as_asked_for() -> None:
    keys: dict[str, Any] = {"trajectories": 1000, "frames": 41, "tokens": 32, "width": 64, "conditions": 2}
    layout = Layout.cut(**keys, dtype="float32", shard_bytes=64 * 10**6)
    assert layout.together * 41 * 32 * 64 * 4 <= 64 * 10**6 < (layout.together + 1) * 41 * 32 * 64 * 4
    assert [row for shard in range(layout.shards) for row in layout.rows(shard)] == list(range(1000))
    assert layout.bytes == 1000 * 41 * 32 * 64 * 4
    assert Layout.cut(**keys, dtype="float16", shard_bytes=1).together == 1


def test_a_shard_counts_only_when_it_was_recorded(tmp_path: Path, make: Make, expected: Expected) -> None:
    store = make(tmp_path / "a")
    with pytest.raises(AssertionError, match="claimed"):
        store.write(1, *expected(store.layout, store.layout.rows(1)))
    with store.claimed(1, wait=False) as mine:
        assert mine
        with make(tmp_path / "a").claimed(1, wait=False) as other:
            assert not other
        with pytest.raises(AssertionError, match="whole"):
            store.write(1, *expected(store.layout, range(1)))
        store.write(1, *expected(store.layout, store.layout.rows(1)))
    assert [store.holds(shard) for shard in range(store.layout.shards)] == [False, True, False]
    assert not store.is_complete
    with pytest.raises(StorageError, match=r"shards \[0, 2\] went missing"):
        store.complete()
    made: list[range] = []
    assert store.fill(lambda rows: made.append(rows) or expected(store.layout, rows)) == 2  # type: ignore[func-returns-value]
    assert made == [store.layout.rows(0), store.layout.rows(2)]


def test_another_way_of_cutting_leaves_a_cache_as_it_is(tmp_path: Path, fill: Make, make: Make) -> None:
    store = fill(tmp_path / "a", shard_bytes=1000)
    again = make(tmp_path / "a", shard_bytes=10**9)
    assert again.layout == store.layout
    assert again.is_complete


@pytest.mark.parametrize("change", [{"key": "b"}, {"dtype": "float16"}, {"tokens": 3}, {"trajectories": 12}])
def test_shards_of_another_description_do_not_count(
    tmp_path: Path, fill: Make, make: Make, change: dict[str, Any]
) -> None:
    fill(tmp_path / "a")
    other = make(tmp_path / "a", **change)
    assert not other.is_complete
    assert not any(other.holds(shard) for shard in range(other.layout.shards))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, make: Make) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(StorageError, match=r"shards: the latent cache cannot be kept here: .*latent_cache\.folder"):
        make(tmp_path / "a" / "b")


# ---------------------------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------------------------
def _flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _truncate(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def _zero(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 64] = bytes(len(content[start : start + 64]))
    path.write_bytes(content)


def _delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def _swap(path: Path, chance: random.Random, others: list[Path]) -> None:
    """Put another file of the same name or kind in its place: of this cache or of another one."""
    alike = [other for other in others if other != path and (other.name, other.suffix) == (path.name, path.suffix)]
    shutil.copy(chance.choice(alike), path)


def _meaning(content: bytes) -> object:
    """What a record says, whatever the blanks around it; of other files, their bytes."""
    try:
        return json.loads(content)
    except ValueError:
        return content


@pytest.mark.parametrize("cases", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_damage_passes_silently(
    tmp_path: Path,
    fill: Make,
    make: Make,
    whole: Whole,
    expected: Expected,
    cases: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A damaged cache is told from a whole one, and is whole again when what is damaged is made anew."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here
    original, other = fill(tmp_path / "a"), fill(tmp_path / "b", key="b", seed=1)
    truth = expected(original.layout, range(11))
    names = sorted(
        path.relative_to(original.path)
        for path in original.path.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    )
    chance = random.Random(0)
    seen: dict[str, int] = {}
    for case in range(cases):
        path = tmp_path / "case"
        shutil.copytree(original.path, path)
        damage = chance.choice(["flip", "truncate", "zero", "delete", "swap"])
        victim = path / chance.choice(names)
        before = victim.read_bytes()
        if damage == "swap":
            _swap(victim, chance, [folder / name for folder in (path, other.path) for name in names])
        else:
            {"flip": _flip, "truncate": _truncate, "zero": _zero, "delete": _delete}[damage](victim, chance)
        changed = not victim.exists() or _meaning(victim.read_bytes()) != _meaning(before)
        store = make(path)
        damaged = []
        for shard in range(store.layout.shards):
            try:
                store.content(shard)
            except Damaged:
                damaged.append(shard)
                store.forget(shard)
        if (
            changed
            and victim.relative_to(path).parts[0] in ("tokens", "frames", "shards")
            and victim.name != "zarr.json"
        ):
            assert damaged, f"case {case}: {damage} of {victim.relative_to(path)} was not seen"
            seen[damage] = seen.get(damage, 0) + 1
        store.fill(lambda rows: expected(original.layout, rows))
        store.complete()
        found = whole(store)
        assert np.array_equal(found[0], truth[0]), f"case {case}: {damage} of {victim.relative_to(path)}"
        assert np.array_equal(found[1], truth[1]), f"case {case}: {damage} of {victim.relative_to(path)}"
        assert store.is_complete
        if victim.name == "zarr.json":
            assert np.array_equal(zarr.open_array(path / "tokens", mode="r")[:], truth[0])
        shutil.rmtree(path)
    assert len(seen) == 5
    assert sum(seen.values()) > cases // 2
