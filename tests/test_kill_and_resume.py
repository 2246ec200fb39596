"""A run through the command line, stopped again and again, ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ups_kit.errors import StorageError
from ups_kit.folder import RunFolder

SMOKE = Path(__file__).parent.parent / "recipes" / "smoke.toml"
NOW = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"  # as a lock is dated
PATIENCE = 120.0  # seconds; a test that waits longer has failed


def _command(folder: Path, data: Path, steps: int, *more: str) -> list[str]:
    settings = [
        f"run.folder={folder}",
        f"dataset.path={data}",
        f"stages.operator.budget.steps={steps}",
        "stages.operator.checkpoint_every=5",
        "stages.operator.validate_every=30",
        "stages.operator.ema=0.9",
        "stages.evaluate.pictures=false",
    ]
    return [sys.executable, "-m", "ups_kit", "run", str(SMOKE), *(x for s in settings for x in ("--set", s)), *more]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _finish(folder: Path, data: Path, steps: int, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(folder, data, steps, *more),
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _newest_step(run: Path) -> int:
    steps = [int(entry.name[5:]) for entry in run.glob("operator/checkpoints/step_*")]
    return max(steps, default=0)


def _stopped_when(process: subprocess.Popen[str], due: Any, number: signal.Signals, delay: float) -> int:
    """Signal the process a moment after `due()`; its exit code."""
    began = time.monotonic()
    while not due():
        assert process.poll() is None, "the run was over before it could be stopped"
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    return process.wait(PATIENCE)


def _stop_in_training(folder: Path, data: Path, steps: int, number: signal.Signals, chance: random.Random) -> int:
    run = folder / "smoke" / "1"
    wanted = _newest_step(run) + chance.choice([5, 10, 15])
    more = ["--resume"] if run.exists() else []
    with subprocess.Popen(
        _command(folder, data, steps, *more), env=_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        return _stopped_when(process, lambda: _newest_step(run) >= wanted, number, chance.uniform(0, 0.05))


def _stop_in_evaluation(folder: Path, data: Path, steps: int) -> int:
    run = folder / "smoke" / "1"
    with subprocess.Popen(
        _command(folder, data, steps, "--resume"), env=_environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        return _stopped_when(process, (run / "operator" / "done.json").exists, signal.SIGKILL, 0.1)


def _metrics(run: Path) -> list[dict[str, Any]]:
    """What was logged, in order, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: value for k, value in line.items() if "second" not in k and k != "data_wait"} for line in lines]


def _check_equal(whole: Path, stopped: Path) -> None:
    for name in ("operator/model.safetensors", "bundle/weights.safetensors"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name
    summaries = [json.loads((run / "summary.json").read_text()) for run in (whole, stopped)]
    for key in ("status", "parameters", "metrics", "floors", "shuffle"):
        assert summaries[0][key] == summaries[1][key], key
    assert _metrics(whole) == _metrics(stopped)
    assert (stopped / "STATUS").read_text() == "finished\n"


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGKILL, signal.SIGTERM),
        pytest.param((signal.SIGKILL,) * 16 + (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), marks=pytest.mark.slow),
    ],
    ids=["a few", "twenty"],
)
@pytest.mark.timeout(1800)
def test_a_run_that_is_stopped_many_times_ends_with_the_same_bits(
    tmp_path: Path, signals: Sequence[signal.Signals]
) -> None:
    chance = random.Random(len(signals))
    data = tmp_path / "data.h5"
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    steps = 100 + 25 * len(signals)
    done = _finish(whole, data, steps)
    assert done.returncode == 0, done.stderr
    for number in signals:
        code = _stop_in_training(stopped, data, steps, number, chance)
        status = (stopped / "smoke" / "1" / "STATUS").read_text()
        assert (code, status) == ((-9, "running\n") if number == signal.SIGKILL else (75, "preempted\n"))
    assert _stop_in_evaluation(stopped, data, steps) == -9
    done = _finish(stopped, data, steps, "--resume")
    assert done.returncode == 0, done.stderr
    assert "stage operator: finished before" in done.stderr
    _check_equal(whole / "smoke" / "1", stopped / "smoke" / "1")
    assert [entry.name for entry in (stopped / "smoke").iterdir()] == ["1"]


def _data_workers(session: int) -> list[int]:
    """Data workers among the processes that a run has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            if name == "pt_data_worker" and int(rest.split()[3]) == session:
                found.append(int(status.parent.name))
    return found


@pytest.mark.slow
def test_a_run_that_loses_a_worker_or_is_stopped_with_its_workers_goes_on(tmp_path: Path) -> None:
    data, whole, stopped = tmp_path / "data.h5", tmp_path / "whole", tmp_path / "stopped"
    done = _finish(whole, data, 150)
    assert done.returncode == 0, done.stderr
    run = stopped / "smoke" / "1"
    for expected in (3, 75):
        more = ["--set", "run.workers=2", *(["--resume"] if run.exists() else [])]
        first = _newest_step(run)
        with subprocess.Popen(
            _command(stopped, data, 150, *more),
            env=_environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            began = time.monotonic()
            while _newest_step(run) < first + 5:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.002)
            workers = _data_workers(process.pid)
            assert len(workers) == 2
            if expected == 3:
                os.kill(workers[0], signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGTERM)  # as a queue does that ends a job
            _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == expected, told
        assert "Traceback" not in told
        assert (run / "STATUS").read_text() == {3: "failed\n", 75: "preempted\n"}[expected]
        assert ("died (signal 9; often out of memory)" in told) == (expected == 3)
        assert _data_workers(process.pid) == []
    done = _finish(stopped, data, 150, "--resume")
    assert done.returncode == 0, done.stderr
    _check_equal(whole / "smoke" / "1", run)


def test_a_run_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "smoke" / "1")
    folder.path.mkdir(parents=True)
    with folder.lock():
        done = _finish(tmp_path / "runs", tmp_path / "data.h5", 10, "--resume")
    assert done.returncode == 6
    holder = rf"in use by process {os.getpid()} on {re.escape(socket.gethostname())} since {NOW}"
    assert re.search(holder, done.stderr)
    assert "Traceback" not in done.stderr
    assert sorted(entry.name for entry in folder.path.iterdir()) == [".lock"]


HOLDER = """
import os, pathlib, sys, time
from ups_kit.errors import StorageError
from ups_kit.folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).lock():
    if not os.fork():  # a data worker, which has let go of the lock when it says so
        print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_is_free_at_once_when_its_holder_is_killed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=rf"in use by process {holder.pid} on .* since {NOW}"), folder.lock():
            pass
        holder.kill()
        holder.wait(PATIENCE)
        with folder.lock():  # though its child lives on
            os.killpg(holder.pid, signal.SIGKILL)
    folder.check_free()
