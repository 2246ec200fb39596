"""wandb fails in every way there is: one warning, and the run goes on without waiting for it."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ups_kit.interfaces import StageEvent, TrackedRun
from ups_kit.trackers import Trackers, build_trackers
from ups_wandb import WandbConfig
from ups_wandb import tracker as tracker_module


class Other:
    """A tracker that works."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None: ...

    def close(self) -> None: ...


def told_by(
    folder: Path, config: WandbConfig, steps: int = 3, pause: float = 0.0, at: Any = None
) -> tuple[list[str], float]:
    """A run with another tracker beside it: the warnings, and the seconds that it took."""
    folder.mkdir(exist_ok=True)
    other, started = Other(), time.monotonic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        built = build_trackers([config], folder)
        trackers = Trackers([*built, other])
        trackers.begin(TrackedRun("waves", folder, False, {"run": {"seed": 3}}))
        for step in range(steps):
            trackers.scalars("operator", step, {"loss": 1.0})
            if at is not None and step == 1:
                at(built[0])
            time.sleep(pause)
        trackers.event("operator", StageEvent("finished"))
        trackers.end("finished", {})
        trackers.close()
    assert other.steps == list(range(steps))
    return [str(each.message) for each in told if "switched off" in str(each.message)], time.monotonic() - started


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Another wandb in the place of the installed one, for the process that is started."""
    package = folder / "stand_in" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def test_online_without_an_account(tmp_path: Path) -> None:
    (message,), seconds = told_by(tmp_path / "run", WandbConfig(mode="online", timeout=5))
    assert "WandbTracker failed and is switched off: No API key configured" in message
    assert seconds < 10


def test_online_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (message,), seconds = told_by(tmp_path / "run", WandbConfig(mode="online", timeout=1.5))
    assert "WandbTracker failed and is switched off: " in message
    assert "mode = 'offline' keeps it in files" in message
    assert seconds < 10


def test_a_wandb_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "raise ImportError('cannot import name Settings')")
    (message,), seconds = told_by(tmp_path / "run", WandbConfig())
    assert "switched off: cannot import name Settings" in message
    assert seconds < 5


def test_a_wandb_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "GRACE", 0.5)
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(1000)")
    (message,), seconds = told_by(tmp_path / "run", WandbConfig(timeout=0.25))
    assert "switched off: it was not done after 1 s" in message
    assert seconds < 4


def test_a_wandb_that_takes_nothing_holds_up_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when everything between the two processes is full."""
    monkeypatch.setattr(tracker_module, "GRACE", 0.5)
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(1000)")
    (message,), seconds = told_by(tmp_path / "run", WandbConfig(timeout=0.25), steps=15_000)
    assert "switched off: it has not taken 10000 messages" in message
    assert seconds < 4


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    def kill(tracker: Any) -> None:
        os.kill(tracker._link._process.pid, signal.SIGKILL)

    (message,), seconds = told_by(tmp_path / "run", WandbConfig(), steps=8, pause=0.05, at=kill)
    assert "switched off: its process has ended with -9, see " in message
    assert seconds < 3


def test_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end by itself is killed."""
    monkeypatch.setattr(tracker_module, "GRACE", 0.3)
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(1000)")
    pids: list[int] = []
    told_by(tmp_path / "run", WandbConfig(timeout=0.1), at=lambda tracker: pids.append(tracker._link._process.pid))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").write_text("in the way")
    (message,), _ = told_by(tmp_path / "run", WandbConfig())
    assert message.startswith("Wandb failed and is switched off: ")
    assert "File exists" in message


def test_disabled_starts_and_writes_nothing(tmp_path: Path) -> None:
    messages, seconds = told_by(tmp_path / "run", WandbConfig(mode="disabled", upload_checkpoints="all"))
    assert messages == []
    assert list((tmp_path / "run").iterdir()) == []
    assert seconds < 0.5
