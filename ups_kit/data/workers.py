"""The next batches, read by processes of their own while the current one is worked on.

The processes, their queues and the shared memory are torch's DataLoader's; what is added is that a read gives a whole
batch, that what goes wrong in a worker is told as it is, and that workers leave signals to the process they work for.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

import torch
from attrs import frozen
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, PluginError, UpsKitError
from .parcels import Parcel, packed

T = TypeVar("T")
WorkerStart = Literal["forkserver", "spawn", "fork"]

AHEAD = 2  # batches that each worker reads before they are asked for
PRELOADED = ["torch", "ups_kit.data.workers"]  # by the server that forks workers, so that each starts in no time
LEFT_TO_THE_PARENT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SECONDS_TO_END = 5.0
FEWER = "with fewer run.workers, a smaller batch, or run.workers = 0 less is held at a time"
REASONS = {
    signal.SIGKILL: "often out of memory",
    signal.SIGBUS: "the file was cut short under it, or /dev/shm is full",
}


@contextmanager
def read_by_workers(
    read: Callable[[int], T], first: int, workers: int, start: WorkerStart = "forkserver", pinned: bool = False
) -> Iterator[Iterator[T]]:
    """`read(step)` for first, first + 1, … in order, read ahead by that many processes; `read` must pickle.

    With `pinned`, tensors are put into page-locked memory. What `read` raises is raised where its value would have
    come. Workers ignore SIGTERM, SIGINT and SIGUSR1, end on leaving, and die with the process that started them.
    Raises DataError for a worker that died or has no room for its batches, PluginError where `read` does not pickle.
    """
    loader = DataLoader(
        _Reads(read),
        batch_size=None,
        sampler=count(first),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        worker_init_fn=_begin,
        multiprocessing_context=_context(start),
        generator=torch.Generator(),  # its seeds for workers are not drawn from the run's
        prefetch_factor=AHEAD,
    )
    team = _started(loader, start)
    try:
        yield team.received()
    finally:
        team.end()


def _context(start: WorkerStart) -> Any:
    context = torch.multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    return context


def _started(loader: DataLoader[Any], start: WorkerStart) -> _Team[Any]:
    """Start the workers. Signals are blocked meanwhile, and workers inherit that: none is lost, none ends a worker."""
    handler = signal.getsignal(signal.SIGCHLD)
    resource_tracker.ensure_running()  # its start would let signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_PARENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said below, and in fewer words
            batches = iter(loader)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise PluginError(
            f"the dataset cannot be handed to data workers ({error}); set run.workers = 0, or "
            "run.worker_start = 'fork', or make it picklable: no open files, no functions within functions"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise _Team(None, ()).failure(error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)  # the loader's raises wherever the process happens to be
    return _Team(batches, tuple(batches._workers))  # type: ignore[attr-defined]  # as the loader keeps them


# ---------------------------------------------------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class _Raised:
    error: Exception


class _Reads(Dataset[Any], Generic[T]):
    """`read` as the loader wants it."""

    def __init__(self, read: Callable[[int], T]) -> None:
        self._read = read

    def __getitem__(self, step: int) -> Parcel | _Raised:
        try:
            return packed(self._read(step))
        except Exception as error:
            return _Raised(_portable(error))


def _portable(error: Exception) -> Exception:
    """The error as it can be handed over; one that nobody expected brings its traceback along as a note."""
    if not isinstance(error, UpsKitError):
        hint = _shortage(error)
        if hint:
            return DataError(hint)
        error.add_note("in a data worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _as_it_is(parcel: Any) -> Any:
    return parcel


def _begin(worker: int) -> None:
    """Runs first in every worker: it shall not outlive who it works for, be that killed.

    The loader itself looks at its parent's number, and behind a fork server that number never changes.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


# ---------------------------------------------------------------------------------------------------------------------
# In the process that computes
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class _Team(Generic[T]):
    """The loader's iterator and its processes."""

    batches: Any
    workers: Sequence[BaseProcess]

    def received(self) -> Iterator[T]:
        while True:
            try:
                parcel = next(self.batches)
                value = parcel if isinstance(parcel, _Raised) else parcel.opened()
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                raise self.failure(error) from error
            if isinstance(value, _Raised):
                raise value.error
            yield value

    def failure(self, error: Exception) -> Exception:
        """What the loader raised, in words: a dead worker, a shortage, or the error itself."""
        for number, worker in enumerate(self.workers, start=1):
            worker.join(0.2)  # a connection is lost a moment before its process is
            if worker.exitcode:
                return DataError(_death(number, worker.exitcode))
        hint = _shortage(error)
        return DataError(hint) if hint else error

    def end(self) -> None:
        """Tell the workers to stop, wait for them, and end those that do not hear."""
        self.batches._shutdown_workers()
        for worker in self.workers:
            if worker.is_alive():
                worker.kill()
            worker.join(SECONDS_TO_END)


def _death(number: int, exitcode: int) -> str:
    if exitcode > 0:
        return f"data worker {number} ended with code {exitcode}; what it wrote to standard error says why"
    reason = REASONS.get(signal.Signals(-exitcode), signal.Signals(-exitcode).name)
    return (
        f"data worker {number} died (signal {-exitcode}; {reason}); {FEWER}; "
        "the newest checkpoint is kept: `upskit run … --resume` goes on from there"
    )


def _shortage(error: Exception) -> str:
    """What is short and what helps, where an error says that files or shared memory ran out; else empty."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text or "ancdata" in text:
        return (
            f"data workers ran out of open files ({text.splitlines()[0]}): every batch on its way is one; raise the "
            f"limit (`ulimit -n 4096`); {FEWER}"
        )
    if "shared memory" in text or "/torch_" in text:
        return (
            f"data workers have no room in shared memory ({text.splitlines()[0]}): /dev/shm holds the batches on their "
            f"way; make it larger (Docker: --shm-size 2g); {FEWER}"
        )
    return ""
