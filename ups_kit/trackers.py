"""Where a run's numbers go: the metrics file, the trackers of the recipe, and the console.

A tracker that fails is switched off with one warning; it never stops a run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .folder import write_text
from .interfaces import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trackers:
    """All trackers of a run as one. Also a tracker."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a stage at a step, by name."""
        self._each(lambda tracker: tracker.scalars(stage, step, values))

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A matplotlib figure."""
        self._each(lambda tracker: tracker.figure(stage, step, name, figure))

    def line(self, text: str) -> None:
        """Tell whoever watches, where a tracker can (`line(text)`), what is going on now."""
        self._each(lambda tracker: getattr(tracker, "line", lambda text: None)(text))

    def forget_after(self, stage: str, step: int) -> None:
        """Drop what a resumed stage will write again, where a tracker can (`forget_after(stage, step)`)."""
        self._each(lambda tracker: getattr(tracker, "forget_after", lambda stage, step: None)(stage, step))

    def close(self) -> None:
        """Flush and close everything."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], Any]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # a tracker that fails must not cost a training: a warning
                self._trackers.remove(tracker)
                warnings.warn(f"{type(tracker).__name__} failed and is switched off: {error}", stacklevel=3)


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, `{"stage", "step", name: value, …}`; always written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        with self._path.open("a") as handle:
            handle.write(json.dumps({"stage": stage, "step": step, **values}) + "\n")

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """Pictures have no place in a file of numbers."""

    def close(self) -> None:
        """Nothing is held open."""

    def forget_after(self, stage: str, step: int) -> None:
        """Drop the lines that a resumed stage will write again: those of `stage` after `step`."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the process died within this line
            if record["stage"] != stage or record["step"] <= step:
                kept.append(line + "\n")
        write_text(self._path, "".join(kept))
