"""Stopping a run from outside, at a step boundary and with its state saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from attrs import define

from ..errors import Preempted

INTERRUPTED_EXIT_CODE = 130
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as what no `except Exception` on the way takes for a failure of its own."""


@contextmanager
def sigterm_preempts() -> Iterator[None]:
    """Let SIGTERM end what has no steps to stop between as Preempted, so that the run is closed and can be resumed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Terminated as error:
        raise Preempted(
            "stopped by SIGTERM; what is finished is kept, and `upskit run … --resume` goes on from there"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@define
class StopRequest:
    """Whether the run was asked to stop, and by which signal."""

    signal_name: str = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take note of SIGTERM, SIGINT and SIGUSR1 instead of dying of them; the old handlers come back afterwards.

    A SIGINT after that ends the process at once with exit code 130: a checkpoint is written whole or not at all, so
    nothing is damaged. Outside the main thread no signal can be handled, and the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request and number == signal.SIGINT:
            os._exit(INTERRUPTED_EXIT_CODE)
        request.signal_name = request.signal_name or signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
