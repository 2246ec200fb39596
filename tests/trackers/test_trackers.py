"""Trackers as one: each is told what it can take, and one that fails costs nothing but itself."""

from __future__ import annotations

import json
import resource
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ups_kit.interfaces import Artefact, StageEvent, Table, TrackedRun
from ups_kit.trackers import MetricsFile, Trackers, build_trackers, final_metrics, known_metrics
from ups_plugins.trackers import JsonLinesConfig, TensorBoardConfig

CALLS: dict[str, Callable[[Any], object]] = {
    "begin": lambda one: one.begin(TrackedRun("run", Path(), False, {})),
    "event": lambda one: one.event("operator", StageEvent("began")),
    "scalars": lambda one: one.scalars("operator", 1, {"loss": 1.0}),
    "figure": lambda one: one.figure("operator", 1, "picture", Figure()),
    "table": lambda one: one.table("operator", 1, "card", Table(("a",), ((1.0,),))),
    "artefact": lambda one: one.artefact("operator", Artefact("best", Path())),
    "line": lambda one: one.line("text"),
    "forget_after": lambda one: one.forget_after("operator", 1),
    "end": lambda one: one.end("finished", {}),
    "close": lambda one: one.close(),
}


def _tell_all(trackers: Trackers, times: int = 1) -> None:
    for call in [*CALLS.values()] * times:
        call(trackers)


class Smallest:
    """What was there before there was anything else to take."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self.told.append("scalars")

    def figure(self, stage: str, step: int, name: str, figure: Figure) -> None:
        self.told.append("figure")

    def close(self) -> None:
        self.told.append("close")


class Everything(Smallest):
    """Takes all there is, and fails at one call."""

    def __init__(self, fails_at: str = "", error: BaseException | None = None) -> None:
        super().__init__()
        self._fails_at, self._error = fails_at, error

    def __getattribute__(self, name: str) -> Any:
        if name not in CALLS:
            return super().__getattribute__(name)

        def call(*args: object) -> None:
            if name == self._fails_at and self._error is not None:
                raise self._error
            self.told.append(name)

        return call


for _name in CALLS:  # a protocol looks at the class, too
    if not hasattr(Everything, _name):
        setattr(Everything, _name, None)


def test_a_tracker_is_told_what_it_can_take() -> None:
    smallest, everything = Smallest(), Everything()
    _tell_all(Trackers([smallest, everything]))
    assert smallest.told == ["scalars", "figure", "close"]
    assert everything.told == list(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_one_that_fails_is_switched_off_with_one_warning_and_the_others_go_on(name: str) -> None:
    failing, other = Everything(name, OSError(28, "No space left on device")), Everything()
    trackers = Trackers([failing, other])
    with pytest.warns(UserWarning, match="Everything failed and is switched off: .*No space left on device") as told:
        _tell_all(trackers, 2)
    assert len(told) == 1
    assert failing.told == list(CALLS)[: list(CALLS).index(name)]
    assert other.told == [*CALLS, *CALLS]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_a_request_to_stop_is_no_failure_of_a_tracker(error: BaseException) -> None:
    failing = Everything("scalars", error)
    trackers = Trackers([failing])
    with pytest.raises(type(error)):
        CALLS["scalars"](trackers)
    CALLS["close"](trackers)
    assert failing.told == ["close"]


def test_one_that_cannot_be_built_is_left_out(tmp_path: Path) -> None:
    class BrokenConfig:
        def build(self, folder: Path) -> Any:
            raise ModuleNotFoundError("No module named 'chalkboard'")

    with pytest.warns(UserWarning, match="Broken failed and is switched off: No module named 'chalkboard'") as told:
        built = build_trackers([BrokenConfig(), JsonLinesConfig()], tmp_path)
    assert [type(tracker).__name__ for tracker in built] == ["JsonLines"]
    assert len(told) == 1


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process can grow beyond this, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_switches_off_what_writes_to_it(tmp_path: Path) -> None:
    """By real errors of the kernel. TensorBoard's come out of its thread, which dies without a traceback."""
    other = Everything()
    built = build_trackers([TensorBoardConfig(flush_seconds=1), JsonLinesConfig()], tmp_path)
    trackers = Trackers([MetricsFile(tmp_path / "metrics.jsonl"), *built, other])
    with warnings.catch_warnings(record=True) as told, files_of_at_most(4096):
        warnings.simplefilter("always")
        for step in range(400):
            trackers.scalars("operator", step, {"loss": 1.0, "lr": 0.001})
        trackers.event("operator", StageEvent("finished"))
        trackers.close()
    switched_off = [str(each.message).split(" ")[0] for each in told if "switched off" in str(each.message)]
    assert sorted(switched_off) == ["JsonLines", "MetricsFile", "TensorBoard"]
    assert other.told == ["scalars"] * 400 + ["event", "close"]
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") and json.loads(line)["kind"] == "scalars" for line in lines)
    assert 10 < len(lines) < 400


def test_the_plain_values_of_a_recipe() -> None:
    recipe = {
        "run": {"name": "waves", "seed": 3, "threads": None},
        "dataset": {"use": "files", "range": [0.001, 0.1]},
        "stages": [{"use": "operator", "name": "operator", "budget": {"steps": 20}}, {"use": "evaluate", "floors": []}],
        "odd": {"nan": float("nan"), "yes": True},
    }
    assert TrackedRun("waves", Path(), False, recipe).plain() == {
        "run.name": "waves",
        "run.seed": 3,
        "dataset.use": "files",
        "dataset.range": "[0.001, 0.1]",
        "stages.operator.use": "operator",
        "stages.operator.name": "operator",
        "stages.operator.budget.steps": 20,
        "stages.evaluate.use": "evaluate",
        "stages.evaluate.floors": "[]",
        "odd.nan": "nan",
        "odd.yes": True,
    }


def test_the_final_metrics_are_the_finite_numbers(tmp_path: Path) -> None:
    summary = {
        "metrics": {"one_step": {"nrmse": 0.5, "worst": None, "curve": [1.0, 2.0], "bad": float("inf"), "ok": True}},
        "stages": {"operator": {"best_score": 0.25}, "codec": {"best_score": float("inf")}, "evaluate": {}},
    }
    assert final_metrics(summary) == {"one_step/nrmse": 0.5, "operator/best_score": 0.25}
    assert known_metrics(tmp_path / "summary.json") == {}
    (tmp_path / "summary.json").write_text("{half")
    assert known_metrics(tmp_path / "summary.json") == {}
