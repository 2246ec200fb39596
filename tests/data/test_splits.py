"""Splits by trajectory, without leaks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ups_kit import DataError
from ups_kit.data.splits import Splits, content_hash, drawn


def unique_hashes(total: int) -> dict[int, str]:
    return {number: f"hash {number}" for number in range(total)}


@given(train=st.integers(1, 20), validation=st.integers(1, 20), test=st.integers(1, 20), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_disjoint_and_of_the_counts_asked(train: int, validation: int, test: int, seed: int) -> None:
    counts = {"test": test, "validation": validation, "train": train}
    ids = drawn(counts, range(60), unique_hashes(60), seed, "file")
    members = [member for split in ids.values() for member in split]
    assert {name: len(split) for name, split in ids.items()} == counts
    assert len(set(members)) == len(members)
    assert all(list(split) == sorted(split) for split in ids.values())
    assert ids == drawn(counts, range(60), unique_hashes(60), seed, "file")


def test_more_train_data_leave_the_test_split_alone() -> None:
    few = drawn({"test": 5, "train": 10}, range(40), unique_hashes(40), 3, "file")
    many = drawn({"test": 5, "train": None}, range(40), unique_hashes(40), 3, "file")
    assert few["test"] == many["test"]
    assert set(few["train"]) < set(many["train"])
    assert len(many["train"]) == 35
    assert drawn({"test": 5, "train": 10}, range(40), unique_hashes(40), 4, "file") != few


def test_one_initial_condition_stays_in_one_split() -> None:
    hashes = {number: f"hash {number % 20}" for number in range(40)}  # two viscosities of twenty states
    ids = drawn({"test": 8, "validation": 4, "train": None}, range(40), hashes, 0, "file")
    for split in ids.values():
        assert {(member + 20) % 40 for member in split} == set(split)
    Splits(ids, hashes)


def test_counts_that_initial_conditions_do_not_make_up() -> None:
    hashes = {number: f"hash {number % 20}" for number in range(40)}
    with pytest.raises(DataError, match=r"40 of 20 initial conditions: .* stay together"):
        drawn({"test": 7, "train": None}, range(40), hashes, 0, "file")


def test_too_few_trajectories_are_counted() -> None:
    with pytest.raises(DataError, match=r"f\.h5: the splits take 100 test \+ 50 validation \+ the rest train .* 120:"):
        drawn({"test": 100, "validation": 50, "train": None}, range(120), unique_hashes(120), 0, "f.h5")


def test_a_leak_is_refused_with_ids() -> None:
    hashes = {0: "a", 1: "b", 2: "c", 3: "b"}
    with pytest.raises(
        DataError, match=r"1 initial conditions stand in two splits.*trajectories 1 \(train\) = 3 \(test\)"
    ):
        Splits({"train": (0, 1), "test": (2, 3)}, hashes)
    with pytest.raises(DataError, match="two splits"):
        Splits({"train": (0, 1), "test": (1, 2)}, hashes)


def test_survives_json_and_has_a_digest_of_its_content() -> None:
    splits = Splits({"train": (0, 2), "test": (1,)}, unique_hashes(3))
    again = Splits.from_dict(json.loads(json.dumps(splits.to_dict())))
    assert again.ids == splits.ids
    assert again.digest == splits.digest
    assert Splits({"train": (0, 1), "test": (2,)}, unique_hashes(3)).digest != splits.digest


def test_hash_is_of_shape_and_values() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert content_hash(values) == content_hash(values.astype(">f8"))
    assert content_hash(values) != content_hash(values.reshape(6, 4))
    assert content_hash(values) != content_hash(values + np.float32(1e-6))
