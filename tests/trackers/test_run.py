"""What trackers are told of a whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ups_kit
from ups_kit.errors import DivergedError
from ups_kit.run import RunResult, run
from ups_plugins.trackers import JsonLinesConfig, TensorBoardConfig
from ups_plugins.trackers.tensorboard import TensorBoard

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.toml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    yield tmp_path_factory.mktemp("home")
    torch.set_num_threads(threads)


def _recipe(home: Path, *settings: str) -> ups_kit.Recipe:
    tiny = ("budget.steps=20", "validate_every=10", "checkpoint_every=10")
    places = (f"run.folder={home}", f"dataset.path={home / 'smoke.h5'}", "stages.evaluate.pictures=false")
    found = ups_kit.read_recipe(SMOKE, [*places, *(f"stages.operator.{key}" for key in tiny), *settings]).recipe
    return attrs.evolve(found, trackers=(TensorBoardConfig(), JsonLinesConfig()))


def _told(folder: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


@pytest.fixture(scope="module")
def finished(home: Path) -> RunResult:
    return run(_recipe(home))


def test_a_training_tells_every_number_that_the_page_names(finished: RunResult) -> None:
    """Loss and all its terms, rate, gradient, throughput, time since it got better."""
    lines = [line for line in _told(finished.folder, "scalars") if line["stage"] == "operator"]
    first = lines[0]["values"]
    terms = {f"losses/{name}" for name in ("forward", "inverse_encoding")}
    speed = {"samples_per_second", "data_wait", "seconds", "fraction", "epoch", "epochs_since_improvement"}
    assert {"loss", "lr", "grad_norm", *terms, *speed} <= set(first)
    assert any("validation/score" in line["values"] for line in lines)
    written = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    told = [
        {"stage": line["stage"], "step": line["step"], **line["values"]} for line in _told(finished.folder, "scalars")
    ]
    assert told == written


def test_begin_stages_files_and_end(finished: RunResult) -> None:
    folder = finished.folder
    ((begin,), (end,)) = _told(folder, "begin"), _told(folder, "end")
    assert (begin["run"], begin["resumed"], begin["recipe"]["latent"]["width"]) == ("smoke", False, 16)
    stages = [(line["stage"], line["event"]) for line in _told(folder, "stage")]
    assert stages == [(name, event) for name in ("operator", "evaluate") for event in ("began", "finished")]
    files = [(line["artefact"], line["step"]) for line in _told(folder, "artefact")]
    assert [each for each in files if each[0] != "best"] == [
        ("checkpoint", 10),
        ("checkpoint", 20),
        ("weights", None),
        ("bundle", None),
        ("report", None),
    ]
    assert ("best", 10) in files
    assert all((folder / line["path"]).exists() for line in _told(folder, "artefact") if line["artefact"] != "best")
    (card,) = [line for line in _told(folder, "table") if line["name"] == "card"]
    rows = {name: dict(zip(card["columns"][1:], values, strict=True)) for name, *values in card["rows"]}
    assert rows == finished.summary["card"]["rows"]
    assert end["status"] == "finished"
    assert end["metrics"]["one_step/nrmse"] == finished.summary["metrics"]["one_step"]["nrmse"]
    assert end["metrics"]["operator/best_score"] == finished.summary["stages"]["operator"]["best_score"]


def test_tensorboard_holds_the_same_numbers(finished: RunResult) -> None:
    events = EventAccumulator(str(finished.folder / "tensorboard" / "operator"))
    events.Reload()
    lines = [
        line for line in _told(finished.folder, "scalars") if line["stage"] == "operator" and "loss" in line["values"]
    ]
    told = [(line["step"], pytest.approx(line["values"]["loss"], rel=1e-6)) for line in lines]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == told
    own = EventAccumulator(str(finished.folder / "tensorboard"))
    own.Reload()
    assert "_hparams_/session_start_info" in own.PluginTagToContent("hparams")


def test_a_run_that_diverges_says_so_and_a_tracker_that_fails_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "scalars", fail)
    recipe = _recipe(home, "run.name=diverging", "stages.operator.log_every=1", "run.seed=2")
    monkeypatch.setattr("ups_kit.fit.loop.clip_gradients", _nan_from_the_third_on())
    with (
        pytest.warns(UserWarning, match="TensorBoard failed and is switched off: .*No space left on device") as told,
        pytest.raises(DivergedError),
    ):
        run(recipe)
    folder = home / "diverging" / "1"
    assert len([each for each in told if "switched off" in str(each.message)]) == 1
    assert [line["step"] for line in _told(folder, "scalars")] == [1, 2]
    ((end,), stages) = _told(folder, "end"), _told(folder, "stage")
    assert (end["status"], [line["event"] for line in stages]) == ("diverged", ["began", "diverged"])
    assert "not finite: grad_norm" in stages[-1]["text"]


def _nan_from_the_third_on() -> Any:
    calls = iter(range(100))
    return lambda weights, clip: torch.tensor(float("nan") if next(calls) >= 2 else 1.0)
