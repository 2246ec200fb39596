"""The headers of a Zarr store in a folder as a `FileTree`, read from its JSON alone: no codec, no value, is touched."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field

from ..errors import DataError, nearest
from .guard import Sign
from .tree import ArrayInfo, FileTree

MOST_OBJECTS = 20_000
LARGEST_METADATA = 16 * 2**20  # bytes of one zarr.json
CODECS = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd")
V2_FILES = (".zgroup", ".zarray", ".zmetadata")
V2_CODECS = ("blosc", "bz2", "crc32", "delta", "gzip", "lz4", "lzma", "shuffle", "zlib", "zstd")  # none runs code


@define
class _Store:
    """A store as it is gone through."""

    root: Path
    arrays: dict[str, ArrayInfo] = field(factory=dict)
    attributes: dict[str, Mapping[str, Any]] = field(factory=dict)
    problems: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)


def read_store(path: Path, sign: Sign) -> tuple[FileTree, list[str], list[str]]:
    """A store's headers, what is wrong with it, and what is odd. Raises DataError for a folder that is no store."""
    store = _Store(path)
    if not (path / "zarr.json").is_file():
        if any((path / name).is_file() for name in V2_FILES):
            store.notes.append(
                "is a Zarr v2 store, and datasets are read from v3: "
                f"`upskit data convert {path} --out {path.with_suffix('')}_v3.zarr`"
            )
            _walk_v2(store, sign)
            return FileTree(path, "zarr", store.arrays, store.attributes), store.problems, store.notes
        raise DataError(_no_store(path))
    _walk(store, sign)
    return FileTree(path, "zarr", store.arrays, store.attributes), store.problems, store.notes


def _no_store(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    inner = [name for name in names if (path / name / "zarr.json").is_file()]
    hint = f"; did you mean {path / inner[0]}?" if inner else ""
    files = [name for name in names if name.endswith((".h5", ".hdf5", ".npz", ".npy"))]
    if files and not inner:
        hint = f"; to read files of a folder, name them, for example {path / files[0]}"
    listed = ", ".join(names[:8]) or "nothing"
    return f"{path / 'zarr.json'}: no such file, so the folder is no Zarr store (it holds {listed}){hint}"


def _children(store: _Store, folder: Path) -> list[Path]:
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir():
            continue
        if entry.is_symlink():
            name = str(Path(entry.path).relative_to(store.root))
            store.arrays[name] = ArrayInfo((), "", elsewhere=f"link to {Path(entry.path).readlink()}")
            continue
        found.append(Path(entry.path))
    return found


def _walk(store: _Store, sign: Sign) -> None:
    pending = [store.root]
    while pending:
        folder = pending.pop()
        name = "" if folder == store.root else str(folder.relative_to(store.root))
        sign(name or "zarr.json")
        if len(store.arrays) + len(store.attributes) > MOST_OBJECTS:
            store.notes.append(f"has more than {MOST_OBJECTS:,} objects; the others are not listed")
            return
        if name and not (folder / "zarr.json").is_file():
            if next(folder.iterdir(), None) is None:
                store.notes.append(f"'{name}' is an empty folder")
            else:
                store.problems.append(f"{folder / 'zarr.json'}: no such file; expected the header of '{name}'")
            continue
        header = _json(store, folder / "zarr.json")
        kind = header.get("node_type") if header is not None else None
        if header is None:
            continue
        if header.get("zarr_format") != 3 or kind not in ("group", "array"):
            store.problems.append(
                f"{folder / 'zarr.json'}: zarr_format = {header.get('zarr_format')!r}, node_type = {kind!r}; "
                "expected 3, and 'group' or 'array'"
            )
            continue
        if kind == "array":
            _array(store, name or ".", folder, header)
            continue
        store.attributes[name] = _attributes(header)
        pending += reversed(_children(store, folder))
        if not name:
            root = header
    if store.root.is_dir() and "" in store.attributes:
        _consolidated(store, root)


def _json(store: _Store, path: Path) -> dict[str, Any] | None:
    """A header file, or None where it cannot be read, which is told."""
    try:
        size = path.stat().st_size
        if size > LARGEST_METADATA:
            store.problems.append(f"{path}: has {size:,} bytes; expected at most {LARGEST_METADATA:,} of metadata")
            return None
        value = json.loads(path.read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        store.problems.append(f"{path}: is no readable JSON ({error}); restore it, or make the store again")
        return None
    if not isinstance(value, dict):
        store.problems.append(f"{path}: expected a JSON object, got {type(value).__name__}")
        return None
    return value


def _attributes(header: Mapping[str, Any]) -> dict[str, Any]:
    from .headers import plain

    values = header.get("attributes") or {}
    return {str(key): plain(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _array(store: _Store, name: str, folder: Path, header: Mapping[str, Any]) -> None:
    where = folder / "zarr.json"
    try:
        shape = _sizes(header["shape"])
        grid = header["chunk_grid"]
        chunks = _sizes(grid["configuration"]["chunk_shape"])
        codecs = list(header["codecs"])
        dtype = header["data_type"]
        shards = None
        if codecs and codecs[0].get("name") == "sharding_indexed":
            shards, chunks = chunks, _sizes(codecs[0]["configuration"]["chunk_shape"])
            codecs = [*codecs[0]["configuration"]["codecs"], *codecs[1:]]
        if len(chunks) != len(shape) or (shards is not None and len(shards) != len(shape)) or 0 in chunks:
            raise ValueError(f"chunks {list(chunks)} for a shape {list(shape)}")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
        store.problems.append(f"{where}: is no header of an array ({what}); restore it, or make the store again")
        return
    for codec in codecs:
        label = codec.get("name") if isinstance(codec, dict) else codec
        if label not in CODECS:
            near = nearest(str(label)[:80], CODECS)
            store.problems.append(
                f"{where}: unknown codec {str(label)[:80]!r}{f'; nearest: {near}' if near else ''} "
                f"(known: {', '.join(CODECS)})"
            )
    kind = _dtype(dtype)
    if kind is None:
        store.problems.append(f"{where}: data_type {str(dtype)[:80]!r}; expected numbers, such as float32 or float64")
    info = ArrayInfo(shape, kind or "object", chunks, shards, tuple(_words(codecs)), "", _attributes(header))
    store.arrays[name] = info
    _stored(store, name, folder, info, header)


def _sizes(values: Any) -> tuple[int, ...]:
    sizes = tuple(values)
    if any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"expected whole numbers of at least 0, got {list(sizes)}")
    return sizes


def _dtype(data_type: Any) -> str | None:
    if data_type == "string":
        return "string"
    try:
        dtype = np.dtype(data_type) if isinstance(data_type, str) else None
    except TypeError:
        return None
    return dtype.str if dtype is not None and dtype.kind in "biufc" else None


def _words(codecs: Sequence[Any]) -> list[str]:
    words = []
    for codec in codecs:
        if not isinstance(codec, dict) or codec.get("name") == "bytes":
            continue
        options = codec.get("configuration") or {}
        level = f" {options['level']}" if "level" in options else ""
        words.append(f"{codec.get('name')}{level}{' with checksum' if options.get('checksum') else ''}")
    return words


def _stored(store: _Store, name: str, folder: Path, info: ArrayInfo, header: Mapping[str, Any]) -> None:
    """Compare how many chunk files there should be with how many there are; a missing one reads as the fill value."""
    outer = info.shards or info.chunks or info.shape
    expected = math.prod(-(-size // step) for size, step in zip(info.shape, outer, strict=True))
    separator = (header.get("chunk_key_encoding") or {}).get("configuration", {}).get("separator", "/")
    there = _files_below(folder / "c") if separator == "/" else sum(1 for f in folder.iterdir() if f.name[:1] == "c")
    if there >= expected:
        return
    kind = "shards" if info.shards else "chunks"
    fill = header.get("fill_value")
    claimed = math.prod(info.shape) * (np.dtype(info.dtype).itemsize if info.dtype not in ("object", "string") else 1)
    store.problems.append(
        f"array '{name}': {expected - there:,} of {expected:,} {kind} are missing in {folder}; they would read as the "
        f"fill value {fill}, {claimed:,} bytes are claimed; restore them, or make the store again"
    )


def _files_below(folder: Path) -> int:
    if folder.is_file():
        return 1  # of an array without axes
    return sum(len(files) for _, _, files in os.walk(folder))


def _consolidated(store: _Store, root: Mapping[str, Any]) -> None:
    """Consolidated metadata say what the headers said when they were written: they may be stale."""
    inline = root.get("consolidated_metadata")
    nodes = inline.get("metadata") if isinstance(inline, dict) else None
    if not isinstance(nodes, dict):
        return
    repair = f"remove 'consolidated_metadata' from {store.root / 'zarr.json'}"
    for name, node in nodes.items():
        if name.startswith("/") or ".." in Path(name).parts:
            store.problems.append(f"consolidated metadata name {name!r}, which lies outside the store; {repair}")
        elif isinstance(node, dict) and node.get("node_type") == "array":
            there = store.arrays.get(name)
            if there is None:
                store.problems.append(f"consolidated metadata are stale: '{name}' is not in the store; {repair}")
            elif list(there.shape) != node.get("shape"):
                store.problems.append(
                    f"consolidated metadata are stale: '{name}' has the shape {list(there.shape)} in its own header, "
                    f"{node.get('shape')} there; {repair}"
                )


# ---------------------------------------------------------------------------------------------------------------------
# Version 2: listed, and refused where it may run code
# ---------------------------------------------------------------------------------------------------------------------
def _walk_v2(store: _Store, sign: Sign) -> None:
    pending = [store.root]
    while pending:
        folder = pending.pop()
        name = "" if folder == store.root else str(folder.relative_to(store.root))
        sign(name or ".zgroup")
        attributes = _json(store, folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
        if (folder / ".zarray").is_file():
            header = _json(store, folder / ".zarray")
            if header is not None:
                _array_v2(store, name or ".", folder / ".zarray", header, attributes or {})
            continue
        store.attributes[name] = _attributes({"attributes": attributes or {}})
        pending += reversed(_children(store, folder))


def _array_v2(store: _Store, name: str, where: Path, header: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    try:
        shape, chunks, dtype = _sizes(header["shape"]), _sizes(header["chunks"]), np.dtype(header["dtype"])
        if len(chunks) != len(shape) or 0 in chunks:
            raise ValueError(f"chunks {list(chunks)} for a shape {list(shape)}")
        codecs = [codec["id"] for codec in (*(header.get("filters") or ()), header.get("compressor")) if codec]
    except (KeyError, TypeError, ValueError) as error:
        store.problems.append(f"{where}: is no header of an array ({error}); restore it, or make the store again")
        return
    bad = [str(codec) for codec in codecs if codec not in V2_CODECS]
    if bad or dtype.hasobject:
        what = f"the filter '{bad[0][:80]}'" if bad else "Python objects"
        store.problems.append(
            f"{where}: array '{name}' uses {what}, which may run code when it is read; refused "
            f"(known filters: {', '.join(V2_CODECS)})"
        )
    _stored_v2(store, name, where.parent, math.prod(-(-size // step) for size, step in zip(shape, chunks, strict=True)))
    kind = "object" if dtype.hasobject else dtype.str
    found = _attributes({"attributes": attributes})
    store.arrays[name] = ArrayInfo(shape, kind, chunks, None, tuple(map(str, codecs)), "", found)


def _stored_v2(store: _Store, name: str, folder: Path, expected: int) -> None:
    """Tell of chunks that are missing, and of those that are links or devices: Zarr's own reader would follow them."""
    there = 0
    for base, _, names in os.walk(folder):
        for each in (Path(base) / file for file in names if not file.startswith(".")):
            there += 1
            if not stat.S_ISREG(each.lstat().st_mode):
                store.problems.append(f"{each}: is no regular file; links are not followed, put the file itself there")
    if there < expected:
        store.problems.append(
            f"array '{name}': {expected - there:,} of {expected:,} chunks are missing in {folder}; they would read as "
            "the fill value; restore them, or make the store again"
        )
