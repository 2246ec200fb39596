"""The layout `typed_tokens`: token sequences in an HDF5 file or a Zarr store of version 3.

| what | shape | |
| --- | --- | --- |
| `tokens` | (S, L) integers | ids of the vocabulary, 0 … V-1; shorter sequences are filled up with PAD |
| `types` | (S, L) integers | 1 + m at positions of modality m, 0 elsewhere; may be left out, MISSING is then 0 |
| `lengths` | (S,) integers | tokens of each sequence; or `mask` (S, L), true where a token is real; or neither |
| `codebooks/NAME` | (V_m, d_m) floats | what the tokens of a modality stand for |
| `values/NAME` | (K_m, d_m) floats | what all K_m tokens of a modality were made from, by sequence and place; or none |

Attributes of the root: `layout` = "typed_tokens", `version` = 1, and `vocabulary`, which is JSON: `{"special": ["PAD",
"BOS", "EOS", "MISSING"], "modalities": [{"name": "image", "kind": "image", "size": 256, "dims": 16}, …]}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ups_kit import DataError, StorageError
from ups_kit.data.whole_stores import write_store

from .vocabulary import Vocabulary

LAYOUT, VERSION = "typed_tokens", 1
ROWS = 4096  # sequences, or values, of a chunk
PAD = "PAD"

Part = Mapping[str, NDArray[Any]]  # tokens, types, lengths, and values/NAME


@frozen
class About:
    """What is known of all sequences of a file before they are written."""

    vocabulary: Vocabulary
    sequences: int  # S
    length: int  # L
    codebooks: Mapping[str, NDArray[np.float32]] = field(eq=False, repr=False)
    originals: tuple[str, ...] = ()  # the modalities whose values are kept
    attributes: Mapping[str, Any] = field(factory=dict)

    @property
    def root(self) -> dict[str, Any]:
        """The attributes of the root."""
        said = {"layout": LAYOUT, "version": VERSION, "vocabulary": json.dumps(self.vocabulary.to_dict())}
        return {**self.attributes, **said}

    @property
    def id_type(self) -> type[np.unsignedinteger[Any]]:
        """The smallest type that holds all ids."""
        return np.uint16 if self.vocabulary.size <= 2**16 else np.uint32


def write_tokens(path: Path, about: About, parts: Iterable[Part]) -> None:
    """Write a new file or store, by the ending of its name: .h5, .hdf5, .zarr; whole, or not at all.

    `parts` hold the sequences in pieces: `tokens` and `types` (s, L), `lengths` (s,), `values/NAME` (k, d_m). Raises
    StorageError where something is there already, DataError where the parts do not hold what `about` says.
    """
    if path.suffix == ".zarr":
        write_store(path, lambda place: write_zarr(place, about, parts))
        return
    if path.suffix not in (".h5", ".hdf5"):
        raise DataError(f"{path}: expected a name that ends in .h5, .hdf5 or .zarr, got '{path.suffix}'")
    if path.exists():
        raise StorageError(f"{path}: exists; a file is written to a path where nothing is")
    aside = path.with_name(f".{path.name}.part")
    try:
        write_hdf5(aside, about, parts)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_hdf5(path: Path, about: About, parts: Iterable[Part]) -> None:
    """Write the sequences contiguously, so that they can be read where they lie, and values in chunks."""
    with h5py.File(path, "w") as file:
        file.attrs.update(about.root)
        for name, (shape, kind) in _rows(about).items():
            file.create_dataset(name, shape, kind)
        for name, codebook in about.codebooks.items():
            file[f"codebooks/{name}"] = np.asarray(codebook, np.float32)
        for name in about.originals:
            dims = about.vocabulary[name].dims
            file.create_dataset(f"values/{name}", (0, dims), np.float32, maxshape=(None, dims), chunks=(ROWS, dims))
        _fill(file, about, parts, str(path))


def write_zarr(path: Path, about: About, parts: Iterable[Part]) -> None:
    """Write the same as a store; damage to its values is told when they are read."""
    import zarr
    from zarr.codecs import ZstdCodec

    kept: Any = {"compressors": ZstdCodec(level=1, checksum=True), "config": _WHOLE}
    root = zarr.create_group(path, attributes=about.root, zarr_format=3)
    for name, (shape, kind) in _rows(about).items():
        chunk = (min(ROWS, about.sequences), *shape[1:])
        root.create_array(name, shape=shape, dtype=np.dtype(kind).name, chunks=chunk, **kept)
    for name, codebook in about.codebooks.items():
        whole = np.asarray(codebook, np.float32)
        root.create_array(f"codebooks/{name}", data=whole, chunks=whole.shape, **kept)
    for name in about.originals:
        dims = about.vocabulary[name].dims
        root.create_array(f"values/{name}", shape=(0, dims), dtype="float32", chunks=(ROWS, dims), **kept)
    _fill(root, about, parts, str(path))


_WHOLE: Any = {"write_empty_chunks": True}  # chunks that are missing are no zeros to who reads them


def _rows(about: About) -> dict[str, tuple[tuple[int, ...], Any]]:
    shape = (about.sequences, about.length)
    return {"tokens": (shape, about.id_type), "types": (shape, np.uint8), "lengths": (shape[:1], np.int32)}


def _fill(target: Any, about: About, parts: Iterable[Part], where: str) -> None:
    """Write all parts one after the other into arrays that are there."""
    start = 0
    for part in parts:
        stop = start + len(part["tokens"])
        if stop > about.sequences or part["tokens"].shape[1] != about.length:
            raise DataError(f"{where}: expected {about.sequences} sequences of {about.length} tokens, got more")
        for name in _rows(about):
            target[name][start:stop] = part[name]
        for name in about.originals:
            array, more = target[f"values/{name}"], part[f"values/{name}"]
            before = len(array) if isinstance(array, h5py.Dataset) else array.shape[0]
            array.resize((before + len(more), about.vocabulary[name].dims))
            array[before:] = more
        start = stop
    if start != about.sequences:
        raise DataError(f"{where}: expected {about.sequences} sequences, got {start}")
