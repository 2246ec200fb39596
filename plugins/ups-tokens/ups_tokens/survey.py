"""All sequences of a file gone through once: what is wrong with them, how long they are, and which are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ups_kit import DataError

from .layout import PAD
from .opening import FEWEST, VALUES, Header
from .vocabulary import Vocabulary

ROWS = 4096  # sequences, or values, that are looked at together


@frozen(eq=False)
class Survey:
    """What is known of every sequence, as it is used: cut to the recipe's length."""

    lengths: NDArray[np.int64]  # (S,), tokens
    hashes: tuple[str, ...]  # (S,)
    starts: NDArray[np.int64]  # (S, M): the place of a sequence's first value in `values/NAME` of each modality
    counts: NDArray[np.int64]  # (S, M): how many of its tokens are of each modality


def survey(header: Header, length: int) -> Survey:
    """Go through a file; raises DataError with everything that is wrong with its values."""
    found = _Findings()
    blocks = [_block(header, start, length, found) for start in range(0, header.sequences, ROWS)]
    whole, counts = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("whole", "counts"))
    _check_values(header, whole.sum(0), found)
    problems = list(found.told())
    if problems:
        raise DataError("\n  ".join([f"{header.contents.path}: its values are not sound:", *problems]), "path")
    lengths = np.concatenate([block.lengths for block in blocks])
    return Survey(
        lengths, tuple(each for block in blocks for each in block.hashes), np.cumsum(whole, 0) - whole, counts
    )


@frozen(eq=False)
class _Block:
    """What was found of some sequences."""

    lengths: NDArray[np.int64]
    whole: NDArray[np.int64]  # (s, M): tokens of each modality
    counts: NDArray[np.int64]  # the same of sequences that are cut
    hashes: list[str]


@define
class _Findings:
    """What is wrong: by kind how often, and where it was first seen."""

    kinds: dict[str, tuple[int, str]] = field(factory=dict)
    others: list[str] = field(factory=list)

    def add(
        self,
        what: str,
        bad: NDArray[np.bool_],
        start: int,
        seen: NDArray[np.integer] | None = None,
        of: str = "sequence",
    ) -> None:
        """Note a kind of problem, where it was found in rows `start`, `start + 1`, …"""
        count = int(bad.sum())
        if not count:
            return
        place = np.argwhere(bad)[0]
        where = f"{of} {start + place[0]}" + (f", place {place[1]}" if len(place) > 1 else "")
        where += "" if seen is None else f": {seen[tuple(place)]}"
        before, first = self.kinds.get(what, (0, where))
        self.kinds[what] = (before + count, first)

    def told(self) -> Iterator[str]:
        """A line for each."""
        for what, (count, first) in self.kinds.items():
            yield f"{what}: {count:,} times, first in {first}" if count > 1 else f"{what}: in {first}"
        yield from self.others


def lengths_of(header: Header, tokens: NDArray[np.int64], rows: slice, found: _Findings | None) -> NDArray[np.int64]:
    """The tokens of each sequence, as lengths, a mask or the PAD at the end say it."""
    limit = tokens.shape[1]
    given = header.column("lengths")
    if given is not None:
        lengths = given.rows(rows).astype(np.int64)
    else:
        mask = header.column("mask")
        real = tokens != header.spec.vocabulary.id_of(PAD) if mask is None else mask.rows(rows).astype(bool)
        lengths = np.where(real.any(1), limit - np.argmax(real[:, ::-1], 1), 0).astype(np.int64)
        if mask is not None and found is not None:
            found.add("a mask with holes (expected real tokens first)", real.sum(1) != lengths, rows.start)
    if found is not None:
        outside = (lengths < FEWEST) | (lengths > limit)
        found.add(f"a length outside {FEWEST} … {limit}", outside, rows.start, lengths)
    return np.clip(lengths, 0, limit)


def types_of(header: Header, tokens: NDArray[np.int64], rows: NDArray[np.integer] | slice) -> NDArray[np.int64]:
    """The token types as stored, or as the ids are."""
    column = header.column("types")
    if column is not None:
        return column.rows(rows).astype(np.int64)
    return np.maximum(header.spec.vocabulary.modality_of(tokens), -1) + 1


def _block(header: Header, start: int, length: int, found: _Findings) -> _Block:
    rows = slice(start, min(start + ROWS, header.sequences))
    vocabulary = header.spec.vocabulary
    tokens = header.tokens.rows(rows).astype(np.int64)
    lengths = lengths_of(header, tokens, rows, found)
    real = np.arange(tokens.shape[1]) < lengths[:, None]
    owners = vocabulary.modality_of(tokens)
    found.add(f"an id outside the vocabulary, 0 … {vocabulary.size - 1}", real & (owners == -2), start, tokens)
    found.add("PAD between real tokens", real & (tokens == vocabulary.id_of(PAD)), start)
    _check_types(types_of(header, tokens, rows), owners, real, vocabulary, start, found)
    cut = np.minimum(lengths, length)
    kept = real & (np.arange(tokens.shape[1]) < cut[:, None])
    places = range(len(vocabulary.modalities))
    whole, counts = (
        np.stack([((owners == place) & part).sum(1) for place in places], axis=1).astype(np.int64)
        for part in (real, kept)
    )
    hashes = [hashlib.sha256(row[:size].astype("<i8").tobytes()).hexdigest() for row, size in zip(tokens, cut)]
    return _Block(cut, whole, counts, hashes)


def _check_types(
    types: NDArray[np.int64],
    owners: NDArray[np.int64],
    real: NDArray[np.bool_],
    vocabulary: Vocabulary,
    start: int,
    found: _Findings,
) -> None:
    most = len(vocabulary.modalities)
    found.add(f"a type outside 0 … {most}", real & ((types < 0) | (types > most)), start, types)
    for place, name in enumerate(vocabulary.names):
        wrong = real & (owners == place) & (types != place + 1) & (types >= 0) & (types <= most)
        found.add(f"a token of '{name}' of another type than {place + 1}", wrong, start, types)


def _check_values(header: Header, totals: NDArray[np.int64], found: _Findings) -> None:
    """The originals are as many as there are tokens, and finite."""
    for name, total in zip(header.spec.vocabulary.names, totals.tolist(), strict=True):
        column = header.column(VALUES + name)
        if column is None:
            continue
        if len(column) != total:
            found.others.append(f"{VALUES}{name} has {len(column):,} rows; expected one for each of {total:,} tokens")
        for start in range(0, len(column), ROWS):
            bad = ~np.isfinite(column.rows(slice(start, start + ROWS))).all(1)
            found.add(f"NaN or infinity in {VALUES}{name}", bad, start, of="row")
