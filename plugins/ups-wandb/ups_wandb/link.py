"""A child process that is told things and never waited for, but at the end and not for long."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

WAITING = 10_000  # messages that may wait for the process to take them


END = b'{"call": "close"}\n'  # the last message


class Lost(Exception):  # noqa: N818 - becomes the tracker's one warning
    """Why the process is of no use any more."""


class Link:
    """Sends messages as JSON lines to a process, in order, from a thread of its own.

    It answers `{"failed": reason}`, after which it is ended, or `{"done": true}`. The process has a session of
    its own: what stops the training from a terminal leaves it be, and killing it kills its children. When the training
    dies, however it dies, the process reads the end of its input and finishes by itself.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._reason: str | None = None
        self._done = threading.Event()
        self._over = threading.Event()  # done, failed or dead
        self._messages: queue.Queue[bytes | None] = queue.Queue(WAITING)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        for work in (self._feed, self._listen):
            threading.Thread(target=work, name=f"ups_wandb{work.__name__}", daemon=True).start()

    def say(self, message: Mapping[str, Any]) -> None:
        """Have a message sent. Raises Lost, once the process is known to be of no use."""
        if self._over.is_set():
            self._give_up()
        try:
            self._messages.put_nowait(json.dumps(message).encode() + b"\n")
        except queue.Full:
            self._reason = f"it has not taken {WAITING} messages that wait for it"
            self._give_up()

    def finish(self, seconds: float) -> None:
        """Have everything sent that waits, end the process, and wait so long for it. Raises Lost."""
        deadline = time.monotonic() + seconds
        with suppress(queue.Full):  # said, and not only by the end of its input: a forked child may hold that open
            self._messages.put(END, timeout=seconds)
        self._over.wait(max(deadline - time.monotonic(), 0.0))
        if not self._done.is_set():
            self._reason = self._reason or (None if self._over.is_set() else f"it was not done after {seconds:g} s")
            self._give_up()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(deadline - time.monotonic(), 1.0))
        self.kill()

    def kill(self) -> None:
        """End the process and its children now."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(queue.Full):
            self._messages.put_nowait(None)

    def _give_up(self) -> None:
        self.kill()
        code = self._process.returncode
        raise Lost(self._reason or f"its process has ended with {code}, see {self._log}")

    def _feed(self) -> None:
        """The thread that sends."""
        stream = self._process.stdin
        assert stream is not None
        with suppress(OSError, ValueError):  # a process that is gone; who listens finds out, too
            line: bytes | None = b""
            while line is not None and line is not END:
                line = self._messages.get()
                stream.write(line or b"")
                stream.flush()
        with suppress(OSError):
            stream.close()

    def _listen(self) -> None:
        """The thread that reads answers."""
        stream = self._process.stdout
        assert stream is not None
        for line in stream:
            answer = json.loads(line)
            if "failed" in answer:
                self._reason = str(answer["failed"])
                break
            if answer.get("done"):
                self._done.set()
                break
        self._over.set()
