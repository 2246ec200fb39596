"""The next batches, read while the current one is worked on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
POLL = 0.05  # seconds between looks at whether anyone still listens


class _Raised(NamedTuple):
    error: BaseException


class _Finished(NamedTuple):
    pass


@contextmanager
def prefetched(
    read: Callable[[int], T], steps: Iterable[int], depth: int = 2, pinned: bool = False
) -> Iterator[Iterator[T]]:
    """`read(step)` for each step, in order, up to `depth` ahead in a thread of its own.

    With `pinned`, tensors are put into page-locked memory, from which they reach a CUDA device while it computes. What
    `read` raises is raised where its value would have come. On leaving, the thread is told to stop, and waited for.
    """
    queue: Queue[T | _Raised | _Finished] = Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | _Raised | _Finished) -> None:
        while not stop.is_set():
            try:
                return queue.put(item, timeout=POLL)
            except Full:
                continue

    def work() -> None:
        try:
            for step in steps:
                if stop.is_set():
                    return
                value = read(step)
                put(in_pinned_memory(value) if pinned else value)
            put(_Finished())
        except BaseException as error:
            put(_Raised(error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield _received(queue)
    finally:
        stop.set()
        while thread.is_alive():
            try:
                queue.get_nowait()
            except Empty:
                thread.join(POLL)


def _received(queue: Queue[T | _Raised | _Finished]) -> Iterator[T]:
    while True:
        item = queue.get()
        if isinstance(item, _Raised):
            raise item.error
        if isinstance(item, _Finished):
            return
        yield item


def in_pinned_memory(value: Any) -> Any:
    """The same value with its tensors in page-locked memory; named tuples are gone through."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(in_pinned_memory(part) for part in value))
    if isinstance(value, tuple) and any(isinstance(part, (torch.Tensor, tuple)) for part in value):
        return tuple(in_pinned_memory(part) for part in value)
    return value
