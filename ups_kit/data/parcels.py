"""Batches on their way from one process to another: all tensors of a value in one piece of shared memory.

One piece, however many tensors: each piece takes an open file and half a millisecond to hand over.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from attrs import frozen
from torch import Tensor

ALIGNMENT = 64  # bytes


class _Place(NamedTuple):
    """Where a tensor lies in the piece: as `torch.as_strided` takes it, from byte `start` on."""

    start: int
    bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@frozen
class Parcel:
    """A packed value. What is not a tensor travels pickled beside them."""

    rest: bytes
    places: tuple[_Place, ...]
    piece: bytes | Tensor  # the memory's handle until it is opened, then the memory

    def received(self) -> Parcel:
        """The parcel with its memory; may raise what the other process's end raises (OSError, RuntimeError)."""
        if isinstance(self.piece, Tensor):
            return self
        return Parcel(self.rest, self.places, ForkingPickler.loads(self.piece))

    def pin_memory(self) -> Parcel:
        """The parcel in page-locked memory."""
        parcel = self.received()
        assert isinstance(parcel.piece, Tensor)
        return Parcel(parcel.rest, parcel.places, parcel.piece.pin_memory())

    def opened(self) -> Any:
        """The value again, its tensors without a copy."""
        piece = self.received().piece
        assert isinstance(piece, Tensor)
        return _Unpickler(self.rest, [_tensor(piece, place) for place in self.places]).load()


def packed(value: Any) -> Parcel:
    """Pack a value for another process, its CPU tensors into shared memory.

    Raises OSError or RuntimeError where memory, or an open file, is not to be had.
    """
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    pickler.dump(value)
    places, sources = _laid_out(pickler.tensors)
    piece = torch.empty(sum(_aligned(len(source)) for source in sources.values()) or 1, dtype=torch.uint8)
    piece.share_memory_()  # type: ignore[no-untyped-call]
    for start, source in sources.items():
        piece[start : start + len(source)] = source
    # Not left to a queue, whose thread loses what it cannot pickle, without a word to anybody.
    return Parcel(stream.getvalue(), places, bytes(ForkingPickler.dumps(piece)))


def _laid_out(tensors: list[Tensor]) -> tuple[tuple[_Place, ...], dict[int, Tensor]]:
    """Where each tensor goes, and the bytes that go there by where they start.

    What several tensors share, or an expanded one repeats, goes once, unless the tensors are less than all of it.
    """
    wanted: Counter[int] = Counter()
    for tensor in tensors:
        wanted[tensor.untyped_storage().data_ptr()] += tensor.nbytes
    places: list[_Place] = []
    sources: dict[int, Tensor] = {}
    starts: dict[int, int] = {}  # of what goes whole
    end = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        whole = 0 < storage.nbytes() <= wanted[storage.data_ptr()]
        start = starts.get(storage.data_ptr()) if whole else None
        laid = tensor if whole else tensor.contiguous()
        if start is None:
            own = torch.empty(0, dtype=torch.uint8)
            source = own.set_(storage) if whole else laid.reshape(-1).view(torch.uint8)
            start, end = end, end + _aligned(len(source))
            sources[start] = source
            if whole:
                starts[storage.data_ptr()] = start
        length = len(sources[start])
        offset = int(tensor.storage_offset()) if whole else 0
        places.append(_Place(start, length, tensor.dtype, tuple(tensor.shape), tuple(laid.stride()), offset))
    return tuple(places), sources


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _tensor(piece: Tensor, place: _Place) -> Tensor:
    values = piece[place.start : place.start + place.bytes].view(place.dtype)
    start = int(values.storage_offset()) + place.offset
    return torch.as_strided(values, place.shape, place.stride, start)


class _Pickler(pickle.Pickler):
    """Leaves tensors out, and numbers them."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, rest: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(rest))
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Tensor:
        return self._tensors[int(number)]
