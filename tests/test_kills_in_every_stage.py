"""Runs of every kind of stage, killed at random moments through the command line, end with the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

PIPELINES = Path(__file__).parent / "pipelines"
PATIENCE = 900.0  # seconds; a test that waits longer has failed


class Pipeline:
    """A recipe of tests/pipelines, run in a folder of its own on data that its runs share."""

    def __init__(self, name: str, training: Sequence[str], root: Path, steps: int) -> None:
        self.name = name
        self.steps = steps  # of every training stage; a checkpoint is written after every second one
        self.training = tuple(training)
        self.root = root

    def folder(self, home: str) -> Path:
        return self.root / home / self.name / "1"

    def command(self, home: str, *more: str) -> list[str]:
        settings = [
            f"run.folder={self.root / home}",
            f"dataset.path={self.root / 'data.h5'}",
            *(f"stages.{stage}.budget.steps={self.steps}" for stage in self.training),
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        return [sys.executable, "-m", "ups_kit", "run", str(PIPELINES / f"{self.name}.toml"), *options, *more]

    def started(self, home: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(home, *more),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, home: str, *more: str) -> str:
        """Run to the end; what was told on the way."""
        with self.started(home, *more) as process:
            _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, told
        return told

    def kill_in(self, home: str, stage: str, chance: random.Random) -> bool:
        """Start or go on, and kill at a random moment of a stage; whether it was still within it."""
        folder = self.folder(home)
        wanted = _newest_step(folder, stage) + chance.randrange(2, 20) if stage in self.training else None
        with self.started(home, *(["--resume"] if folder.exists() else [])) as process:
            _wait_for(lambda: self._is_there(folder, stage, wanted), process)
            time.sleep(chance.uniform(0, 0.02 if stage in self.training else 0.3))
            process.send_signal(signal.SIGKILL)
            assert process.wait(PATIENCE) == -signal.SIGKILL
        return not (folder / stage / "done.json").exists()

    def _is_there(self, folder: Path, stage: str, wanted: int | None) -> bool:
        if wanted is None:  # a stage that trains nothing: its folder is made when it begins
            return (folder / stage).exists()
        return _newest_step(folder, stage) >= wanted or (folder / stage / "done.json").exists()


def _wait_for(due: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look until something is there; a process that ends before, or takes too long, fails the test and is ended."""
    began = time.monotonic()
    while not due():
        if process.poll() is not None or time.monotonic() - began > PATIENCE:
            process.kill()
            raise AssertionError(process.stderr and process.stderr.read())
        time.sleep(0.002)


def _newest_step(folder: Path, stage: str) -> int:
    return max((int(entry.name[5:]) for entry in folder.glob(f"{stage}/checkpoints/step_*")), default=0)


def _logged(folder: Path) -> list[dict[str, Any]]:
    """What was logged, in order, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("second", "data_wait", "ms_per_step")
    return [{key: v for key, v in line.items() if not any(word in key for word in timed)} for line in lines]


def check_equal(pipeline: Pipeline, whole: str, killed: str) -> None:
    """Two runs have the same weights, the same bundle and the same findings."""
    ours, its = pipeline.folder(whole), pipeline.folder(killed)
    for name in (*(f"{stage}/model.safetensors" for stage in pipeline.training), "bundle/weights.safetensors"):
        assert (ours / name).read_bytes() == (its / name).read_bytes(), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (ours, its)]
    for key in ("status", "parameters", "metrics", "floors", "shuffle", "forecast"):
        assert summaries[0].get(key) == summaries[1].get(key), key
    for stage in pipeline.training:
        keys = [summary["stages"][stage]["key"] for summary in summaries]
        assert keys[0] == keys[1]
    bundles = [json.loads((folder / "bundle" / "bundle.json").read_text()) for folder in (ours, its)]
    for key in ("forecast", "trained", "fields", "normaliser", "splits", "sha256"):
        assert bundles[0][key] == bundles[1][key], key
    assert _logged(ours) == _logged(its)
    assert (its / "STATUS").read_text() == "finished\n"
    assert [entry.name for entry in its.parent.iterdir()] == ["1"]


def _times(stages: Sequence[str], times: int) -> list[str]:
    return [stage for stage in stages for _ in range(times)]


BURGERS = ("codec", "operator", "diffusion", "consistency")
DARCY = ("codec", "operator", "steady_prior")


@pytest.mark.parametrize(
    ("name", "training", "steps", "kills"),
    [
        ("burgers", BURGERS, 40, BURGERS),
        pytest.param("darcy", DARCY, 40, ["steady_prior"], marks=pytest.mark.slow),
        pytest.param("burgers", BURGERS, 160, [*_times(BURGERS, 12), "evaluate", "evaluate"], marks=pytest.mark.slow),
        pytest.param("darcy", DARCY, 160, [*_times(DARCY, 12), "evaluate"], marks=pytest.mark.slow),
    ],
    ids=["burgers", "darcy", "burgers, fifty kills", "darcy, forty kills"],
)
@pytest.mark.timeout(3600)
def test_a_pipeline_that_is_killed_in_every_stage_ends_with_the_same_bits(
    tmp_path: Path, name: str, training: Sequence[str], steps: int, kills: Sequence[str]
) -> None:
    pipeline, chance = Pipeline(name, training, tmp_path, steps), random.Random(len(kills))
    pipeline.finish("whole")
    within = sum(pipeline.kill_in("killed", stage, chance) for stage in kills)
    told = pipeline.finish("killed", "--resume")
    assert within >= len(set(kills)) / 2
    assert f"stage {training[0]}: finished before" in told
    check_equal(pipeline, "whole", "killed")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_from_a_stage_that_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed while it takes over, and in its stages; what it was taken from is left as it was."""
    pipeline, chance = Pipeline("burgers", BURGERS, tmp_path, 40), random.Random(1)
    pipeline.finish("whole")
    whole = pipeline.folder("whole")
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    command = ["--from", "diffusion", "--of", str(whole)]
    with pipeline.started("killed", *command) as process:
        _wait_for((pipeline.folder("killed") / "codec" / "done.json").exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    for stage in ("diffusion", "consistency", "evaluate"):
        pipeline.kill_in("killed", stage, chance)
    assert f"stage codec: taken over from {whole}" in pipeline.finish("killed", "--resume")
    check_equal(pipeline, "whole", "killed")
    assert all(path.read_bytes() == content for path, content in before.items())
