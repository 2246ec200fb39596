"""The console shows progress and never stops a run."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ups_kit.console import Console, counting
from ups_kit.trackers import MetricsFile, Trackers


def test_plain_lines_are_throttled_and_the_last_is_shown() -> None:
    stream = io.StringIO()
    console = Console(stream, seconds=3600)
    for step in range(1, 101):
        console.scalars("operator", step, {"fraction": step / 100, "loss": 1 / step, "seconds_left": 100 - step})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("operator    1 %  step 1  loss 1")
    assert lines[1] == "operator  100 %  step 100  loss 0.01  0:00 left"


def test_validation_values_stay_on_the_line() -> None:
    stream = io.StringIO()
    console = Console(stream, seconds=0)
    console.scalars("operator", 10, {"validation/score": 0.5})
    console.scalars("operator", 20, {"fraction": 0.25, "lr": 1e-3})
    console.scalars("evaluate", 0, {"fraction": 0.5})
    assert stream.getvalue().splitlines() == [
        "operator  step 10  score 0.5",
        "operator   25 %  step 20  score 0.5  lr 0.001",
        "evaluate   50 %  step 0",
    ]


def test_numbers_that_are_not_shown_make_no_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(stream, seconds=0)
    trackers = Trackers([MetricsFile(tmp_path / "metrics.jsonl"), console])
    trackers.scalars("operator", 10, {"loss": 0.5})
    trackers.line("evaluate  rollouts of 8 trajectories")
    for step in range(3):
        trackers.scalars("evaluate", step, {"latent_rollout/nrmse": 0.1, "one_step/nrmse": 0.2})
    assert stream.getvalue().splitlines() == ["operator  step 10  loss 0.5", "evaluate  rollouts of 8 trajectories"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_counting_ends_with_the_count() -> None:
    stream = io.StringIO()
    with counting("simulating", stream) as report:
        for done in range(1, 6):
            report(done, 5)
    assert stream.getvalue().startswith("simulating: 5 of 5, ")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_line_survives_an_ascii_stream(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(stream).line("ε = 0.001")
    assert raw.getvalue().decode(encoding) in ("ε = 0.001\n", "? = 0.001\n")


def test_a_closed_stream_is_survived() -> None:
    stream = io.StringIO()
    console = Console(stream)
    stream.close()
    console.line("nobody reads this")
    console.scalars("operator", 1, {"fraction": 0.5})
    console.close()


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_broken_pipe_leaves_no_trace(locale: str) -> None:
    code = (
        "import sys, time\nfrom ups_kit.console import Console\nconsole = Console(sys.stdout, seconds=0)\n"
        "for i in range(20000): console.scalars('operator', i, {'fraction': i / 20000})\n"
    )
    command = f'"{sys.executable}" -c "$CODE" | head -n 1; echo "exit ${{PIPESTATUS[0]}}"'
    environment = os.environ | {"CODE": code, "LANG": locale, "LC_ALL": locale}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "exit 0"


def _all_of(terminal: int) -> str:
    """What was written to a terminal whose other end is closed."""
    parts = []
    with suppress(OSError):  # how a closed terminal says that there is no more
        while part := os.read(terminal, 65536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_a_terminal_gets_a_bar() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        console = Console(stream)
        console.scalars("operator", 10, {"fraction": 0.5, "loss": 0.25})
        console.line("a line above")
        with counting("reading", stream) as report:
            report(1, 2)
        console.close()
    shown = _all_of(master)
    assert "operator" in shown
    assert "50%" in shown
    assert "a line above" in shown
    assert "1 of 2" in shown
