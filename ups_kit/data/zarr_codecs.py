"""From the bytes of a stored Zarr chunk to its values, and back to nothing else: a fixed list of codecs, no registry.

What is read here comes from strangers. So a codec is one of the names below, an unpacked chunk has the size that the
array's metadata say or is refused, and no size that a chunk itself claims is believed.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import google_crc32c
import numpy as np
from attrs import frozen
from numcodecs import blosc, zstd
from numpy.typing import NDArray

PACKED = ("zstd", "gzip", "blosc")
SUPPORTED = ("bytes", "transpose", *PACKED, "crc32c", "sharding_indexed")
LARGEST_CHUNK = 2**30  # bytes, unpacked
MISSING = 2**64 - 1  # offset and length of a chunk that a shard does not hold


class Damaged(ValueError):  # noqa: N818 - becomes a DataError where the file's name is known
    """Bytes that are not what a codec wrote: "expected …, got …"."""


@frozen
class Chain:
    """The codecs of one chunk, in the order in which they were applied to the values."""

    shape: tuple[int, ...]  # of the chunk
    dtype: np.dtype[Any]  # as stored, in its byte order
    order: tuple[int, ...] | None  # how the axes were transposed
    packers: tuple[str, ...]  # of bytes to bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the values, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def plain(self) -> bool:
        """Whether the values lie in the file as they are in memory, row-major."""
        return self.order is None and not self.packers

    def decode(self, data: bytes | memoryview) -> NDArray[Any]:
        """The values of a chunk. Raises Damaged."""
        sizes = [self.nbytes]
        for name in self.packers:
            sizes.append(sizes[-1] + 4 if name == "crc32c" and sizes[-1] >= 0 else -1)
        for name, size in zip(reversed(self.packers), reversed(sizes[:-1])):
            data = _UNPACK[name](data, size)
        if len(data) != self.nbytes:
            raise Damaged(f"expected a chunk of {self.nbytes:,} bytes, got {len(data):,}")
        if self.order is None:
            return np.frombuffer(data, self.dtype).reshape(self.shape)
        stored = np.frombuffer(data, self.dtype).reshape([self.shape[axis] for axis in self.order])
        return stored.transpose(np.argsort(self.order))


def _not_packed(how: str, data: bytes | memoryview, size: int, error: Exception) -> str:
    what = f"{size:,} bytes" if size >= 0 else "bytes"
    return f"expected {what} packed by {how}, got {len(data):,} bytes that cannot be unpacked ({error})"


def _unzstd(data: bytes | memoryview, size: int) -> bytes:
    said = zstd_size(data)
    if (said is not None and not 0 <= said <= LARGEST_CHUNK) or (size >= 0 and said != size):
        raise Damaged(f"expected a zstd frame of {size:,} bytes, got one that says {said}")
    try:
        unpacked: bytes = zstd.decompress(data)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise Damaged(_not_packed("zstd", data, size, error)) from error
    return unpacked


def zstd_size(data: bytes | memoryview) -> int | None:
    """The size of what a zstd frame holds, as its header says it (RFC 8878, 3.1.1.1); None where it does not."""
    head = bytes(data[:18])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    single, width = bool(flags & 0x20), (0, 2, 4, 8)[flags >> 6]
    if width == 0:
        if not single:
            return None
        width = 1
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _ungzip(data: bytes | memoryview, size: int) -> bytes:
    unpacker = zlib.decompressobj(31)
    try:
        unpacked = unpacker.decompress(data, (size if size >= 0 else LARGEST_CHUNK) + 1)
    except zlib.error as error:
        raise Damaged(_not_packed("gzip", data, size, error)) from error
    if not unpacker.eof:
        raise Damaged(f"expected gzip data of {size:,} bytes, got more, or their end is missing")
    return unpacked


def _unblosc(data: bytes | memoryview, size: int) -> bytes:
    said = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
    if len(data) < 16 or said[1] != len(data) or said[0] > LARGEST_CHUNK or (size >= 0 and said[0] != size):
        raise Damaged(
            f"expected blosc data of {size:,} bytes in {len(data):,}, got a header of {said[0]:,} in {said[1]:,}"
        )
    try:
        unpacked: bytes = blosc.decompress(data)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise Damaged(_not_packed("blosc", data, size, error)) from error
    return unpacked


def _uncrc(data: bytes | memoryview, size: int) -> memoryview:
    view = memoryview(data)
    if len(view) < 4:
        raise Damaged(f"expected a checksum of 4 bytes at the end, got {len(view)} bytes")
    said, found = int.from_bytes(view[-4:], "little"), google_crc32c.value(bytes(view[:-4]))
    if said != found:
        raise Damaged(f"expected the checksum {said:08x}, got {found:08x}")
    return view[:-4]


_UNPACK: Mapping[str, Callable[[bytes | memoryview, int], bytes | memoryview]] = {
    "zstd": _unzstd,
    "gzip": _ungzip,
    "blosc": _unblosc,
    "crc32c": _uncrc,
}


# ---------------------------------------------------------------------------------------------------------------------
# Shards
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Sharding:
    """How the chunks of a shard are found: an index of (offset, length) of each, before or behind them."""

    counts: tuple[int, ...]  # chunks of a shard along each axis
    at_end: bool
    checked: bool  # a crc32c follows the index

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return 16 * math.prod(self.counts) + 4 * self.checked

    def index(self, data: bytes) -> NDArray[np.uint64]:
        """(*counts, 2): offset and length of every chunk. Raises Damaged."""
        if len(data) != self.nbytes:
            raise Damaged(f"expected an index of {self.nbytes:,} bytes, got {len(data):,}")
        values = _uncrc(data, -1) if self.checked else data
        return np.frombuffer(values, "<u8").astype(np.uint64).reshape(*self.counts, 2)


# ---------------------------------------------------------------------------------------------------------------------
# What the metadata say
# ---------------------------------------------------------------------------------------------------------------------
def chain(codecs: Sequence[Mapping[str, Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Chain:
    """The codecs of a chunk from an array's metadata. Raises Damaged for one that is not read, or does not fit."""
    order: tuple[int, ...] | None = None
    stored: np.dtype[Any] | None = None
    packers: list[str] = []
    for codec in codecs:
        name, options = named(codec)
        if stored is None and name == "transpose":
            order = _transposed(options, len(shape), order)
        elif stored is None and name == "bytes":
            stored = dtype.newbyteorder(_endian(options, dtype))
        elif stored is not None and name in _UNPACK:
            packers.append(name)
        else:
            raise Damaged(f"expected a chain of the codecs {', '.join(SUPPORTED)}, got '{name}' as one of them")
    if stored is None:
        raise Damaged("expected the codec 'bytes' in the chain, got none")
    found = Chain(shape, stored, order, tuple(packers))
    if found.nbytes > LARGEST_CHUNK:
        raise Damaged(f"expected chunks of at most {LARGEST_CHUNK:,} bytes, got {found.nbytes:,} ({list(shape)})")
    return found


def sharding(options: Mapping[str, Any], shard: tuple[int, ...], chunk: tuple[int, ...]) -> Sharding:
    """The index of shards from the options of `sharding_indexed`. Raises Damaged."""
    if len(chunk) != len(shard) or any(size % part for size, part in zip(shard, chunk)):
        raise Damaged(f"expected chunks that cut a shard of {list(shard)} evenly, got {list(chunk)}")
    names = [named(codec) for codec in options.get("index_codecs", [])]
    plain = [name for name, _ in names] in (["bytes"], ["bytes", "crc32c"])
    if not plain or names[0][1].get("endian", "little") != "little":
        raise Damaged(f"expected a shard's index in little-endian bytes and crc32c, got {[name for name, _ in names]}")
    where = options.get("index_location", "end")
    if where not in ("start", "end"):
        raise Damaged(f"expected index_location 'start' or 'end', got {where!r}")
    found = Sharding(tuple(size // part for size, part in zip(shard, chunk)), where == "end", len(names) == 2)
    if found.nbytes > LARGEST_CHUNK:
        raise Damaged(f"expected a shard's index of at most {LARGEST_CHUNK:,} bytes, got {found.nbytes:,}")
    return found


def named(codec: object) -> tuple[str, Mapping[str, Any]]:
    """A codec's name and options as they stand in metadata. Raises Damaged."""
    if isinstance(codec, str):
        return codec, {}
    if not isinstance(codec, Mapping) or not isinstance(codec.get("name"), str):
        raise Damaged(f"expected a codec with a name, got {str(codec)[:80]}")
    options = codec.get("configuration", {})
    if not isinstance(options, Mapping):
        raise Damaged(f"expected a table as configuration of '{codec['name']}', got {str(options)[:80]}")
    return codec["name"], options


def _transposed(options: Mapping[str, Any], dims: int, before: tuple[int, ...] | None) -> tuple[int, ...]:
    order = options.get("order")
    if order == "C":
        order = list(range(dims))
    elif order == "F":
        order = list(reversed(range(dims)))
    if before is not None or not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(dims))):
        raise Damaged(f"expected one order of {dims} axes to transpose, got {order!r}")
    return tuple(order)


def _endian(options: Mapping[str, Any], dtype: np.dtype[Any]) -> Literal["<", ">"]:
    said = options.get("endian", "little" if dtype.itemsize == 1 else None)
    if said not in ("little", "big"):
        raise Damaged(f"expected endian 'little' or 'big' for {dtype}, got {said!r}")
    return "<" if said == "little" else ">"
