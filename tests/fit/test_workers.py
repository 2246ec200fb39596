"""Batches read by processes of their own: the same bits, plain errors, and nobody left behind."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from ups_kit.data.workers import read_by_workers
from ups_kit.errors import DataError, PluginError, Preempted
from ups_kit.fit.loop import fit
from ups_kit.fit.settings import Budget
from ups_kit.fit.state import CheckpointFolder
from ups_kit.interfaces import Batch, Progress

PATIENCE = 20.0  # seconds; a test that waits longer has failed


def taken(windows: Any, count: int, first: int = 0) -> list[Batch]:
    with windows.stream(first) as batches:
        return list(itertools.islice(batches, count))


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, and of the same kind all the way down."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple):
        return type(one) is type(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def error_of(windows: Any, count: int = 40) -> BaseException:
    with pytest.raises(Exception) as caught:
        taken(windows, count)
    return caught.value


def step_of(windows: Any, window: int) -> int:
    """The first step that sees a window."""
    return next(step for step in itertools.count() if window in windows.numbers(step))


@pytest.mark.parametrize(
    ("start", "workers", "chunked", "resumed"),
    [
        ("fork", 1, True, (0, 7)),
        ("fork", 2, False, (0, 7, 23)),
        ("forkserver", 1, False, (23,)),
        ("forkserver", 2, True, (0, 7)),
        ("spawn", 2, True, (7,)),
    ],
    ids=["fork-1", "fork-2", "forkserver-1", "forkserver-2", "spawn-2"],
)
def test_batches_are_the_same_to_the_bit(
    frames: ModuleType, tmp_path: Path, start: str, workers: int, chunked: bool, resumed: tuple[int, ...]
) -> None:
    dataset = frames.stored_frames(tmp_path / "a.h5", chunked)
    truth = taken(frames.training_windows(dataset), 30)  # the parent holds a map or a handle from here on
    for first in resumed:
        found = taken(frames.training_windows(dataset, workers, start), 30 - first, first)
        assert all(map(same, found, truth[first:]))


def test_the_runs_random_numbers_are_left_alone(frames: ModuleType, tmp_path: Path) -> None:
    dataset = frames.stored_frames(tmp_path / "a.h5")
    torch.manual_seed(4)
    before = torch.get_rng_state()
    taken(frames.training_windows(dataset, 1), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_errors_arrive_as_they_were_raised(frames: ModuleType, tmp_path: Path) -> None:
    dataset = frames.stored_frames(tmp_path / "a.h5", data_error=17)
    windows = frames.training_windows(dataset, 2)
    error = error_of(windows)
    assert type(error) is DataError
    assert str(error) == f"{tmp_path / 'a.h5'}: window 17 holds nonsense"
    assert error.key == "path"
    with windows.stream(0) as batches:  # those before it are whole
        for _ in range(step_of(windows, 17)):
            next(batches)
        with pytest.raises(DataError):
            next(batches)


def test_an_error_that_nobody_expected_brings_its_traceback(frames: ModuleType, tmp_path: Path) -> None:
    error = error_of(frames.training_windows(frames.stored_frames(tmp_path / "a.h5", odd_error=3), 1))
    assert type(error) is ZeroDivisionError
    assert str(error) == "window 3"
    assert "stored_frames.py" in error.__notes__[0]
    odd = frames.stored_frames(tmp_path / "b.h5", error_that_does_not_pickle=3)
    error = error_of(frames.training_windows(odd, 1))
    assert type(error) is RuntimeError
    assert "OddError: odd window 3" in str(error)


def train(toy: SimpleNamespace, folder: Path, windows: Any, resume: bool = False, **settings: Any) -> dict[str, Any]:
    """The weights that a toy training on these windows ends with."""
    keys: dict[str, Any] = {"budget": Budget(steps=30), "batch": 8, "checkpoint_every": 4, "validate_every": 10}
    model = toy.Model()
    if "loss" in settings:
        settings["loss"] = settings["loss"](model)
    task = toy.task(model=model, source=windows, validate=lambda model: {"score": 1.0}, **keys | settings)
    fit(task, toy.folder(folder, resume), toy.no_trackers())
    return toy.weights(model)  # type: ignore[no-any-return]


def at_step(toy: SimpleNamespace, windows: Any, step: int, act: Callable[[], object]) -> Any:
    """The toy's loss of a model, and something that happens within a step."""

    def of(model: torch.nn.Module) -> Any:
        plain = toy.task(model=model, source=windows).loss

        def loss(batch: Batch, progress: Progress, generator: torch.Generator) -> Any:
            if progress.step == step:
                act()
            return plain(batch, progress, generator)

        return loss

    return of


def test_a_killed_worker_costs_no_checkpoint(frames: ModuleType, toy: SimpleNamespace, tmp_path: Path) -> None:
    windows = frames.training_windows(frames.stored_frames(tmp_path / "a.h5"), 2, "forkserver")
    before = set(multiprocessing.active_children())

    def kill() -> None:
        os.kill(min(worker.pid or 0 for worker in set(multiprocessing.active_children()) - before), signal.SIGKILL)

    with pytest.raises(DataError, match=r"^data worker [12] died \(signal 9; often out of memory\)") as told:
        train(toy, tmp_path / "run", windows, loss=at_step(toy, windows, 6, kill))
    assert told.value.exit_code == 3
    assert all(hint in str(told.value) for hint in ("run.workers", "batch", "--resume"))
    kept = CheckpointFolder(tmp_path / "run" / "toy" / "checkpoints", 2).newest()
    assert kept is not None
    assert kept.step >= 4
    assert set(multiprocessing.active_children()) == before


def test_a_signal_to_all_processes_stops_at_a_step_with_the_state_saved(
    frames: ModuleType, toy: SimpleNamespace, tmp_path: Path
) -> None:
    windows = frames.training_windows(frames.stored_frames(tmp_path / "a.h5"), 2)
    before = set(multiprocessing.active_children())

    def stop() -> None:
        for worker in set(multiprocessing.active_children()) - before:
            os.kill(worker.pid or 0, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted, match="stopped by SIGTERM after step 7; its state is saved"):
        train(toy, tmp_path / "run", windows, loss=at_step(toy, windows, 6, stop))
    resumed = train(toy, tmp_path / "run", windows, resume=True)
    alone = attrs.evolve(windows, workers=0)
    assert toy.same_bits(resumed, train(toy, tmp_path / "whole", alone))
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_workers_leave_signals_to_the_process_they_work_for(
    frames: ModuleType, tmp_path: Path, number: signal.Signals
) -> None:
    dataset = frames.stored_frames(tmp_path / "a.h5")
    truth = taken(frames.training_windows(dataset), 30)
    before = set(multiprocessing.active_children())
    with frames.training_windows(dataset, 2).stream(0) as batches:
        found = [next(batches)]
        workers = set(multiprocessing.active_children()) - before
        for worker in workers:
            os.kill(worker.pid, number)
        found += itertools.islice(batches, 29)
        assert all(worker.is_alive() for worker in workers)
    assert len(workers) == 2
    assert all(map(same, found, truth))
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_leaving_ends_the_workers_even_by_an_error(frames: ModuleType, tmp_path: Path, start: str) -> None:
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)

    def use() -> None:
        with frames.training_windows(frames.stored_frames(tmp_path / "a.h5"), 2, start).stream(0) as batches:
            next(batches)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        use()
    assert set(multiprocessing.active_children()) == before
    assert signal.getsignal(signal.SIGCHLD) is handler


ORPHANS = """
import multiprocessing, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from stored_frames import stored_frames, training_windows
if __name__ == "__main__":
    dataset = stored_frames(pathlib.Path(sys.argv[2]))
    with training_windows(dataset, 2, sys.argv[3]).stream(0) as batches:
        next(batches)
        print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_workers_take_no_signals_and_do_not_outlive_a_parent_that_is_killed(
    frames: ModuleType, tmp_path: Path, start: str
) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    folder = str(Path(frames.__file__).parent)
    command = [sys.executable, str(script), folder, str(tmp_path / "a.h5"), start]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            pids = [int(text) for text in parent.stdout.readline().split()]
            servers = {int(stat(pid)[1]) for pid in pids} - {parent.pid}
            assert all(blocked(pid) >= {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1} for pid in {*pids, *servers})
            assert not blocked(parent.pid)
        finally:
            parent.kill()
    deadline = time.monotonic() + PATIENCE
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)


def stat(pid: int) -> list[str]:
    """State, parent and so on of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def blocked(pid: int) -> set[int]:
    """Signals that a process does not take."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mask = int(lines["SigBlk"], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is not a dead one that nobody has asked after."""
    try:
        return stat(pid)[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_dataset_that_does_not_pickle_is_refused_in_words() -> None:
    with (
        pytest.raises(PluginError, match=r"cannot be handed to data workers .* run\.workers = 0"),
        read_by_workers(lambda step: step, 0, 1, "spawn"),
    ):
        pass


LIMITED = """
import pathlib, resource, sys
sys.path.insert(0, sys.argv[1])
from stored_frames import stored_frames, training_windows
if __name__ == "__main__":
    dataset = stored_frames(pathlib.Path(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
    kept = []
    with training_windows(dataset, 2).stream(0) as batches:
        for batch in batches:
            kept.append(batch)
"""


def test_few_open_files_are_told_with_what_helps(frames: ModuleType, tmp_path: Path) -> None:
    folder = str(Path(frames.__file__).parent)
    command = [sys.executable, "-c", LIMITED, folder, str(tmp_path / "a.h5"), "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ups_kit.errors.DataError: data workers ran out of open files"), done.stderr
    assert "ulimit -n" in last
    assert "run.workers" in last


def test_a_small_dev_shm_is_told_with_what_helps(frames: ModuleType, tmp_path: Path) -> None:
    error = error_of(frames.training_windows(frames.stored_frames(tmp_path / "a.h5", no_room=17), 1))
    assert isinstance(error, DataError)
    assert str(error).startswith("data workers have no room in shared memory (unable to allocate")
    assert "--shm-size" in str(error)
