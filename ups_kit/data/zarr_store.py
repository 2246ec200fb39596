"""Zarr v3 stores, read only: what their metadata say, and their arrays by batch. What is missing is no fill value.

The metadata are read strictly and the chunks are unpacked here (`zarr_metadata`, `zarr_codecs`), so that a missing
chunk, shard or index entry is an error, no codec is looked up by a name that a file brings, and a batch costs little
more than its bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from . import chunks
from .byte_stores import ByteStore, byte_store
from .tree import ArrayInfo, FileTree
from .zarr_codecs import MISSING, Damaged
from .zarr_metadata import AGAIN, ArrayMetadata, array_metadata, parsed

DOCUMENT = "zarr.json"
LARGEST_DOCUMENT = 2**26  # bytes; one with consolidated metadata holds those of all its arrays
CHECKED_SHARDS = 1_000  # that are looked for when an array is opened; of more, a missing one is found when it is read
SMALL = 2**24  # values of an array that is read whole: coordinates, times, parameters
DEPTH = 8  # groups in groups
_NAME = re.compile(r"[^/\\\x00]{1,255}")


@define(eq=False)
class ZarrStore:
    """A Zarr v3 hierarchy in a folder or behind an address."""

    place: ByteStore
    _documents: dict[str, dict[str, Any]] = field(factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, path: Path | str) -> ZarrStore:
        """The store whose root is a group. Raises DataError."""
        store = cls(byte_store(path))
        root = store.document("")
        if root["node_type"] != "group":
            raise DataError(f"{store.label}/{DOCUMENT}: expected a group, got an array; name the folder it lies in")
        store._check_consolidated(root)
        return store

    @property
    def label(self) -> str:
        return self.place.label

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The root's."""
        found: Mapping[str, Any] = self.document("").get("attributes", {})
        return found

    def document(self, path: str) -> dict[str, Any]:
        """The zarr.json of an array or group. Raises DataError where there is none, and for v2."""
        if path not in self._documents:
            self._check_name(path)
            text = self.place.read(self._key(path), 0, LARGEST_DOCUMENT + 1)
            if text is None:
                raise DataError(self._missing(path))
            if len(text) > LARGEST_DOCUMENT:
                raise DataError(f"{self._where(path)}: expected at most {LARGEST_DOCUMENT:,} bytes; {AGAIN}")
            self._documents[path] = parsed(text, self._where(path))
        return self._documents[path]

    def kind(self, path: str) -> str | None:
        """ "array", "group", or None where there is neither."""
        if path not in self._documents:
            self._check_name(path)
            if self.place.read(self._key(path), 0, 1) is None:
                return None
        return str(self.document(path)["node_type"])

    def array(self, path: str) -> ZarrArray:
        """An array of numbers. Raises DataError, also for missing shards where there are not too many to look for."""
        found = ZarrArray(self.place, path, array_metadata(self.document(path), self._where(path)))
        found.check_complete()
        return found

    def children(self, path: str = "") -> tuple[str, ...]:
        """Names of the arrays and groups in a group, in alphabetical order.

        A place that cannot list, such as a web server, is asked for the root's consolidated metadata.
        """
        names = self.place.children(path)
        if names is None:
            within = f"{path}/" if path else ""
            known = self._consolidated(self.document(""))
            inner = {key.removeprefix(within) for key in known if key.startswith(within) and key != path}
            return tuple(sorted({name.partition("/")[0] for name in inner if name}))
        return tuple(name for name in names if self.kind(f"{path}/{name}" if path else name) is not None)

    def _check_name(self, path: str) -> None:
        parts = path.split("/") if path else []
        if len(parts) > DEPTH or any(not _NAME.fullmatch(part) or set(part) == {"."} for part in parts):
            raise DataError(
                f"{self.label}: the name '{path[:100]}' leads out of the store, or is none; expected names of arrays "
                "and groups in it"
            )

    def _key(self, path: str) -> str:
        return f"{path}/{DOCUMENT}" if path else DOCUMENT

    def _where(self, path: str) -> str:
        return f"{self.label}/{self._key(path)}"

    def _missing(self, path: str) -> str:
        base = f"{path}/" if path else ""
        for old in (".zarray", ".zgroup"):
            text = self.place.read(base + old, 0, 2**20)
            if text is not None:
                pickled = b"|O" in text or b"pickle" in text
                why = (
                    ", of objects, which are not read: unpacking them may run code that a file brings"
                    if pickled
                    else ""
                )
                return f"{self.label}/{base}{old}: expected Zarr v3 ({DOCUMENT}), got Zarr v2{why}; " + (
                    "store numbers instead" if pickled else f"`zarr migrate v3 {self.label}` makes it v3"
                )
        parent, _, name = path.rpartition("/")
        names = self.children(parent) if path and self.kind(parent) == "group" else ()
        listed = f" ({parent or 'the store'} holds {', '.join(names[:12]) or 'nothing'})" if path else ""
        return f"{self._where(path)}: expected this file, got none{did_you_mean(name, names)}{listed}; {AGAIN}"

    # -- consolidated metadata --
    def _consolidated(self, root: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = root.get("consolidated_metadata")
        if copy is None:
            return {}
        known = copy.get("metadata") if isinstance(copy, Mapping) else None
        if not isinstance(known, Mapping) or copy.get("kind") != "inline":
            raise DataError(f"{self._where('')}: consolidated_metadata: expected inline metadata by path; {AGAIN}")
        return known

    def _check_consolidated(self, root: Mapping[str, Any]) -> None:
        """A copy in the root that differs from what the arrays themselves say is stale: one of them is wrong."""
        for path, copy in self._consolidated(root).items():
            if not isinstance(copy, Mapping):
                raise DataError(
                    f"{self._where('')}: consolidated_metadata: {str(path)[:80]}: expected a table; {AGAIN}"
                )
            own = self.document(str(path)) if self.kind(str(path)) else None
            keys = sorted({*copy, *(own or {})} - {"consolidated_metadata"})
            differing = [k for k in keys if own is None or own.get(k, _EMPTY.get(k)) != copy.get(k, _EMPTY.get(k))]
            if differing:
                said = f"{differing[0]} = {str(copy.get(differing[0]))[:80]}"
                got = f"{str(own.get(differing[0]))[:80]}" if own is not None else "no such array or group"
                raise DataError(
                    f"{self._where('')}: consolidated_metadata are stale: '{path}' is expected with {said}, got {got} "
                    f"in {self._where(str(path))}; repair: zarr.consolidate_metadata('{self.label}') in Python"
                )


_EMPTY: Mapping[str, Any] = {"attributes": {}, "storage_transformers": []}


@define(eq=False)
class ZarrArray:
    """One array, for any number of readers at once. It travels to other processes without files and connections."""

    place: ByteStore
    path: str
    metadata: ArrayMetadata
    leading: int = 0  # axes of length 1 that are put before the array's own, so that it has sample and frame
    token: object = field(factory=object, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1,) * self.leading + self.metadata.shape

    @property
    def chunk(self) -> tuple[int, ...]:
        return (1,) * self.leading + self.metadata.chunk

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.metadata.codecs.dtype

    @property
    def threads(self) -> int:
        codecs = self.metadata.codecs
        return self.place.threads(0 if codecs.plain else codecs.nbytes)

    @property
    def plain(self) -> bool:
        return self.metadata.codecs.plain

    def led_by(self, axes: int) -> ZarrArray:
        """The same array with axes of length 1 before its own."""
        return evolve(self, leading=axes)

    def gather(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], into: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Frames (B, F) of samples (B,): (B, F, ...) float32."""
        self.place.check_unchanged()
        return chunks.gather(self, samples, frames, into)

    def gather_points(
        self,
        samples: NDArray[np.integer],
        frames: NDArray[np.integer],
        points: NDArray[np.integer],
        axes: int,
        into: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """The same at points (B, Q) of the grid of `axes` axes: (B, F, Q, ...) float32."""
        self.place.check_unchanged()
        return chunks.gather_points(self, samples, frames, points, axes, into)

    def rows(
        self, samples: Sequence[int] | NDArray[np.integer], frames: slice, into: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """All values of a slice of frames of some samples, (samples, frames, ...) float32."""
        self.place.check_unchanged()
        wanted = np.asarray(samples, np.intp)
        numbers = np.arange(self.shape[1])[frames]
        return chunks.gather(self, wanted, np.broadcast_to(numbers, (len(wanted), len(numbers))), into)

    def entries(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Entries of an array of one axis, which is small."""
        return np.asarray(self.values()[numbers], np.float32)

    def values(self) -> NDArray[Any]:
        """A small array whole, in its own type. Raises DataError for a large one."""
        meta = self.metadata
        if math.prod(meta.shape) > SMALL:
            raise DataError(f"{meta.where}: expected at most {SMALL:,} values, got the shape {list(meta.shape)}")
        return self.box([(0, size) for size in meta.shape])

    def box(self, ends: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """The values between two places along each of the array's own axes, in its own type."""
        self.place.check_unchanged()
        parts = self.metadata.chunk
        result = np.empty([stop - start for start, stop in ends], self.metadata.dtype)
        touched = [range(start // part, -(-stop // part)) for (start, stop), part in zip(ends, parts, strict=True)]
        for numbers in product(*touched):
            there, here = [], []
            for (start, stop), part, number in zip(ends, parts, numbers, strict=True):
                low, high = max(start, number * part), min(stop, (number + 1) * part)
                there.append(slice(low - start, high - start))
                here.append(slice(low - number * part, high - number * part))
            result[tuple(there)] = self._load(numbers)[tuple(here)]
        return result

    # -- chunks --
    def load(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        """A whole chunk by its numbers along the axes. Raises DataError for one that is missing or damaged."""
        chunk = self._load(numbers[self.leading :])
        return chunk.reshape((1,) * self.leading + chunk.shape)

    def load_rows(self, numbers: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        """Rows of a chunk that is stored as it is in memory: (stop - start, *rest)."""
        place = _Place.of(self, numbers[self.leading :])
        rest = self.chunk[2:]
        row = math.prod(rest) * self.dtype.itemsize
        with place.told(self):
            if place.length != self.metadata.codecs.nbytes:
                raise Damaged(f"expected a chunk of {self.metadata.codecs.nbytes:,} bytes, got {place.length:,}")
            data = self._bytes(place, start * row, (stop - start) * row)
        return np.frombuffer(data, self.dtype).reshape(stop - start, *rest)

    def _load(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        place = _Place.of(self, numbers)
        with place.told(self):
            return self.metadata.codecs.decode(self._bytes(place, 0, place.length))

    def _bytes(self, place: _Place, start: int, length: int | None) -> bytes:
        data = self.place.read(place.key, place.offset + start, length)
        if data is None:
            raise DataError(self.missing(place.shard))
        if length is not None and len(data) != length:
            raise Damaged(
                f"is truncated: expected {length:,} bytes from byte {place.offset + start:,}, got {len(data):,}"
            )
        return data

    def index(self, shard: tuple[int, ...]) -> NDArray[np.uint64]:
        """Where a shard's chunks lie in it. Raises DataError."""
        sharding = self.metadata.sharding
        if sharding is None:
            raise ValueError(f"{self.metadata.where}: has no shards")
        key, cache = (self.token, "index", shard), chunks.process_cache()
        found = cache.get(key)
        if found is None:
            size, place = sharding.nbytes, _Place(shard, self.key(shard), 0, None)
            with place.told(self, "the index of its chunks"):
                data = self.place.read(place.key, -size) if sharding.at_end else self.place.read(place.key, 0, size)
                if data is None:
                    raise DataError(self.missing(shard))
                found = sharding.index(data)
            cache.put(key, found)
        return found

    def key(self, shard: tuple[int, ...]) -> str:
        """The key of a shard in the store."""
        inner = self.metadata.key(shard)
        return f"{self.path}/{inner}" if self.path else inner

    # -- completeness --
    def check_complete(self) -> None:
        """Raise DataError where a shard's file is not there, as far as the store can tell without reading values."""
        counts = self.metadata.shards
        total = math.prod(counts)
        if total == 0:
            return
        if total <= CHECKED_SHARDS and self.place.holds(self.key((0,) * len(counts))) is not None:
            absent = [shard for shard in np.ndindex(*counts) if not self.place.holds(self.key(shard))]
        else:
            ends = (tuple(0 for _ in counts), tuple(count - 1 for count in counts))
            absent = [shard for shard in ends if self.place.read(self.key(shard), 0, 1) is None][:1]
        if absent:
            raise DataError(self.missing(absent[0], len(absent)))

    def missing(self, shard: tuple[int, ...], absent: int = 1) -> str:
        """What to say of a shard that is not there."""
        what = "shard" if self.metadata.sharding else "chunk"
        total = math.prod(self.metadata.shards)
        more = f"; {absent:,} of {total:,} are missing" if absent > 1 else ""
        claimed = math.prod(self.metadata.shape) * self.dtype.itemsize
        return (
            f"{self.place.label}/{self.key(shard)}: expected a {what} of the array {list(self.metadata.shape)} "
            f"({claimed:,} bytes in {total:,} files), got no such file{more}; what is missing is not taken for the "
            f"fill value: {AGAIN} (with Zarr itself, write with the setting array.write_empty_chunks = True)"
        )

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.place, self.path, self.metadata, self.leading)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


@frozen
class _Place:
    """Where a chunk's bytes lie."""

    shard: tuple[int, ...]
    key: str
    offset: int
    length: int | None  # None: to the end of the file

    @classmethod
    def of(cls, array: ZarrArray, numbers: tuple[int, ...]) -> _Place:
        """The place of a chunk. Raises DataError where its shard does not hold it."""
        meta = array.metadata
        if meta.sharding is None:
            length = meta.codecs.nbytes if meta.codecs.plain else None
            return cls(numbers, array.key(numbers), 0, length)
        counts = meta.sharding.counts
        shard = tuple(number // count for number, count in zip(numbers, counts))
        inner = tuple(number % count for number, count in zip(numbers, counts))
        offset, length = (int(number) for number in array.index(shard)[inner])
        if offset == MISSING and length == MISSING:
            raise DataError(
                f"{array.place.label}/{array.key(shard)}: expected the chunk {list(numbers)}, got a shard that does "
                f"not hold it; what is missing is not taken for the fill value: {AGAIN}"
            )
        if length > 2 * meta.codecs.nbytes + 2**16 or offset + length >= 2**62:
            raise DataError(
                f"{array.place.label}/{array.key(shard)}: chunk {list(numbers)}: expected about "
                f"{meta.codecs.nbytes:,} bytes at most, got an index that says {length:,} at {offset:,}; {AGAIN}"
            )
        return cls(shard, array.key(shard), offset, length)

    @contextmanager
    def told(self, array: ZarrArray, what: str = "") -> Iterator[None]:
        """What is damaged at this place as a DataError."""
        try:
            yield
        except Damaged as error:
            at = what or f"the chunk at byte {self.offset:,}"
            raise DataError(f"{array.place.label}/{self.key}: {at}: {error}; {AGAIN}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Headers
# ---------------------------------------------------------------------------------------------------------------------
def check_layout(attributes: Mapping[str, Any], layout: str, version: int, where: str) -> None:
    """Raise DataError for a root that names another layout, or another version of it; it may name none."""
    found, number = attributes.get("layout", layout), attributes.get("version", version)
    if found != layout:
        raise DataError(f"{where}: layout: expected '{layout}', got {str(found)[:80]!r}")
    if number != version:
        raise DataError(f"{where}: version: expected {version}, got {number!r}; install a newer ups_kit")


def is_zarr(path: Path) -> bool:
    """Whether a folder looks like a Zarr store, of any version."""
    return any((path / name).is_file() for name in (DOCUMENT, ".zgroup", ".zarray", ".zmetadata"))


def tree_of_zarr(path: Path | str) -> FileTree:
    """What a store holds, as its metadata say it. Raises DataError for the first array that cannot be read."""
    store = ZarrStore.open(path)
    arrays: dict[str, ArrayInfo] = {}
    attributes: dict[str, Mapping[str, Any]] = {"": store.attributes}
    pending = [""]
    while pending:
        group = pending.pop()
        for name in store.children(group):
            inner = f"{group}/{name}" if group else name
            document = store.document(inner)
            if document["node_type"] == "group":
                attributes[inner] = document.get("attributes", {})
                pending.append(inner)
                continue
            meta = array_metadata(document, store._where(inner))
            shards = meta.shard if meta.sharding is not None else None
            stored = meta.codecs.dtype.str
            arrays[inner] = ArrayInfo(meta.shape, stored, meta.chunk, shards, meta.filters, "", meta.attributes)
    return FileTree(Path(path), "zarr", arrays, attributes)
