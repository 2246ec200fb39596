"""The tracker of JSON lines: strict JSON, whole lines whatever happens, each step once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ups_kit.interfaces import Artefact, StageEvent, Table, TrackedRun
from ups_kit.trackers import Trackers, build_trackers
from ups_plugins.trackers import JsonLinesConfig


def _tracker(folder: Path, **keys: Any) -> Trackers:
    return Trackers(build_trackers([JsonLinesConfig(**keys)], folder))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _records(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line, parse_constant=_refuse) for line in path.read_text().splitlines()]
    assert all(record.pop("time").startswith("20") for record in records)
    return records


def test_every_kind_of_line(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    tracker.begin(TrackedRun("waves", tmp_path, False, {"run": {"seed": 3}, "dataset": {"path": Path("a.h5")}}))
    tracker.event("operator", StageEvent("began"))
    tracker.scalars("operator", 10, {"loss": float("nan"), "lr": 0.001})
    tracker.artefact("operator", Artefact("best", tmp_path / "operator" / "best_00000010", 10, 0.5))
    tracker.figure("evaluate", 0, "heat/rollout", Figure(figsize=(1, 1)))
    tracker.table("evaluate", 0, "card", Table(("forecast", "one step"), (("mean", float("inf")), ("model", 0.5))))
    tracker.end("finished", {"one_step/nrmse": 0.5})
    tracker.close()
    picture = "events/evaluate_00000000_heat_rollout.png"
    assert _records(tmp_path / "events.jsonl") == [
        {
            "kind": "begin",
            "run": "waves",
            "resumed": False,
            "recipe": {"run": {"seed": 3}, "dataset": {"path": "a.h5"}},
        },
        {"kind": "stage", "stage": "operator", "event": "began", "text": ""},
        {"kind": "scalars", "stage": "operator", "step": 10, "values": {"loss": None, "lr": 0.001}},
        {"kind": "artefact", "stage": "operator", "artefact": "best"}
        | {"path": "operator/best_00000010", "step": 10, "score": 0.5},
        {"kind": "figure", "stage": "evaluate", "step": 0, "name": "heat/rollout", "path": picture},
        {"kind": "table", "stage": "evaluate", "step": 0, "name": "card", "columns": ["forecast", "one step"]}
        | {"rows": [["mean", None], ["model", 0.5]]},
        {"kind": "end", "status": "finished", "metrics": {"one_step/nrmse": 0.5}},
    ]
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_a_resumed_stage_writes_each_step_once_and_leaves_others_alone(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    for step in (10, 20, 30):
        tracker.scalars("codec", step, {"loss": 1.0})
        tracker.scalars("operator", step, {"loss": 2.0})
        tracker.figure("operator", step, "rollout", Figure(figsize=(1, 1)))
    tracker.event("operator", StageEvent("preempted"))
    resumed = _tracker(tmp_path)
    resumed.forget_after("operator", 10)
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["operator_00000010_rollout.png"]
    resumed.scalars("operator", 20, {"loss": 3.0})
    records = _records(tmp_path / "events.jsonl")
    told = [(each["stage"], each["step"], each["values"]["loss"]) for each in records if each["kind"] == "scalars"]
    codec, operator = ([each for each in told if each[0] == name] for name in ("codec", "operator"))
    assert operator == [("operator", 10, 2.0), ("operator", 20, 3.0)]
    assert codec == [("codec", step, 1.0) for step in (10, 20, 30)]
    assert [each["event"] for each in records if each["kind"] == "stage"] == ["preempted"]


@pytest.mark.parametrize("rest", [b'{"kind": "scalars", "sta', b"\xff\xfe", b"[]\n", b"\n"])
def test_half_a_line_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    tracker = _tracker(tmp_path)
    tracker.scalars("operator", 10, {"loss": 1.0})
    whole = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(whole + rest)
    _tracker(tmp_path).scalars("operator", 20, {"loss": 1.0})
    assert [record["step"] for record in _records(tmp_path / "events.jsonl")] == [10, 20]


def test_a_process_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    """Without torch, so that it is killed again and again in a second or two."""
    code = (
        "import sys; from pathlib import Path; from ups_plugins.trackers.config import JsonLinesConfig\n"
        "tracker = JsonLinesConfig().build(Path(sys.argv[1]))\n"
        "for step in range(20000):\n"
        "    tracker.scalars('operator', step, {f'losses/{n}': step * n / 7 for n in range(40)})\n"
        "    print(flush=True)\n"
    )
    path, lines = tmp_path / "events.jsonl", 0
    for count in (20, 31, 47):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                for _ in range(count):
                    process.stdout.readline()
            finally:
                process.kill()
        assert path.read_bytes().endswith(b"\n")
        assert len(_records(path)) >= lines + count
        lines = len(_records(path))


@pytest.mark.parametrize(
    "path", ["../out.jsonl", "/tmp/out.jsonl", "out.txt", "a/../b.jsonl", ".jsonl", "metrics.jsonl"]
)
def test_the_file_stays_below_the_run_folder(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        JsonLinesConfig(path=path)


def test_a_file_in_a_folder_of_its_own(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path, path="told/run.jsonl", figures=False)
    tracker.figure("evaluate", 0, "rollout", Figure(figsize=(1, 1)))
    tracker.scalars("evaluate", 0, {"nrmse": 1.0})
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["told/run.jsonl"]
