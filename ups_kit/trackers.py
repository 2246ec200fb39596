"""Where a run's numbers go: the metrics file, the trackers of the recipe, and the console.

A tracker that fails is switched off with one warning; it never stops a run.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UpsKitError
from .folder import read_json, write_text
from .interfaces import (
    Artefact,
    FollowsRuns,
    FollowsStages,
    Forgets,
    KeepsArtefacts,
    KeepsTables,
    StageEvent,
    Table,
    TellsLines,
    TrackedRun,
    Tracker,
    TrackerConfig,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trackers:
    """All trackers of a run as one, which fulfils every protocol that a tracker may; each is told what it can take."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)

    def begin(self, run: TrackedRun) -> None:
        """The run begins, or is gone on with."""
        self._each(FollowsRuns, lambda tracker: tracker.begin(run))

    def end(self, status: str, metrics: Mapping[str, float]) -> None:
        """The run ends with this word in STATUS, and these numbers of its model."""
        self._each(FollowsRuns, lambda tracker: tracker.end(status, metrics))

    def event(self, stage: str, event: StageEvent) -> None:
        """A stage begins, or ends in whatever way."""
        self._each(FollowsStages, lambda tracker: tracker.event(stage, event))

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a stage at a step, by name."""
        self._each(Tracker, lambda tracker: tracker.scalars(stage, step, values))

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        """A matplotlib figure."""
        self._each(Tracker, lambda tracker: tracker.figure(stage, step, name, figure))

    def table(self, stage: str, step: int, name: str, table: Table) -> None:
        """A table of a stage, such as its score card."""
        self._each(KeepsTables, lambda tracker: tracker.table(stage, step, name, table))

    def artefact(self, stage: str, artefact: Artefact) -> None:
        """A file or folder of a stage that is whole."""
        self._each(KeepsArtefacts, lambda tracker: tracker.artefact(stage, artefact))

    def line(self, text: str) -> None:
        """What is going on now, for whoever watches."""
        self._each(TellsLines, lambda tracker: tracker.line(text))

    def forget_after(self, stage: str, step: int) -> None:
        """Drop what a resumed stage will write again."""
        self._each(Forgets, lambda tracker: tracker.forget_after(stage, step))

    def close(self) -> None:
        """Flush and close everything."""
        self._each(Tracker, lambda tracker: tracker.close())

    def _each(self, kind: Any, call: Callable[[Any], object]) -> None:
        for tracker in list(self._trackers):
            if kind is not Tracker and not isinstance(tracker, kind):
                continue
            try:
                call(tracker)
            except Exception as error:  # a tracker that fails must not cost a training: a warning
                self._trackers = [kept for kept in self._trackers if kept is not tracker]
                _warn(type(tracker).__name__, error)


def build_trackers(configs: Iterable[TrackerConfig], folder: Path) -> list[Tracker]:
    """The trackers of a recipe; one that cannot be built is left out, with a warning."""
    built = []
    for config in configs:
        try:
            built.append(config.build(folder))
        except Exception as error:  # as a failure later on
            _warn(type(config).__name__.removesuffix("Config"), error)
    return built


def _warn(name: str, error: Exception) -> None:
    reason = str(error) or type(error).__name__
    warnings.warn(f"{name} failed and is switched off: {reason}; the run goes on without it", stacklevel=4)


# ---------------------------------------------------------------------------------------------------------------------
# What trackers are told at the end
# ---------------------------------------------------------------------------------------------------------------------
def ending(result: Mapping[str, Any]) -> StageEvent:
    """How a stage ended that has returned this."""
    told = []
    if "steps" in result:
        told.append(f"{result['steps']} steps")
    if result.get("best_step") is not None:
        told.append(f"best validation score {result['best_score']:.4g}, at step {result['best_step']}")
    card = result.get("card")
    if isinstance(card, Mapping) and "verdict" in card:
        told.append(str(card["verdict"]))
    return StageEvent("stopped_early" if result.get("stopped_early") else "finished", "; ".join(told))


def final_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a run's summary by name: `one_step/nrmse`, `operator/best_score`."""
    scores = {
        f"{stage}/best_score": float(found["best_score"])
        for stage, found in summary.get("stages", {}).items()
        if isinstance(found.get("best_score"), (int, float)) and math.isfinite(found["best_score"])
    }
    return dict(_numbers(summary.get("metrics", {}), "")) | scores


def known_metrics(path: Path) -> dict[str, float]:
    """The same of a run's `summary.json`, as far as the run has come; nothing where there is none."""
    try:
        return final_metrics(read_json(path)) if path.exists() else {}
    except (UpsKitError, OSError):  # the run ends for another reason, which is to be told
        return {}


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)


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
