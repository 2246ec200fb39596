"""Runs of wandb that never leave the machine, read back from the files that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from ups_kit.interfaces import Artefact, StageEvent, Table, TrackedRun
from ups_wandb import WandbConfig

RECIPE = Path(__file__).parents[1] / "recipes" / "tracked.toml"
READ = Callable[[Path], list[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with a checkpoint."""
    checkpoint = tmp_path / "waves" / "1" / "operator" / "best_00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(b"weights")
    return tmp_path / "waves" / "1"


def begun(folder: Path, resumed: bool = False, **keys: Any) -> Any:
    """A tracker at the beginning of a run."""
    tracker: Any = WandbConfig(**keys).build(folder)
    recipe = {"run": {"seed": 3}, "stages": [{"use": "operator", "name": "first", "lr": 0.1}, {"use": "evaluate"}]}
    tracker.begin(TrackedRun("waves", folder, resumed, recipe))
    return tracker


def test_everything_that_is_told_is_written(folder: Path, written: READ) -> None:
    started = time.monotonic()
    tracker = begun(folder, project="waves", group="seeds", tags=("a", "b"), notes="why", upload_checkpoints="all")
    tracker.event("operator", StageEvent("began"))
    for step in (10, 20, 30):
        tracker.scalars("operator", step, {"loss": 1 / step, "lr": 0.001})
    tracker.artefact("operator", Artefact("best", folder / "operator" / "best_00000010", 10, 0.5))
    tracker.figure("evaluate", 0, "rollout", Figure(figsize=(1, 1)))
    tracker.table("evaluate", 0, "card", Table(("forecast", "one step"), (("model", 0.25), ("mean", None))))
    tracker.event("operator", StageEvent("diverged", "loss: nan"))
    tracker.end("finished", {"one_step/nrmse": 0.25})
    told = time.monotonic() - started
    (folder / "operator" / "best_00000010" / "state.pt").unlink()  # as a newer checkpoint does
    tracker.close()
    (run,) = written(folder)
    assert told < 0.5  # a training is not kept waiting while wandb is imported and begins
    assert (run.run.project, run.run.display_name, run.run.run_group) == ("waves", "waves/1", "seeds")
    assert (list(run.run.tags), run.run.notes) == (["a", "b"], "why")
    assert run.config["run"] == {"seed": 3}
    stages = {"first": {"use": "operator", "name": "first", "lr": 0.1}, "evaluate": {"use": "evaluate"}}
    assert run.config["stages"] == stages
    assert run.curve("operator", "loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert run.alerts == [("operator: began", "INFO"), ("operator: diverged", "ERROR")]
    assert (run.summary["one_step/nrmse"], run.summary["status"]) == (0.25, "finished")
    assert run.exit_codes == [0]
    (artifact,) = run.artifacts
    assert (artifact.type, set(artifact.aliases)) == ("model", {"best", "step-10", "latest"})
    assert json.loads(artifact.metadata)["score"] == 0.5
    (content,) = artifact.manifest.contents
    assert (content.path, Path(content.local_path).read_bytes()) == ("state.pt", b"weights")
    (picture,) = (folder / "wandb").glob("offline-run-*/files/media/images/evaluate/rollout*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    (table,) = (folder / "wandb").glob("offline-run-*/files/media/table/evaluate/card*.json")
    assert json.loads(table.read_text())["data"] == [["model", 0.25], ["mean", None]]


def test_a_resumed_run_is_the_same_run(folder: Path, written: READ) -> None:
    for resumed in (False, True):
        tracker = begun(folder, resumed)
        tracker.scalars("operator", 10 + 10 * resumed, {"loss": 1.0})
        tracker.end("finished" if resumed else "preempted", {})
        tracker.close()
    first, second = written(folder)
    assert first.run.run_id == second.run.run_id
    assert first.curve("operator", "loss") + second.curve("operator", "loss") == [(10, 1.0), (20, 1.0)]


def test_a_training_that_is_killed_leaves_what_it_told(folder: Path, written: READ) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ups_wandb import WandbConfig\n"
        "tracker = WandbConfig().build(Path(sys.argv[1]))\n"
        "for step in range(5): tracker.scalars('operator', step, {'loss': 1.0})\n"
        "while tracker._link._messages.qsize(): pass\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -9
    waited = time.monotonic()
    while not [run for run in written(folder) if run.exit_codes] and time.monotonic() - waited < 20:
        time.sleep(0.2)
    (run,) = written(folder)
    assert run.curve("operator", "loss") == [(step, 1.0) for step in range(5)]
    assert run.exit_codes == [255]


def test_a_whole_run(tmp_path: Path, written: READ) -> None:
    """By the recipe that comes with the distribution, through the command line."""
    settings = [f"run.folder={tmp_path}", f"dataset.path={tmp_path / 'tracked.h5'}", "stages.evaluate.pictures=false"]
    command = [sys.executable, "-m", "ups_kit", "run", str(RECIPE), *(x for each in settings for x in ("--set", each))]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "switched off" not in done.stderr
    folder = tmp_path / "tracked" / "1"
    (run,) = written(folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [(line["step"], line["loss"]) for line in lines if line["stage"] == "operator" and "loss" in line]
    assert run.curve("operator", "loss") == told
    assert [step for step, _ in told] == [10, 20, 30, 40]
    summary = json.loads((folder / "summary.json").read_text())
    assert run.summary["one_step/nrmse"] == summary["metrics"]["one_step"]["nrmse"]
    assert run.summary["status"] == "finished"
    assert run.config["stages"]["operator"]["budget"]["steps"] == 40
    assert [title for title, _ in run.alerts] == [
        "operator: began",
        "operator: finished",
        "evaluate: began",
        "evaluate: finished",
    ]
    stored = {each.name.rsplit("-", 1)[0]: each for each in run.artifacts}
    assert set(stored) == {"operator-weights", "operator-bundle", "evaluate-report"}
    (weights,) = stored["operator-weights"].manifest.contents
    assert Path(weights.local_path).read_bytes() == (folder / "operator" / "model.safetensors").read_bytes()
    card = [row for row in run.history if any(key.startswith("evaluate/card") for key in row)]
    assert len(card) == 1
