"""Tables that were made before, kept by the content of what they were made of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

BYTES = 256 * 2**20


class Kept(NamedTuple):
    """One sample's look-ups: indices of real points, and how many of each row are meant."""

    positions: Tensor | None  # (S, D), None where all samples have the same
    neighbours: Tensor  # (S, K), int32 where that is enough
    counts: Tensor  # (S,), int32

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self if part is not None)


class HasSize(Protocol):
    """Tensors made of positions, and how many bytes they take."""

    @property
    def nbytes(self) -> int: ...


Table = TypeVar("Table", bound=HasSize)


class TableCache(Generic[Table]):
    """The look-ups last used, at most so many bytes of them. Pickled or copied, it is empty."""

    def __init__(self, budget: int = BYTES) -> None:
        self.budget = budget
        self.hits = self.misses = self.nbytes = 0
        self._kept: OrderedDict[bytes, Table] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[TableCache[Table]], tuple[int]]:
        return TableCache, (self.budget,)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: bytes) -> Table | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found

    def keep(self, key: bytes, kept: Table) -> None:
        """Keep look-ups, and let go of those that were not used for longest where there is no room."""
        with self._lock:
            if kept.nbytes > self.budget or key in self._kept:
                return
            self._kept[key] = kept
            self.nbytes += kept.nbytes
            while self.nbytes > self.budget:
                _, old = self._kept.popitem(last=False)
                self.nbytes -= old.nbytes


def content_key(positions: Tensor) -> bytes:
    """A key for the positions (n, D) of real points, on the CPU: their bytes and their shape."""
    digest = blake2b(repr((tuple(positions.shape), str(positions.dtype))).encode(), digest_size=16)
    digest.update(positions.detach().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()
