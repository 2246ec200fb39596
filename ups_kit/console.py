"""What a person sees while something runs: a bar on a terminal, one plain line every few seconds elsewhere.

Everything goes to standard error, in ASCII, so that standard output stays free for results. A stream that is closed
(`upskit run … 2>&1 | head`) ends the showing and nothing else.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.progress import Progress, TaskID

SECONDS_BETWEEN_LINES = 5.0
SHOWN = ("fraction", "loss", "validation/score", "lr", "samples_per_second", "seconds_left")


# What moves the cursor, changes colours or titles, or turns text around: names in files that nobody vouches for.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text with control characters written out: a file's names and attributes do nothing to a terminal."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Console:
    """A tracker that shows how far each stage has come.

    Of the values it is told it shows `fraction` (of the stage's budget, 0 to 1), `loss`, `validation/score`, `lr`,
    `samples_per_second` and `seconds_left`, and leaves out what it was not told. A stage that tells none of them, as an
    evaluation does, gets no line.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = SECONDS_BETWEEN_LINES) -> None:
        self._screen = _Screen(sys.stderr if stream is None else stream)
        self._seconds = seconds
        self._stage = ""
        self._shown: dict[str, float] = {}
        self._last_line = -float("inf")

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Show a stage's numbers at a step."""
        if stage != self._stage:
            self._stage, self._shown, self._last_line = stage, {}, -float("inf")
        self._shown |= {name: value for name, value in values.items() if name in SHOWN}
        if not self._shown:
            return
        fraction = min(max(self._shown.get("fraction", 0.0), 0.0), 1.0)
        text = _numbers(step, self._shown)
        if self._screen.is_terminal:
            self._screen.bar(stage, text, fraction)
        elif time.monotonic() - self._last_line >= self._seconds or ("fraction" in values and fraction >= 1):
            self._last_line = time.monotonic()
            share = f"  {100 * fraction:3.0f} %" if "fraction" in self._shown else ""
            self._screen.line(f"{stage}{share}  {text}")

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A console shows no pictures."""

    def line(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        self._screen.line(text)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._screen.close()


@cache
def notice(text: str) -> None:
    """A line that a person should see once, however often it is said."""
    _Screen(sys.stderr).line(text)


@contextmanager
def counting(label: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show how a countable piece of work goes on: yields `report(done, total)`, which may be called at any rate."""
    screen = _Screen(sys.stderr if stream is None else stream)
    started = last = time.monotonic()
    counts = (0, 0)

    def report(done: int, total: int) -> None:
        nonlocal counts, last
        counts = (done, total)
        if screen.is_terminal:
            screen.bar(label, f"{done} of {total}", done / max(total, 1))
        elif done < total and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            screen.line(f"{label}: {done} of {total}")

    try:
        yield report
        if not screen.is_terminal:
            screen.line(f"{label}: {counts[0]} of {counts[1]}, {time.monotonic() - started:.1f} s")
    finally:
        screen.close()


def _numbers(step: int, values: Mapping[str, float]) -> str:
    forms: tuple[tuple[str, Callable[[float], str]], ...] = (
        ("loss", lambda value: f"loss {value:.3g}"),
        ("validation/score", lambda value: f"score {value:.4g}"),
        ("lr", lambda value: f"lr {value:.2g}"),
        ("samples_per_second", lambda value: f"{value:.0f} samples/s"),
        ("seconds_left", lambda value: f"{duration(value)} left"),
    )
    return "  ".join([f"step {step}", *(form(values[name]) for name, form in forms if name in values)])


def duration(seconds: float) -> str:
    """`3:07`, `1:02:45`."""
    whole = round(max(seconds, 0.0)) if seconds < 1e9 else 0
    return (
        f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02}"
    )


class _Screen:
    """A stream that never raises, with bars where it is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self.is_terminal = _is_terminal(stream)

    def line(self, text: str) -> None:
        if self._progress is not None:
            self._guard(lambda: self._print_above(text))
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._guard(lambda: print(text.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True))

    def bar(self, label: str, text: str, fraction: float) -> None:
        self._guard(lambda: self._draw(label, text, fraction))

    def close(self) -> None:
        if self._progress is not None:
            self._guard(self._progress.stop)
            self._progress = None
            self._tasks = {}

    def _print_above(self, text: str) -> None:
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False)

    def _draw(self, label: str, text: str, fraction: float) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        if self._progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(24),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
            )
            # No refresh thread: the process may fork data workers.
            self._progress = Progress(*columns, console=RichConsole(file=self._stream), auto_refresh=False)
            self._progress.start()
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=1.0, text="")
        self._progress.update(self._tasks[label], completed=fraction, text=text)
        self._progress.refresh()

    def _guard(self, show: Callable[[], object]) -> None:
        """Nobody is looking any more: keep the work going, and keep the interpreter quiet about it at its end."""
        try:
            show()
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not self._stream.closed:
                raise
            self._progress, self.is_terminal = None, False
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self._stream.fileno())
            except (OSError, ValueError, AttributeError):
                self._stream = open(os.devnull, "w")  # noqa: SIM115, PTH123 - stays open as the stream it replaces
            finally:
                os.close(null)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:
        return False
