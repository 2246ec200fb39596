"""Chunked arrays read by batch: every chunk that a batch needs is unpacked once, and the last ones are kept.

What is kept is bounded in bytes for the whole process, however many arrays and files it reads.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from typing import Any, Protocol

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

CACHE_BYTES = 48 * 2**20  # of unpacked chunks, in one process
SLAB_BYTES = 16 * 2**20  # of chunks that are unpacked side by side
FEW_ROWS = 8  # that are copied one by one; numpy's indexing by arrays costs more


class Chunks(Protocol):
    """An array whose values lie in chunks: (sample, frame, ...) with any number of axes behind the first two."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def chunk(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def token(self) -> object:
        """Under which its chunks are kept, in this process; it does not keep the array itself alive."""
        ...

    @property
    def threads(self) -> int:
        """How many chunks are worth being loaded at once."""
        ...

    @property
    def plain(self) -> bool:
        """Whether part of a chunk costs less to read than the whole."""
        ...

    def load(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        """A whole chunk by its numbers along the axes, with the padding that it has at the array's end."""
        ...

    def load_rows(self, numbers: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        """Rows of a plain chunk, (stop - start, *rest): a row is what lies at one sample and frame of the chunk."""
        ...


@frozen
class Led:
    """Chunks of an array without samples, as the one sample of an array that has them."""

    inner: Chunks

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, *self.inner.shape)

    @property
    def chunk(self) -> tuple[int, ...]:
        return (1, *self.inner.chunk)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.inner.dtype

    @property
    def token(self) -> object:
        return self.inner.token

    @property
    def threads(self) -> int:
        return self.inner.threads

    @property
    def plain(self) -> bool:
        return False

    def load(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        return self.inner.load(numbers[1:])[None]

    def load_rows(self, numbers: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        chunk = self.load(numbers)
        return chunk.reshape(-1, *chunk.shape[2:])[start:stop]


class ChunkCache:
    """The chunks that were used last, as many as fit into so many bytes."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...]) -> NDArray[Any] | None:
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
            return value

    def put(self, key: tuple[Any, ...], value: NDArray[Any]) -> None:
        if value.nbytes > self.limit // 2:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self.nbytes += value.nbytes - (old.nbytes if old is not None else 0)
            self._kept[key] = value
            while self.nbytes > self.limit:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes


@define
class _Process:
    """What belongs to one process: its cache and its threads. A forked child has neither from its parent."""

    number: int = field(factory=os.getpid)
    cache: ChunkCache = field(factory=ChunkCache)
    pools: dict[int, ThreadPoolExecutor] = field(factory=dict)


_PROCESS = [_Process()]


def process_cache() -> ChunkCache:
    """This process's cache of chunks."""
    if _PROCESS[0].number != os.getpid():
        _PROCESS[0] = _Process()
    return _PROCESS[0].cache


def pool(threads: int) -> ThreadPoolExecutor:
    """This process's threads for reading so many chunks at once."""
    process_cache()
    pools = _PROCESS[0].pools
    if threads not in pools:
        pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="upskit-chunks")
    return pools[threads]


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------
@define
class _Piece:
    """What a batch wants of the chunks at one place along samples and frames: rows of the chunk, and where they go."""

    lead: tuple[int, int]
    rows: NDArray[np.intp]  # in the chunk, row-major over (sample, frame)
    targets: NDArray[np.intp]  # in the result, row-major over (B, F)


def gather(
    array: Chunks,
    samples: NDArray[np.integer],
    frames: NDArray[np.integer],
    into: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Frames (B, F) of samples (B,): (B, F, ...) float32, written to `into` where it is given."""
    rest, inner = array.shape[2:], array.chunk[2:]
    result = np.empty((*frames.shape, *rest), np.float32) if into is None else into
    flat = result.reshape(frames.size, *rest)  # a view, also where `into` is some channels of a larger array
    whole = rest == inner
    for piece, numbers, chunk, start in _loaded(array, _pieces(array, samples, frames)):
        rows = piece.rows - start if start else piece.rows
        if whole:
            _copy(flat, piece.targets, chunk, rows)
            continue
        box, part = _box(numbers[2:], inner, rest)
        _copy(flat[(slice(None), *box)], piece.targets, chunk[(slice(None), *part)], rows)
    return result


def _copy(into: NDArray[np.float32], targets: NDArray[np.intp], chunk: NDArray[Any], rows: NDArray[np.intp]) -> None:
    if len(rows) > FEW_ROWS:
        into[targets] = chunk[rows]
        return
    for target, row in zip(targets.tolist(), rows.tolist()):
        into[target] = chunk[row]


def _box(
    numbers: Sequence[int], inner: Sequence[int], ends: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a chunk lies in the array, and its part that does."""
    corner = [number * size for number, size in zip(numbers, inner)]
    box = tuple(slice(low, min(low + size, end)) for low, size, end in zip(corner, inner, ends))
    return box, tuple(slice(0, part.stop - part.start) for part in box)


def gather_points(
    array: Chunks,
    samples: NDArray[np.integer],
    frames: NDArray[np.integer],
    points: NDArray[np.integer],
    axes: int,
    into: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Frames (B, F) of samples (B,) at points (B, Q): (B, F, Q, *what follows the grid) float32.

    The grid is the `axes` axes behind sample and frame; points are numbers in its row-major order.
    """
    grid, tail = array.shape[2 : 2 + axes], array.shape[2 + axes :]
    result = np.empty((*frames.shape, points.shape[1], *tail), np.float32) if into is None else into
    where = np.unravel_index(points, grid)
    inner = array.chunk[2 : 2 + axes]
    owner = np.zeros_like(points)
    for number, size, end in zip(where, inner, grid):
        owner = owner * -(-end // size) + number // size
    local = np.ravel_multi_index(tuple(number % size for number, size in zip(where, inner)), inner)
    counts = tuple(-(-end // size) for end, size in zip(grid, inner))
    tails = array.chunk[2 + axes :]
    for piece, numbers, chunk, start in _loaded(array, _pieces(array, samples, frames), _wanted(owner, counts)):
        mine = int(np.ravel_multi_index(numbers[2 : 2 + axes], counts)) if axes else 0
        box, part = _box(numbers[2 + axes :], tails, tail)
        flat = chunk.reshape(len(chunk), math.prod(inner), *tails)
        for row, target in zip(piece.rows - start, piece.targets):
            sample, frame = divmod(int(target), frames.shape[1])
            chosen = np.flatnonzero(owner[sample] == mine)
            result[(sample, frame, chosen, *box)] = flat[(row, local[sample, chosen], *part)]
    return result


def _wanted(owner: NDArray[np.integer], counts: tuple[int, ...]) -> set[tuple[int, ...]] | None:
    """The chunks along the grid's axes in which some point lies; None where all are small in number."""
    if math.prod(counts) <= 1:
        return None
    return {tuple(int(n) for n in np.unravel_index(number, counts)) for number in np.unique(owner).tolist()}


def _pieces(array: Chunks, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> list[_Piece]:
    """The batch by chunk along samples and frames, in the order of the file."""
    per_sample, per_frame = array.chunk[:2]
    across = -(-array.shape[1] // per_frame)
    sample = np.broadcast_to(np.asarray(samples, np.intp)[:, None], frames.shape).ravel()
    frame = np.asarray(frames, np.intp).ravel()
    _in_range(sample, array.shape[0], "samples")
    _in_range(frame, array.shape[1], "frames")
    owner = (sample // per_sample) * across + frame // per_frame
    row = (sample % per_sample) * per_frame + frame % per_frame
    order = np.argsort(owner, kind="stable")
    sorted_owner = owner[order]
    borders = np.flatnonzero(np.diff(sorted_owner)) + 1
    edges: list[int] = [0, *borders.tolist(), len(order)] if len(order) else [0]
    rows, owners = row[order], sorted_owner.tolist()
    return [
        _Piece(divmod(owners[start], across), rows[start:stop], order[start:stop]) for start, stop in pairwise(edges)
    ]


def _in_range(numbers: NDArray[np.intp], end: int, what: str) -> None:
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < end:
        raise IndexError(f"{what} {numbers.min()} to {numbers.max()} of an array that has {end}")


_Loaded = tuple[_Piece, tuple[int, ...], NDArray[Any], int]


def _loaded(array: Chunks, pieces: Sequence[_Piece], wanted: set[tuple[int, ...]] | None = None) -> Iterator[_Loaded]:
    """Each piece with each of its chunks as rows (rows, *rest), and the chunk's row that is the first of them."""
    inner = [range(-(-size // part)) for size, part in zip(array.shape[2:], array.chunk[2:])]
    rests = [rest for rest in product(*inner) if wanted is None or rest[: len(next(iter(wanted)))] in wanted]
    tasks = [(piece, (*piece.lead, *rest)) for piece in pieces for rest in rests]
    nbytes = math.prod(array.chunk) * array.dtype.itemsize
    count = array.threads
    if count < 2 or len(tasks) < 2:
        for task in tasks:
            yield _load(array, *task)
        return
    slab = max(count, SLAB_BYTES // max(nbytes, 1))
    threads = pool(count)
    for start in range(0, len(tasks), slab):
        yield from threads.map(lambda task: _load(array, *task), tasks[start : start + slab])


def _load(array: Chunks, piece: _Piece, numbers: tuple[int, ...]) -> _Loaded:
    key = (array.token, numbers)
    cache = process_cache()
    chunk = cache.get(key)
    start = 0
    if chunk is None and array.plain:
        start, stop = int(piece.rows.min()), int(piece.rows.max()) + 1
        if 2 * (stop - start) <= array.chunk[0] * array.chunk[1]:
            return piece, numbers, array.load_rows(numbers, start, stop), start
        start = 0
    if chunk is None:
        chunk = array.load(numbers)
        cache.put(key, chunk)
    return piece, numbers, chunk.reshape(-1, *chunk.shape[2:]), start
