"""Sequences in files: read, masked, split, in batches."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import h5py
import numpy as np
import pytest
import torch

from ups_kit import DataError, StorageError
from ups_kit.data.splits import Splits
from ups_kit.interfaces import DescribedDataset, Identified
from ups_tokens.batch import TokenBatch
from ups_tokens.config import GalaxiesConfig, TypedTokensConfig
from ups_tokens.dataset import TokenDataset
from ups_tokens.layout import About, write_tokens
from ups_tokens.vocabulary import Modality, Vocabulary
from ups_tokens.windows import TokenWindows

VOCABULARY = Vocabulary((Modality("image", "image", 5, 2), Modality("z", "scalar", 3)))
IMAGE, SCALAR = VOCABULARY.base("image"), VOCABULARY.base("z")


def sequences(count: int = 30) -> dict[str, np.ndarray]:
    """BOS, 1 … 4 of an image, a scalar or MISSING, EOS."""
    draw = np.random.default_rng(0)
    tokens, types = np.zeros((count, 8), np.int64), np.zeros((count, 8), np.int64)
    lengths = np.empty(count, np.int64)
    for number in range(count):
        patches = int(draw.integers(1, 5))
        image = IMAGE + draw.integers(0, 5, patches)
        scalar = 3 if number % 5 == 0 else SCALAR + int(draw.integers(0, 3))
        row = [1, *image, scalar, 2]
        tokens[number, : len(row)], lengths[number] = row, len(row)
        types[number, 1 : patches + 2] = [*[1] * patches, 2]
    tokens[-1, 1] = 4 + (tokens[-2, 1] - 3) % 5
    counts = np.bincount(VOCABULARY.modality_of(tokens).ravel() + 1)[1:]
    values = {f"values/{own.name}": draw.random((n, own.dims)) for own, n in zip(VOCABULARY.modalities, counts)}
    return {"tokens": tokens, "types": types, "lengths": lengths, **values}


def about(count: int = 30, **keys: Any) -> About:
    codebooks = {"image": np.arange(10.0, dtype="f4").reshape(5, 2), "z": np.arange(3.0, dtype="f4")[:, None]}
    return About(VOCABULARY, count, 8, codebooks, **{"originals": VOCABULARY.names, **keys})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tokens(tmp_path / "tokens.h5", about(), [sequences()])
    return tmp_path / "tokens.h5"


def opened(path: Path, **keys: Any) -> TokenDataset:
    return TypedTokensConfig(**{"path": path, "validation": 4, "test": 6, **keys}).build(0)


def changed(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# What is read is what was written
# ---------------------------------------------------------------------------------------------------------------------
def halves(whole: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    owners = VOCABULARY.modality_of(whole["tokens"])
    for rows in (slice(0, 11), slice(11, None)):
        part = {name: whole[name][rows] for name in ("tokens", "types", "lengths")}
        for place, name in enumerate(VOCABULARY.names):
            counts = [int((owners[: row or None] == place).sum()) for row in (rows.start, rows.stop)]
            start = 0 if rows.start == 0 else counts[0]
            part[f"values/{name}"] = whole[f"values/{name}"][start : counts[1]]
        yield part


@pytest.mark.parametrize("name", ["tokens.h5", "tokens.hdf5", "tokens.zarr"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    whole = sequences()
    write_tokens(tmp_path / name, about(), halves(whole))
    dataset = opened(tmp_path / name)
    assert isinstance(dataset, DescribedDataset | Identified)
    seen = []
    for split in ("train", "validation", "test"):
        numbers = np.arange(dataset.count(split))
        batch, originals = dataset.batch(split, numbers), dataset.originals(split, numbers)
        seen += batch.ids.tolist()
        assert np.array_equal(batch.tokens, whole["tokens"][batch.ids])
        assert np.array_equal(batch.types, whole["types"][batch.ids])
        assert batch.mask.sum(1).tolist() == whole["lengths"][batch.ids].tolist()
        owners, everyone = VOCABULARY.modality_of(batch.tokens.numpy()), VOCABULARY.modality_of(whole["tokens"])
        for place, modality in enumerate(VOCABULARY.names):
            at = np.full(whole["tokens"].shape, -1)
            at[everyone == place] = np.arange((everyone == place).sum())
            rows = at[batch.ids.numpy()][owners == place]
            assert np.array_equal(originals[modality], whole[f"values/{modality}"][rows].astype("f4"))
    assert sorted(seen) == list(range(30))
    assert [len(dataset.splits[split]) for split in ("train", "validation", "test")] == [20, 4, 6]


def test_formats_and_ways_to_say_lengths_agree(path: Path, tmp_path: Path) -> None:
    expected = opened(path).batch("train", np.arange(20))

    def by_mask(file: h5py.File) -> None:
        lengths = file["lengths"][()]
        del file["lengths"]
        file["mask"] = np.arange(8) < lengths[:, None]

    def by_nothing(file: h5py.File) -> None:
        del file["mask"], file["types"]

    def packed(file: h5py.File) -> None:
        tokens = file["tokens"][()]
        del file["tokens"]
        file.create_dataset("tokens", data=tokens.astype("i8"), chunks=(7, 8), compression="gzip")

    write_tokens(tmp_path / "tokens.zarr", about(), [sequences()])
    same(opened(tmp_path / "tokens.zarr").batch("train", np.arange(20)), expected)
    for change in (by_mask, packed):
        same(opened(changed(path, change)).batch("train", np.arange(20)), expected)
    found = opened(changed(path, by_nothing)).batch("train", np.arange(20))
    same(found._replace(types=expected.types), expected)
    differing = found.types != expected.types
    assert differing.any()
    assert (expected.tokens[differing] == VOCABULARY.id_of("MISSING")).all()


def same(first: TokenBatch, second: TokenBatch) -> None:
    for name, one, other in zip(first._fields, first, second, strict=True):
        assert torch.equal(one, other), name


def test_sequences_are_cut(path: Path) -> None:
    whole, dataset = opened(path).batch("train", np.arange(20)), opened(path, length=4)
    assert TypedTokensConfig(path=path, length=4).describe() == dataset.description
    batch = dataset.batch("train", np.arange(20))
    row = {int(number): place for place, number in enumerate(whole.ids)}
    for place, number in enumerate(batch.ids.tolist()):
        if number in row:
            assert torch.equal(batch.tokens[place], whole.tokens[row[number], :4])
    assert batch.mask.sum(1).max() == 4
    owned = (VOCABULARY.modality_of(batch.tokens.numpy()) == 0).sum()
    assert len(dataset.originals("train", np.arange(20))["image"]) == owned


def test_nothing_is_overwritten_and_what_is_short_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="exists"):
        write_tokens(path, about(), [sequences()])
    with pytest.raises(DataError, match="expected 31 sequences, got 30"):
        write_tokens(tmp_path / "short.h5", about(31), [sequences()])
    with pytest.raises(DataError, match=r"ends in \.h5, \.hdf5 or \.zarr"):
        write_tokens(tmp_path / "short.csv", about(), [sequences()])
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.h5"]


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong with a file
# ---------------------------------------------------------------------------------------------------------------------
def replaced(name: str, values: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if values is not None:
            file[name] = values

    return change


def said(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (said("layout", "grids"), "layout: expected 'typed_tokens', got 'grids'"),
        (said("version", 2), "version: expected 1, got 2; install a newer ups-tokens"),
        (said("layout", np.arange(3)), r"layout: expected 'typed_tokens', got '\[0, 1, 2\]'"),
        (said("version", np.ones(2)), r"version: expected 1, got \[1\.0, 1\.0\]"),
        (said("vocabulary", "{"), "the attribute vocabulary: .*expected JSON"),
        (said("vocabulary", json.dumps({"special": [], "modalities": []})), "a vocabulary has the special tokens PAD"),
        (replaced("tokens", None), "expected an array 'tokens' .*of whole numbers .arrays here: codebooks/image"),
        (replaced("tokens", np.zeros((30, 8))), "expected an array 'tokens'"),
        (replaced("tokens", np.zeros((30, 1), int)), "expected sequences of at least 2 tokens"),
        (replaced("types", np.zeros((30, 7), int)), r"'types' has the shape \[30, 7\]; expected \[30, 8\]"),
        (replaced("lengths", np.zeros(30)), "'lengths' holds values of the type float64; expected whole numbers"),
        (replaced("mask", np.ones((30, 8), bool)), "has both 'lengths' and 'mask'"),
        (replaced("codebooks/image", np.ones((4, 2))), r"'codebooks/image' has the shape \[4, 2\]; expected \[5, 2\]"),
        (replaced("codebooks/image", None), "holds no codebook of image; expected codebooks/image in it, or"),
        (replaced("codebooks/flux", np.ones((4, 2))), "'codebooks/flux' is of no modality"),
        (replaced("values/z", 3.0), "'values/z' is a single value; expected rows of 1 numbers"),
        (replaced("values/z", np.ones((3, 4))), r"'values/z' has the shape \[3, 4\]; expected \[3, 1\]"),
    ],
)
def test_headers_that_are_wrong(path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    changed(path, change)
    for read in (TypedTokensConfig(path=path).describe, lambda: opened(path)):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert str(path) in str(caught.value)


def test_all_that_is_wrong_with_values_is_told_at_once(path: Path) -> None:
    whole = sequences()

    def change(file: h5py.File) -> None:
        file["tokens"][3, 1] = 60_000  # no id
        file["tokens"][4, 1] = 0  # PAD
        file["types"][5, 1] = 2  # of another modality
        file["types"][6, 1] = 9
        file["lengths"][7] = 1
        file["lengths"][8] = 99
        file["values/image"][2, 0] = np.nan

    with pytest.raises(DataError) as caught:
        opened(changed(path, change))
    text = str(caught.value)
    assert "an id outside the vocabulary, 0 … 11: in sequence 3, place 1: 60000" in text
    assert "PAD between real tokens: " in text
    assert "sequence 4, place 1" in text
    assert "a token of 'image' of another type than 1: in sequence 5, place 1: 2" in text
    assert "a type outside 0 … 2: in sequence 6, place 1: 9" in text
    assert "a length outside 2 … 8: 2 times, first in sequence 7: 1" in text
    assert "NaN or infinity in values/image: in row 2" in text
    assert f"values/image has {len(whole['values/image'])} rows; expected one for each of" in text


def test_masks_with_holes(path: Path) -> None:
    def change(file: h5py.File) -> None:
        mask = np.arange(8) < file["lengths"][()][:, None]
        mask[9, 1] = False
        del file["lengths"]
        file["mask"] = mask

    with pytest.raises(DataError, match=r"a mask with holes .*: in sequence 9"):
        opened(changed(path, change))


def test_files_that_are_none_or_change(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; did you mean 'tokens.h5'"):
        opened(tmp_path / "token.h5")
    with pytest.raises(DataError, match=r"s3://bucket/tokens.zarr: is an address; expected a file or store"):
        opened(Path("s3://bucket/tokens.zarr"))
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="is no HDF5 file: it looks like text"):
        opened(tmp_path / "text.h5")
    dataset = opened(path)
    dataset.batch("train", np.arange(2))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"had .* when it was opened"):
        dataset.batch("train", np.arange(2))
    with pytest.raises(DataError, match="truncated"):
        opened(path)


@pytest.mark.parametrize("array", ["tokens", "types", "lengths", "codebooks/image", "values/image"])
def test_a_store_whose_values_are_damaged_is_told(tmp_path: Path, array: str) -> None:
    write_tokens(tmp_path / "tokens.zarr", about(), [sequences()])
    chunk = max(path for path in (tmp_path / "tokens.zarr" / array / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1  # of the checksum
    chunk.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(chunk.relative_to(tmp_path)))):
        opened(tmp_path / "tokens.zarr")


def test_codebooks_in_the_file_are_looked_at(path: Path) -> None:
    values = np.ones((5, 2), "f4")
    values[3, 1] = np.inf
    with pytest.raises(DataError, match=r"'codebooks/image': expected finite numbers; .* token 3 of 'image'"):
        opened(changed(path, replaced("codebooks/image", values)))


# ---------------------------------------------------------------------------------------------------------------------
# Splits
# ---------------------------------------------------------------------------------------------------------------------
def test_equal_sequences_stay_together_and_leaks_are_refused(path: Path) -> None:
    def change(file: h5py.File) -> None:
        for name in ("tokens", "types"):
            file[name][20:25] = file[name][:1]
        file["lengths"][20:25] = file["lengths"][0]
        for name in VOCABULARY.names:  # which are as many as before no longer
            del file[f"values/{name}"]

    for seed in range(4):
        dataset = TypedTokensConfig(path=changed(path, change) if seed == 0 else path, validation=6, test=6).build(seed)
        twins = {0, 20, 21, 22, 23, 24}
        assert [split for split, ids in dataset.splits.ids.items() if twins & set(ids)] == [
            split for split, ids in dataset.splits.ids.items() if twins <= set(ids)
        ]
    hashes = dict(enumerate(dataset.known.hashes))
    with pytest.raises(DataError, match=r"stand in two splits.*0 \(train\) = 20 \(test\)"):
        Splits({"train": (0, 1), "test": (20,)}, hashes)


def test_splits_that_take_too_much_are_told_before_anything_is_read(path: Path, tiny: GalaxiesConfig) -> None:
    settings = TypedTokensConfig(path=path)
    ((key, message),) = settings.check_data(settings.describe())
    assert key == "test"
    assert "the splits take 100 test + 50 validation + the rest train" in message
    to_come = attrs.evolve(settings, path=path.with_name("new.h5"), simulate=tiny)
    ((_, message),) = to_come.check_data(to_come.describe())
    assert "there are 40" in message
    assert not list(attrs.evolve(to_come, validation=5, test=5).check_data(to_come.describe()))
    assert not path.with_name("new.h5").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------
def windows(dataset: TokenDataset, **keys: Any) -> TokenWindows:
    given = {"batch": 8, "seed": 1, "stage": "training", "device": torch.device("cpu"), **keys}
    return TokenWindows(dataset=dataset, **given)


def test_batches_are_pure_functions_of_seed_stage_and_step(path: Path) -> None:
    source = windows(opened(path))
    assert source.windows == 20
    with source.stream(0) as batches:
        first = [next(batches) for _ in range(5)]
    with source.stream(3) as batches:
        same(next(batches), first[3])
    again = pickle.loads(pickle.dumps(source))
    same(again.read(4), first[4])
    epoch = np.concatenate([source.numbers(step) for step in range(5)])
    assert np.bincount(epoch, minlength=20).tolist() == [2] * 20
    for other in (windows(source.dataset, seed=2), windows(source.dataset, stage="other")):
        assert not np.array_equal(other.numbers(0), source.numbers(0))


def test_workers_read_what_a_thread_reads(path: Path) -> None:
    dataset = opened(path)
    with windows(dataset).stream(0) as expected, windows(dataset, workers=2).stream(0) as batches:
        for _ in range(6):
            same(next(batches), next(expected))
