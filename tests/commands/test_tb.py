"""`upskit tb`: what is started, and for whom."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ups_kit.cli import cli

Started = Callable[..., list[str] | str]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The command line that takes the place of `upskit`, or the message that is told instead."""

    def of(*arguments: str) -> list[str] | str:
        lines: list[list[str]] = []
        monkeypatch.setattr("os.execv", lambda path, line: lines.append(line))
        done = CliRunner().invoke(cli, ["tb", *arguments])
        return lines[0] if lines else str(done.exception)

    return of


def test_it_looks_at_one_run_from_this_machine_alone(tmp_path: Path, started: Started) -> None:
    (tmp_path / "waves" / "1" / "tensorboard").mkdir(parents=True)
    run = tmp_path / "waves" / "1"
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run / "tensorboard"), "--host", "127.0.0.1"]
    assert started(str(run)) == [*line, "--port", "6006"]
    assert started(str(run), "--port", "0", "--host", "::1")[-4:] == ["--host", "::1", "--port", "0"]


def test_it_looks_at_all_runs_of_a_name(tmp_path: Path, started: Started) -> None:
    for number in "12":
        (tmp_path / "waves" / number / "tensorboard").mkdir(parents=True)
    assert started(str(tmp_path / "waves"))[4] == str(tmp_path / "waves")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "gpu7.cluster"])
def test_others_may_look_where_that_is_said(tmp_path: Path, started: Started, host: str) -> None:
    (tmp_path / "tensorboard").mkdir()
    message = started(str(tmp_path), "--host", host)
    assert f"--host {host}: TensorBoard asks nobody for a password" in message
    assert "ssh -L 6006:127.0.0.1:6006" in message
    assert started(str(tmp_path), "--host", host, "--i-know-it-is-unauthenticated")[6] == host


def test_where_there_is_nothing_to_look_at(tmp_path: Path, started: Started) -> None:
    assert (
        started(str(tmp_path / "none")) == f"{tmp_path / 'none'}: is not there; give a run folder, such as runs/NAME/1"
    )
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "resolved.json").write_text("{}")
    assert "has no TensorBoard files; [[trackers]] with use = 'tensorboard' writes them" in started(str(tmp_path / "1"))
    assert "holds runs and is none; did you mean" in started(str(tmp_path))
