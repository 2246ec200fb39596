"""The metadata of Zarr v3 arrays and groups, read strictly: whatever is not understood is refused with its key.

Nothing here allocates what the metadata claim: sizes are checked as numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import DataError, did_you_mean
from .zarr_codecs import SUPPORTED as CODECS
from .zarr_codecs import Chain, Damaged, Sharding, chain, named, sharding

AGAIN = "make or download the store again, or write it anew from its source with `upskit data convert`"
NUMBERS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
DTYPES = (*NUMBERS, "float16", "float32", "float64")
LARGEST = 2**62  # elements of an array
DEEPEST = 32  # axes


@frozen
class ArrayMetadata:
    """One array's zarr.json."""

    where: str  # store and path, for messages
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # in this machine's byte order
    shard: tuple[int, ...]  # what one file, or object, holds; the chunk itself where there are no shards
    chunk: tuple[int, ...]
    codecs: Chain
    sharding: Sharding | None
    separator: str
    prefix: str  # "c" before the chunk's numbers, or nothing
    attributes: Mapping[str, Any] = field(factory=dict)

    @property
    def shards(self) -> tuple[int, ...]:
        """Files along each axis."""
        return tuple(-(-size // part) for size, part in zip(self.shape, self.shard))

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of what packs the values, for `data inspect`."""
        return self.codecs.packers

    def key(self, numbers: tuple[int, ...]) -> str:
        """The key of a shard in the array's folder."""
        parts = [str(number) for number in numbers]
        return self.separator.join([self.prefix, *parts] if self.prefix else parts or ["0"])


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """A zarr.json as a table. Raises DataError for what is no JSON, no v3, or no table."""
    try:
        document = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        place = f" ({str(error)[:120]})"
        raise DataError(f"{where}: expected JSON, got {len(text):,} bytes that are none{place}; {AGAIN}") from error
    if not isinstance(document, dict):
        raise DataError(f"{where}: expected a JSON table, got {type(document).__name__}; {AGAIN}")
    version, kind = document.get("zarr_format"), document.get("node_type")
    if type(version) is not int or version != 3:
        raise DataError(f"{where}: expected zarr_format 3, got {version!r}; {AGAIN}")
    if kind not in ("array", "group"):
        raise DataError(f"{where}: expected the node_type 'array' or 'group', got {kind!r}; {AGAIN}")
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict):
        raise DataError(f"{where}: expected a table of attributes, got {type(attributes).__name__}; {AGAIN}")
    unknown = [k for k, v in document.items() if k not in _KNOWN[kind] and not (isinstance(v, dict) and _ignorable(v))]
    if unknown:
        keys = f"expected {', '.join(_KNOWN[kind])}"
        raise DataError(
            f"{where}: {keys}, got the key '{unknown[0][:60]}'{did_you_mean(unknown[0], _KNOWN[kind])}; {AGAIN}"
        )
    return document


def array_metadata(document: Mapping[str, Any], where: str) -> ArrayMetadata:
    """What an array's zarr.json says. Raises DataError with key, what was expected and what was got."""
    if document["node_type"] != "array":
        raise DataError(f"{where}: expected an array, got a group")
    shape = _sizes(document, ("shape",), where, smallest=0)
    if math.prod(shape) > LARGEST:
        raise DataError(f"{where}: shape: expected at most 2^62 values, got {list(shape)}; {AGAIN}")
    dtype = _dtype(document.get("data_type"), where)
    if document.get("storage_transformers"):
        what = str(document["storage_transformers"])[:80]
        raise DataError(f"{where}: storage_transformers: expected none, got {what}; {AGAIN}")
    grid = _named(document, "chunk_grid", ("regular",), where)
    shard = _sizes(grid, ("chunk_shape",), f"{where}: chunk_grid", smallest=1)
    if len(shard) != len(shape):
        raise DataError(f"{where}: chunk_shape: expected {len(shape)} numbers, got {list(shard)}; {AGAIN}")
    prefix, separator = _encoding(document, where)
    codecs = document.get("codecs")
    if not isinstance(codecs, list):
        raise DataError(f"{where}: codecs: expected a list, got {type(codecs).__name__}; {AGAIN}")
    try:
        chunk, found, index = _codecs(codecs, shard, dtype, where)
    except Damaged as error:
        raise DataError(f"{where}: codecs: {error}; {AGAIN}") from error
    attributes = document.get("attributes", {})
    return ArrayMetadata(where, shape, dtype, shard, chunk, found, index, separator, prefix, attributes)


_COMMON = ("zarr_format", "node_type", "attributes", "consolidated_metadata")
_ARRAY = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs", "fill_value", "dimension_names")
_KNOWN = {"group": _COMMON, "array": (*_COMMON, *_ARRAY, "storage_transformers")}


def _ignorable(extension: Mapping[str, Any]) -> bool:
    return extension.get("must_understand") is False


def _codecs(
    codecs: list[Any], shard: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> tuple[tuple[int, ...], Chain, Sharding | None]:
    names = [named(codec)[0] for codec in codecs]
    if "sharding_indexed" not in names:
        return shard, chain(codecs, shard, dtype), None
    if len(names) != 1:
        raise Damaged(f"expected 'sharding_indexed' alone, got {names}")
    options = named(codecs[0])[1]
    chunk = _sizes(options, ("chunk_shape",), f"{where}: sharding_indexed", smallest=1)
    inner = options.get("codecs")
    if not isinstance(inner, list):
        raise Damaged(f"expected a list of codecs in 'sharding_indexed', got {type(inner).__name__}")
    if any(named(codec)[0] == "sharding_indexed" for codec in inner):
        raise Damaged(f"expected a chunk's codecs in a shard ({', '.join(CODECS[:-1])}), got shards in shards")
    index = sharding(options, shard, chunk)
    return chunk, chain(inner, chunk, dtype), index


def _dtype(said: object, where: str) -> np.dtype[Any]:
    if isinstance(said, str) and said in DTYPES:
        return np.dtype(said)
    kind = str(said.get("name") if isinstance(said, Mapping) else said)[:60]
    why = ""
    if any(word in kind for word in ("object", "string", "bytes", "pickle", "raw", "struct")):
        why = " (objects and texts are not read: what unpacks them may run code that a file brings)"
    raise DataError(f"{where}: data_type: expected one of {', '.join(DTYPES)}, got '{kind}'{why}; {AGAIN}")


def _sizes(table: Mapping[str, Any], keys: tuple[str], where: str, smallest: int) -> tuple[int, ...]:
    said = table.get(keys[0])
    valid = isinstance(said, list) and len(said) <= DEEPEST
    if not valid or not all(type(size) is int and smallest <= size < LARGEST for size in said or []):
        raise DataError(
            f"{where}: {keys[0]}: expected whole numbers of at least {smallest}, got {str(said)[:80]}; {AGAIN}"
        )
    return tuple(said or [])


def _named(table: Mapping[str, Any], key: str, known: tuple[str, ...], where: str) -> Mapping[str, Any]:
    try:
        name, options = named(table.get(key))
    except Damaged as error:
        raise DataError(f"{where}: {key}: {error}; {AGAIN}") from error
    if name not in known:
        raise DataError(f"{where}: {key}: expected {' or '.join(known)}, got '{name[:60]}'; {AGAIN}")
    return {"name": name, **options}


def _encoding(document: Mapping[str, Any], where: str) -> tuple[str, str]:
    said = _named(document, "chunk_key_encoding", ("default", "v2"), where)
    prefix, separator = ("c", "/") if said["name"] == "default" else ("", ".")
    separator = said.get("separator", separator)
    if separator not in ("/", "."):
        raise DataError(f"{where}: chunk_key_encoding: expected the separator '/' or '.', got {separator!r}; {AGAIN}")
    return prefix, separator


def checksum(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """A hash of a store's metadata by path ("" is the root), as the root's attribute `checksum` holds it.

    It is of what the JSON says, not of how it is written; the attribute itself and consolidated copies are left out.
    """
    content = {}
    for path, document in documents.items():
        kept = {key: value for key, value in document.items() if key != "consolidated_metadata"}
        attributes = {key: value for key, value in kept.get("attributes", {}).items() if path or key != "checksum"}
        content[path] = {**kept, "attributes": attributes}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
