"""The run folder: what lies where, how files get there whole, and who may write.

runs/<name>/<n>/
    recipe.toml  resolved.json  STATUS  .lock
    metrics.jsonl  tensorboard/  events.jsonl  events/  wandb/
    <stage>/checkpoints/  <stage>/model.safetensors  <stage>/done.json
    bundle/  summary.json  report.html  transfer.json  transfer.html  evaluations/<n>/
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from attrs import frozen

from . import __version__
from .errors import StorageError

RECORD = "resolved.json"  # the recipe as it was run: what makes a folder a run's
EVALUATIONS = "evaluations"  # of a run folder: what was evaluated later

# What a run folder holds beside its stages: no stage is called so, in either case of letters.
OWN_NAMES = (
    "recipe.toml",
    "resolved.json",
    "environment.json",
    "status",
    "metrics.jsonl",
    "tensorboard",
    "events",
    "events.jsonl",
    "wandb",
    "bundle",
    "summary.json",
    "report.html",
    "evaluations",
    "transfer.json",
    "transfer.html",
)


_HELD: set[IO[str]] = set()  # the locks of this process


def _let_go() -> None:
    """In a forked child, such as a data worker: a lock is its parent's, and ends with that."""
    for handle in _HELD:
        handle.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock that is a file of its own, and remove the file at the end.

    Raises BlockingIOError where another process holds it and this one is not to wait.
    """
    while True:
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _is_at(path, handle):  # who held it has removed the file meanwhile
                continue
            _HELD.add(handle)
            try:
                yield
            finally:
                _HELD.discard(handle)
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, handle: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


@frozen
class StageFolder:
    """One stage's corner of a run folder."""

    path: Path
    run: RunFolder
    resume: bool = False

    @property
    def checkpoints(self) -> Path:
        """Where the stage's training state is kept."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The finished stage's weights."""
        return self.path / "model.safetensors"

    @property
    def done(self) -> Path:
        """Written last, when the stage is finished; holds what the stage returned."""
        return self.path / "done.json"


@frozen
class RunFolder:
    """One run's folder."""

    path: Path

    def stage(self, name: str, resume: bool = False) -> StageFolder:
        """The corner of a stage, made if need be."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return StageFolder(folder, self, resume)

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def set_status(self, status: str) -> None:
        """One word in STATUS: running, finished, preempted, diverged, below_floor or failed."""
        write_text(self.path / "STATUS", status + "\n")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; the kernel lets go of it when the process dies, however it dies.

        Raises StorageError where another process holds it: which one, where, and since when.
        """
        with (self.path / ".lock").open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                raise StorageError(
                    f"{self.path}: in use by {holder}; wait for it, or start a run without --resume"
                ) from error
            handle.truncate(0)
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {now}")
            handle.flush()
            _HELD.add(handle)
            try:
                yield
            finally:
                _HELD.discard(handle)

    def check_free(self) -> None:
        """Raise StorageError where another process holds the folder."""
        if (self.path / ".lock").exists():
            with self.lock():
                pass


def new_run_folder(root: Path, name: str) -> RunFolder:
    """Make `root/name/<n>` with the first free number; two runs that start together get two folders.

    Raises StorageError where the folder cannot be made.
    """
    home = root / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        for number in range(_last_number(home) + 1, 1_000_000):
            with suppress(FileExistsError):
                (home / str(number)).mkdir()
                return RunFolder(home / str(number))
    except OSError as error:
        raise StorageError(
            f"{home}: a run folder cannot be made here: {error.strerror}; choose another run.folder"
        ) from error
    raise StorageError(f"{home}: no free run number")


def what_is_at(path: Path, expected: str) -> str:
    """Why no run folder is at a path, and which may be meant."""
    if not path.exists():
        return f"is not there; {expected}"
    if not path.is_dir():
        return f"is a file; {expected}"
    runs = [entry for entry in path.iterdir() if (entry / RECORD).is_file()]
    newest = max(runs, key=lambda entry: (len(entry.name), entry.name), default=None)
    return f"holds no run; {expected}" if newest is None else f"holds runs and is none; did you mean '{newest}'?"


def last_run_folder(root: Path, name: str) -> RunFolder | None:
    """The newest run of this name, or None."""
    home = root / name
    number = _last_number(home) if home.is_dir() else 0
    return RunFolder(home / str(number)) if number else None


def _last_number(home: Path) -> int:
    return max((int(entry.name) for entry in home.iterdir() if entry.name.isdigit()), default=0)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file whole: written beside, synced, renamed. A reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with beside.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"{path}: could not be written: {error.strerror}") from error
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file whole."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A file that `write_json` wrote. Raises StorageError where it cannot be read, or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise StorageError(f"{path}: cannot be read, restore it or start a new run: {reason}") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: expected a JSON object, got {type(value).__name__}; restore it or start a new run")
    return value


RECORD_FORMAT = 1  # of `resolved.json` and `done.json`; those of version 0.1.0 do not say


def read_record(path: Path) -> dict[str, Any]:
    """The `resolved.json` or `done.json` of a run. Raises StorageError where it is damaged, or of another format."""
    record = read_json(path)
    if record.get("format", RECORD_FORMAT) != RECORD_FORMAT:
        raise StorageError(f"{path}: {foreign_format(record)}")
    return record


def foreign_format(record: Mapping[str, Any]) -> str:
    """Why a record of another format cannot be read, with both versions."""
    return (
        f"is of format {record.get('format')}, written by ups_kit {record.get('ups_kit', 'of another version')}; this "
        f"is ups_kit {__version__}, which reads format {RECORD_FORMAT}; install the version that wrote it, or start a "
        "new run"
    )


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
