"""`upskit replicate`: which seeds are run, gone on with or taken, and what is said of their numbers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from ups_kit.cli import cli
from ups_kit.comparing.groups import Spread
from ups_kit.errors import UpsKitError, UsageError
from ups_kit.replicating import interval

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield tmp_path_factory.mktemp("home")
    torch.set_num_threads(threads)


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that were run: in this process, which spares the time of starting others."""
    commands: list[list[str]] = []

    def run(self: Any, command: Sequence[str], log: Path) -> int:
        commands.append(list(command[3:]))
        done = CliRunner().invoke(cli, command[3:], standalone_mode=False)
        if isinstance(done.exception, UpsKitError):
            log.write_text(str(done.exception))
            return done.exception.exit_code
        return int(done.return_value or 0)

    monkeypatch.setattr("ups_kit.replicating._Work._run", run)
    return commands


def settings(home: Path, *more: str) -> list[str]:
    tiny = ("stages.operator.budget.steps=10", "stages.operator.validate_every=5", "stages.evaluate.pictures=false")
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}", "run.threads=1")
    return [word for each in (*places, *tiny, *more) for word in ("--set", each)]


def upskit(home: Path, *words: str, more: Sequence[str] = ()) -> Result:
    arguments = ["replicate", str(RECIPES / "smoke.toml"), *settings(home, *more), *words]
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def replicated(home: Path, *words: str, more: Sequence[str] = ()) -> dict[str, Any]:
    done = upskit(home, *words, "--json", more=more)
    assert done.exception is None, done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_seeds_are_ordinary_runs_and_are_run_once(home: Path, began: list[list[str]]) -> None:
    first = replicated(home, "--seeds", "2")
    assert {seed: Path(each["folder"]).name for seed, each in first["seeds"].items()} == {"0": "1", "1": "2"}
    assert [command[-1] for command in began] == ["run.seed=0", "run.seed=1"]
    again = replicated(home, "--seeds", "1,0,4")
    assert [each["state"] for each in again["seeds"].values()] == ["taken", "taken", "finished"]
    assert len(began) == 3
    for seed, each in again["seeds"].items():
        assert json.loads((Path(each["folder"]) / "summary.json").read_text())["seed"] == int(seed)
        assert (Path(each["folder"]) / "STATUS").read_text() == "finished\n"
    others = replicated(home, "--seeds", "1", more=["latent.width=24"])  # another recipe of the same name
    assert others["seeds"]["0"]["state"] == "finished"
    assert others["seeds"]["0"]["folder"] not in [each["folder"] for each in again["seeds"].values()]


def test_numbers_are_means_with_students_interval(home: Path, began: list[list[str]]) -> None:
    found = replicated(home, "--seeds", "0,1,4")
    own = {
        seed: json.loads((Path(each["folder"]) / "summary.json").read_text())["card"]["rows"]
        for seed, each in found["seeds"].items()
    }
    for row, columns in found["numbers"].items():
        for column, cell in columns.items():
            values = [own[seed][row][column] for seed in own]
            assert list(cell["values"].values()) == values
            assert cell["mean"] == pytest.approx(statistics.fmean(values))
            half = 4.302653 * statistics.stdev(values) / 3**0.5  # the quantile of 2 degrees of freedom
            assert (cell["low"], cell["high"]) == pytest.approx((cell["mean"] - half, cell["mean"] + half), rel=1e-5)
    assert "splits" in found["note"]
    page = (Path(found["written"]) / "replicate.md").read_text()
    assert "| latent rollout, rollout |" in page
    assert json.loads((Path(found["written"]) / "replicate.json").read_text())["numbers"] == found["numbers"]


def test_interval_of_few() -> None:
    assert interval(Spread((1.0,))) is None
    assert interval(Spread((1.0, None))) is None
    low, high = interval(Spread((1.0, 3.0))) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 12.7062, 2 + 12.7062), rel=1e-5)  # t = 12.7062, of 1 degree of freedom


def test_a_run_that_was_stopped_goes_on_in_its_folder(home: Path, began: list[list[str]]) -> None:
    replicated(home, "--seeds", "2")
    folder = home / "runs/smoke/1"
    before = json.loads((folder / "summary.json").read_text())["metrics"]
    began.clear()
    (folder / "STATUS").write_text("preempted\n")
    shutil.rmtree(folder / "evaluate")
    found = replicated(home, "--seeds", "2")
    assert [command[1:] for command in began] == [[str(folder), "--resume"]]  # it is not the newest of its name
    assert found["seeds"]["0"] == {"folder": str(folder), "state": "finished", "exit_code": 0}
    assert json.loads((folder / "summary.json").read_text())["metrics"] == before


def test_a_seed_that_fails_is_named_and_the_others_go_on(
    home: Path, began: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ups_kit.replicating import _Work

    run = _Work._run

    def fails(self: Any, command: Sequence[str], log: Path) -> int:
        if "run.seed=7" not in command:
            return run(self, command, log)
        log.write_text("first\n" * 10 + "stage 'operator', step 3: not finite\n")
        return 5

    monkeypatch.setattr(_Work, "_run", fails)
    done = upskit(home, "--seeds", "7,0,1")
    assert done.return_value == 5
    assert "failed: seed 7" in done.stderr
    assert "step 3: not finite" in done.stderr
    assert "smoke: 2 seeds" in done.stdout


def test_below_its_floors_is_finished_with_7(home: Path, began: list[list[str]]) -> None:
    more = ['stages.evaluate.require_beating=["interpolation"]', "run.name=hard"]
    for _ in range(2):
        done = upskit(home, "--seeds", "1", "--json", more=more)
        assert done.return_value == 7
        (seed,) = json.loads(done.stdout)["seeds"].values()
        assert seed["exit_code"] == 7
    assert len(began) == 1


def test_damaged_papers_of_other_runs_do_no_harm(home: Path, began: list[list[str]]) -> None:
    other = home / "runs/smoke/99"
    other.mkdir(parents=True)
    (other / "resolved.json").write_text('{"values": 3}')
    try:
        assert [each["state"] for each in replicated(home, "--seeds", "2")["seeds"].values()] == ["taken", "taken"]
    finally:
        shutil.rmtree(other)


@pytest.mark.parametrize("text", ["0", "x", "-3", "1.5", "", "3,", "3,3", "1001", "9" * 30, "٣"])
def test_seeds_that_are_none(home: Path, text: str) -> None:
    done = upskit(home, "--seeds", text)
    assert isinstance(done.exception, UsageError)
    assert f"--seeds {text}" in str(done.exception)


def test_what_cannot_be_replicated(home: Path, tmp_path: Path) -> None:
    assert "--seeds" in str(upskit(home, more=["run.seed=3"]).exception)
    text = (RECIPES / "smoke.toml").read_text()
    assert "[stages.evaluate]" in text
    (tmp_path / "recipe.toml").write_text(
        text.replace('"burgers_upt.toml"', f'"{os.path.relpath(RECIPES / "burgers_upt.toml", tmp_path)}"')
        + "\n[encodr]\nx = 1\n"
    )
    wrong = CliRunner().invoke(cli, ["replicate", str(tmp_path / "recipe.toml")], standalone_mode=False)
    assert isinstance(wrong.exception, UpsKitError)
    assert not (tmp_path / "runs").exists()


def test_processes_side_by_side_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """SIGTERM: every run saves its state and ends as preempted, and so does the replication."""
    long = settings(tmp_path, "stages.operator.budget.steps=1000000")
    command = [sys.executable, "-m", "ups_kit", "replicate", str(RECIPES / "smoke.toml"), *long, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    runs = tmp_path / "runs/smoke"
    try:
        until = time.monotonic() + 120
        while len(list(runs.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, said
    assert "the same command goes on" in said
    assert [(path / "STATUS").read_text() for path in sorted(runs.glob("[0-9]*"))] == ["preempted\n"] * 2
