"""Data that are no fields in space, as the commands on data see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from attrs import frozen

from ups_kit.cli.data import field_lines
from ups_kit.cli.data_checks import _validated
from ups_kit.cli.data_making import _endings
from ups_kit.data.checking import _twins
from ups_kit.data.layouts import check_problems, in_words
from ups_kit.data.splits import Splits
from ups_kit.interfaces import DescribedDataset, NamesEndings


@frozen
class Words:
    """What the data are."""

    count: int

    def to_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def lines(self) -> Iterable[str]:
        yield f"  words       {self.count}"


@frozen
class WordsConfig:
    """A data set, and what makes it."""

    family: ClassVar[str] = "words"
    endings: ClassVar[tuple[str, ...]] = (".npz",)
    longest: int = 3

    def describe(self) -> Words:
        return Words(5)

    def check_data(self, data: Words) -> Iterable[tuple[str, str]]:
        if data.count > self.longest:
            yield "longest", f"{data.count} words"

    def check(self, fields: Any, latent: Any) -> Iterable[tuple[str, str]]:
        raise AssertionError("they are no fields")


@frozen
class WordsDataset:
    description: Words
    splits: Splits

    def windows(self, split: str, steps: int) -> int:
        raise AssertionError("they have no windows")

    def batch(self, split: str, numbers: np.ndarray) -> Mapping[str, Any]:
        raise AssertionError("they have no batches as fields have")


def test_they_are_described_in_their_own_words() -> None:
    words = in_words(WordsConfig().describe())
    assert words == {"count": 5, "lines": ["words       5"]}
    assert list(field_lines(words)) == ["words       5"]
    assert check_problems(WordsConfig(), Words(5)) == ["dataset.longest: 5 words"]
    assert check_problems(WordsConfig(longest=5), Words(5)) == []


def test_what_was_looked_at_is_not_told_in_words_of_fields() -> None:
    found = {"use": "words", "fields": in_words(Words(5)), "splits": {"train": 4, "test": 1}, "samples_checked": 0}
    told = "\n".join(_validated(Path("words.npz"), found, []))
    assert "4 train, 1 test; all values as they should be, no sample in two of them" in told
    assert "initial conditions" not in told
    assert "one by one" not in told


def test_twins_are_left_to_their_data_set() -> None:
    dataset = WordsDataset(Words(5), Splits({"train": (0,), "test": (1,)}, {0: "a", 1: "b"}))
    assert isinstance(dataset, DescribedDataset)
    assert _twins(dataset, lambda what: None) == []


def test_simulators_name_the_endings_of_their_files() -> None:
    assert isinstance(WordsConfig(), NamesEndings)
    assert _endings(WordsConfig()) == (".npz",)
