"""Work on files that nobody vouches for, in a process of its own with limits on time and memory.

A damaged HDF5 file may send the C library into an endless loop, crash it, or have it ask for all memory there is; a
full disk crashes it while it writes. What happens to the child becomes a DataError here that names the file and the
object that was read last. The two speak JSON in lines over a pipe: signs of life, and at last a result or an error.
Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

from attrs import define, field

from ..errors import DataError, PluginError, RecipeError, StorageError, UpsKitError, UsageError

SECONDS = 20.0
MEMORY = 4 * 2**30  # bytes
LONGEST_LINE = 256 * 2**20  # bytes of a result
SHOWN = 2000  # characters of what a child said last

PR_SET_PDEATHSIG = 1  # of prctl(2)

Sign = Callable[[str], None]  # `sign(what is read now)`
Report = Callable[[str], None]

# What a child may be asked to do; each is called with `sign` and the request's arguments, and returns what JSON holds.
TASKS: Mapping[str, str] = {
    "inspect": "ups_kit.data.inspection:inspect_task",
    "layouts": "ups_kit.data.layouts:layouts_task",
    "statistics": "ups_kit.data.statistics:statistics_task",
    "train_statistics": "ups_kit.data.checking:train_statistics_task",
    "validate": "ups_kit.data.checking:validate_task",
    "leaks": "ups_kit.data.checking:leaks_task",
    "convert": "ups_kit.data.conversion:convert_task",
}
FAMILY = (DataError, PluginError, StorageError, UsageError)
ERRORS: Mapping[str, type[UpsKitError]] = {error.__name__: error for error in FAMILY}


# ---------------------------------------------------------------------------------------------------------------------
# The parent's side
# ---------------------------------------------------------------------------------------------------------------------
def guarded(
    task: str,
    path: Path,
    arguments: Mapping[str, Any],
    seconds: float = SECONDS,
    memory: int = MEMORY,
    streaming: bool = False,
    report: Report | None = None,
) -> Any:
    """Have a child do a task on `path`, and return its result.

    `seconds` is the time it has; of a `streaming` task, which may go through a file of any size, the time that may
    pass without a sign of life. `report` is given what is being read. Raises what the child raises of the toolkit's own
    errors, and DataError where it stops, crashes, or wants more than `memory` bytes.
    """
    with tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=_environment(),
        )
        try:
            request = {"arguments": dict(arguments), "memory": memory, "cpu": 0 if streaming else int(seconds) + 2}
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child.stdin, request)
            watch = Watch(path, child.pid, seconds, memory, streaming, report)
            answer = watch.listen(child.stdout)
            if answer is None:
                child.kill() if watch.timed_out else None
                noise.seek(0)
                raise watch.failure(child.wait(), noise.read().decode(errors="replace"))
            return _unpacked(answer, path)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


def _environment() -> dict[str, str]:
    """The child finds this package where the parent has it, and not what lies in the working directory."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _send(pipe: IO[bytes], request: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):  # of a child that died at its start, the end tells how
        pipe.write(json.dumps(request).encode())
        pipe.close()


def _unpacked(answer: Mapping[str, Any], path: Path) -> Any:
    if "result" in answer:
        return answer["result"]
    kind, message, key = answer["error"]
    if kind == RecipeError.__name__:
        raise UsageError(message)
    error = ERRORS.get(kind)
    if error is None:
        raise DataError(f"{path}: cannot be read ({message}); it may be damaged: download or make it again")
    raise DataError(message, key) if error is DataError else error(message)


@define
class Watch:
    """Listens to a child until it answers, ends, or is silent for too long."""

    path: Path
    pid: int
    seconds: float
    memory: int
    streaming: bool = False
    report: Report | None = None
    at: str = ""
    timed_out: bool = False
    _done: int = field(default=0, init=False)

    def listen(self, pipe: IO[bytes]) -> Mapping[str, Any] | None:
        """The child's answer, or None where it ended or was silent."""
        descriptor, pending = pipe.fileno(), b""
        deadline = time.monotonic() + self.seconds
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    if self._goes_on():
                        deadline = time.monotonic() + self.seconds
                        continue
                    self.timed_out = True
                    return None
                data = os.read(descriptor, 2**20)
                if not data or len(pending) > LONGEST_LINE:
                    return None
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    answer: dict[str, Any] = json.loads(line)
                    if "at" not in answer:
                        return answer
                    self._signed(answer["at"])
                    deadline = time.monotonic() + self.seconds if self.streaming else deadline

    def _signed(self, at: str) -> None:
        self.at = at
        if self.streaming:
            self._done = _bytes_read(self.pid)
        if self.report is not None:
            self.report(at)

    def _goes_on(self) -> bool:
        """Whether a streaming child, silent as it is, has read since it was last looked at: a loop in C reads not."""
        if not self.streaming:
            return False
        done = _bytes_read(self.pid)
        before, self._done = self._done, done
        return done > before

    def failure(self, code: int, noise: str) -> UpsKitError:
        """What became of a child without an answer, as an error."""
        where = f" at {shown(self.at)}" if self.at else ""
        advice = "the file may be damaged: download or make it again"
        if self.timed_out:
            silent = " without a sign of life" if self.streaming else ""
            return DataError(f"{self.path}: reader stopped after {self.seconds:g} s{silent}{where}; {advice}")
        if code == -signal.SIGXCPU:
            return DataError(f"{self.path}: reader stopped after {self.seconds:g} s{where}; {advice}")
        if code < 0:
            return DataError(f"{self.path}: reader ended by signal {-code} ({_signal_name(-code)}){where}; {advice}")
        last = (noise.strip().splitlines() or ["nothing was said"])[-1][:SHOWN]
        return DataError(f"{self.path}: reader ended with code {code}{where} ({last}); {advice}")


def shown(at: str) -> str:
    """The name of an object in quotes; words stay as they are."""
    return at if " " in at else f"'{at}'"


def _bytes_read(pid: int) -> int:
    """What a process has read so far, by calls and by page faults; 0 where the system does not say."""
    try:
        counts = dict(line.split(b": ") for line in Path(f"/proc/{pid}/io").read_bytes().splitlines())
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(counts[b"rchar"]) + int(counts[b"wchar"]) + 4096 * (int(fields[7]) + int(fields[9]))
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return "unknown"
    return f"{name}, often out of memory" if name == "SIGKILL" else name


# ---------------------------------------------------------------------------------------------------------------------
# The child's side
# ---------------------------------------------------------------------------------------------------------------------
def serve(task: str, request: Mapping[str, Any], pipe: IO[bytes]) -> None:
    """Do a task under the request's limits, and write signs of life and the answer to the pipe."""

    def say(message: Mapping[str, Any]) -> None:
        pipe.write(json.dumps(message).encode() + b"\n")
        pipe.flush()

    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, request["memory"])
    if request["cpu"]:
        _limit(resource.RLIMIT_CPU, request["cpu"])
    at = ""

    def sign(what: str) -> None:
        nonlocal at
        at = what
        say({"at": what})

    try:
        module, _, name = TASKS[task].partition(":")
        say({"result": getattr(import_module(module), name)(sign, **request["arguments"])})
    except UpsKitError as error:
        say({"error": [type(error).__name__, str(error), getattr(error, "key", "")]})
    except MemoryError:
        say({"error": ["", f"reading {shown(at)} takes more than {request['memory'] / 2**30:.1f} GiB of memory", ""]})
    except PermissionError as error:
        place = error.filename or shown(at)
        say({"error": ["DataError", f"{place}: permission denied; expected a file that can be read", ""]})
    except (AssertionError, ImportError, NameError) as error:
        say({"error": ["PluginError", f"{type(error).__name__}: {error}; this is a fault of the program", ""]})
    except Exception as error:  # a damaged file raises almost anything
        where = f" at {shown(at)}" if at else ""
        say({"error": ["", f"{type(error).__name__}: {error}{where}"[:SHOWN], ""]})


def _limit(what: int, value: int) -> None:
    """Lower a limit of this process, as far as the system has it."""
    hard = resource.getrlimit(what)[1]
    with suppress(OSError, ValueError):  # a system without this limit still has the parent's clock
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, however that dies: a loop in C hears of nothing."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _main() -> NoReturn:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who is interrupted with its parent says nothing of it
    request = json.loads(sys.stdin.buffer.read())
    with os.fdopen(os.dup(1), "wb") as pipe:
        os.dup2(2, 1)  # what a library prints is no answer
        serve(sys.argv[1], request, pipe)
    sys.stderr.flush()
    os._exit(0)  # a library with a damaged file open may crash or wait on its way out


if __name__ == "__main__":
    _main()
