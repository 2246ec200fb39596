"""Token sequences, split and in batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray

from ups_kit.data import statistics
from ups_kit.data.making import make_if_missing
from ups_kit.data.paths import to_be_made
from ups_kit.data.splits import Splits, drawn

from .batch import TokenBatch, expected_targets
from .codebooks import checked, load_codebook
from .description import TokenSpec
from .layout import PAD
from .opening import CODEBOOKS, VALUES, Header, cut, describe, open_header
from .survey import Survey, survey, types_of

if TYPE_CHECKING:
    from .config import TypedTokensConfig


@frozen(eq=False)
class TokenDataset:
    """The sequences of a file. It is read by any number of threads, and by processes that are given a pickled copy."""

    header: Header
    description: TokenSpec  # with codebooks
    splits: Splits
    known: Survey
    fingerprint: str  # of the file's content, and of the codebooks' files

    def count(self, split: str) -> int:
        """How many sequences a split holds."""
        return len(self.splits[split])

    def batch(self, split: str, numbers: NDArray[np.integer]) -> TokenBatch:
        """The sequences with these numbers in a split, in CPU memory, all of the description's length."""
        ids = self._ids(split, numbers)
        tokens, types = self._tokens(ids)
        places = np.arange(self.description.length)
        mask = torch.from_numpy(places < self.known.lengths[ids][:, None])
        filled = torch.from_numpy(tokens).masked_fill(~mask, self.description.vocabulary.id_of(PAD))
        return TokenBatch(
            tokens=filled,
            types=torch.from_numpy(types).masked_fill(~mask, 0),
            mask=mask,
            ids=torch.from_numpy(ids),
            expected=expected_targets(filled, mask, self.description.vocabulary),
        )

    def originals(self, split: str, numbers: NDArray[np.integer]) -> dict[str, NDArray[np.float32]]:
        """What the tokens of these sequences were made from, by modality, (k, d_m), where the file keeps it.

        Row by row those of a batch of the same numbers: of all tokens of the modality, by sequence, then place.
        """
        ids = self._ids(split, numbers)
        found = {}
        for place, name in enumerate(self.description.vocabulary.names):
            column = self.header.column(VALUES + name)
            if column is not None:
                starts, counts = self.known.starts[ids, place], self.known.counts[ids, place]
                before = np.cumsum(counts) - counts
                rows = np.repeat(starts - before, counts) + np.arange(counts.sum())
                found[name] = column.rows(rows).astype(np.float32)
        return found

    def _ids(self, split: str, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        return np.asarray(self.splits[split], np.int64)[np.asarray(numbers, np.int64)]

    def _tokens(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens and types (B, L) as stored, cut."""
        whole = self.header.tokens.rows(ids).astype(np.int64)
        types = types_of(self.header, whole, ids)
        length = self.description.length
        return np.ascontiguousarray(whole[:, :length]), np.ascontiguousarray(types[:, :length])


def read_dataset(settings: TypedTokensConfig, seed: int) -> TokenDataset:
    """Make the file if need be, go through all sequences, split them. Raises DataError, StorageError."""
    describe(settings)  # tells what does not fit before anything is made
    missing = to_be_made(settings.path, settings.simulate)
    if missing is not None and settings.simulate is not None:
        make_if_missing(missing, settings.simulate)
    header = open_header(settings)
    described = evolve(cut(header.spec, settings.length), codebooks=_codebooks(settings, header))
    known = survey(header, described.length)
    hashes = dict(enumerate(known.hashes))
    counts = {"test": settings.test, "validation": settings.validation, "train": settings.train}
    chosen = drawn(counts, range(header.sequences), hashes, seed, str(header.contents.path))
    ids = {split: chosen[split] for split in ("train", "validation", "test")}
    return TokenDataset(header, described, Splits(ids, hashes), known, _fingerprint(settings, header))


def _codebooks(settings: TypedTokensConfig, header: Header) -> Mapping[str, NDArray[np.float32]]:
    """What the tokens stand for, of each modality: from the recipe's files, from the data file where there is none."""
    found = {}
    for modality in header.spec.vocabulary.modalities:
        name, path = modality.name, settings.codebooks.get(modality.name)
        if path is not None:
            found[name] = load_codebook(path, modality, f"codebooks.{name}", settings.allow_pickle)
            continue
        column = header.contents.columns[CODEBOOKS + name]
        where = f"{header.contents.path}: '{CODEBOOKS}{name}'"
        found[name] = checked(column.rows(slice(None)), modality, where, "path")
    return found


def _fingerprint(settings: TypedTokensConfig, header: Header) -> str:
    files: list[Path] = [header.contents.path, *(path.absolute() for _, path in sorted(settings.codebooks.items()))]
    return statistics.fingerprint(files)
