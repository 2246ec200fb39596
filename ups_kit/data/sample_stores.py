"""Zarr v3 stores with one group for each sample: arrays, checksums, and an attribute added later."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .grid_store import layout_of
from .whole_stores import sync_store
from .zarr_metadata import checksum
from .zarr_store import DOCUMENT

Documents = Mapping[str, Mapping[str, Any]]


def sample_name(number: int) -> str:
    """The group of a sample."""
    return f"sample_{number:05d}"


def write_array(group: Any, name: str, values: NDArray[Any], attributes: Mapping[str, Any] | None = None) -> None:
    """Write an array into a group of a store: whole, or frame by frame where it is (T, N, C)."""
    from zarr.codecs import ZstdCodec

    chunk, shard = tuple(max(1, size) for size in values.shape), None
    if values.ndim == 3:
        cut, together = layout_of((1, *values.shape), values.dtype.itemsize)
        chunk, shard = tuple(max(1, size) for size in cut[1:]), together[1:]
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=chunk,
        shards=shard,
        dtype=values.dtype.name,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=math.nan if values.dtype.kind == "f" else 0,
        attributes=dict(attributes or {}),
    )
    array[...] = values


def seal_group(folder: Path) -> None:
    """Write the checksum of a group's metadata, and those of all within it, into its attributes."""
    documents = _documents(folder)
    documents[""]["attributes"]["checksum"] = checksum(documents)
    _write(folder, documents[""])


def seal_root(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write attributes into a store's root, and the checksum of its own metadata alone: samples have their own."""
    root = _document(folder / DOCUMENT)
    root["attributes"] |= dict(attributes)
    root["attributes"]["checksum"] = checksum({"": root})
    _write(folder, root)


def add_attribute(folder: Path, name: str, value: Any) -> None:
    """Write an attribute into the root of a finished store; its checksum stays one of the documents that it was of."""
    root, every = _document(folder / DOCUMENT), _documents(folder)
    said = root["attributes"].get("checksum")
    covered = next((each for each in ({"": root}, every) if checksum(each) == said), None)
    if said is not None and covered is None:
        raise ValueError(f"{folder}: its checksum is of other metadata")
    root["attributes"][name] = value
    if covered is not None:
        root["attributes"]["checksum"] = checksum({**covered, "": root})
    _write(folder, root)
    sync_store(folder)


def _documents(folder: Path) -> dict[str, dict[str, Any]]:
    """All metadata below a folder by path, its own under ""."""
    found = {str(file.parent.relative_to(folder)): _document(file) for file in sorted(folder.rglob(DOCUMENT))}
    return {"" if name == "." else name: document for name, document in found.items()}


def _document(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found.setdefault("attributes", {})
    return found


def _write(folder: Path, document: Mapping[str, Any]) -> None:
    (folder / DOCUMENT).write_text(json.dumps(document, indent=2), encoding="utf-8")
