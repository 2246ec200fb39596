"""What a bundle says of its stages, and of what forecasts by default."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ups_kit
from ups_kit.bundle import DESCRIPTION, load_bundle, set_forecast
from ups_kit.errors import StorageError
from ups_kit.run import RunResult, run
from ups_plugins.upt.evaluation.stage import Evaluation

RECIPES = Path(__file__).parents[2] / "recipes"
CHOSEN = {"use": "operator", "steps": None, "members": 19, "why": "'diffusion' does not help"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunResult]:
    """A run whose evaluation chooses."""
    home, threads, whole = tmp_path_factory.mktemp("home"), torch.get_num_threads(), Evaluation.run
    tiny = ("stages.operator.budget.steps=12", "stages.operator.validate_every=12", "stages.evaluate.pictures=false")
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}")
    recipe = ups_kit.read_recipe(RECIPES / "smoke.toml", [*places, *tiny]).recipe
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Evaluation, "run", lambda self, *given: {**whole(self, *given), "forecast": CHOSEN})
        yield run(recipe)
    torch.set_num_threads(threads)


@pytest.fixture
def bundle(finished: RunResult, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished.folder / "bundle", tmp_path / "bundle"))


def change(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    description = json.loads((bundle / DESCRIPTION).read_text())
    edit(description)
    (bundle / DESCRIPTION).write_text(json.dumps(description))


def test_the_run_writes_what_its_evaluation_chose(finished: RunResult) -> None:
    found = load_bundle(finished.folder)
    assert found.forecast == CHOSEN
    assert found.trained == ("operator",)
    assert finished.summary["forecast"] == CHOSEN
    assert "forecast" not in finished.summary["stages"]["evaluate"]


def test_a_choice_changes_nothing_else(bundle: Path) -> None:
    before = json.loads((bundle / DESCRIPTION).read_text())
    set_forecast(bundle, {"use": "operator", "steps": None, "why": "so"})
    after = json.loads((bundle / DESCRIPTION).read_text())
    assert after == {**before, "forecast": {"use": "operator", "steps": None, "why": "so"}}
    assert {path.name for path in bundle.iterdir()} == {DESCRIPTION, "weights.safetensors"}


def test_a_bundle_from_before_forecasts_by_its_operator(bundle: Path) -> None:
    change(bundle, lambda description: [description.pop(key) for key in ("forecast", "trained")])
    found = load_bundle(bundle)
    assert found.forecast["use"] == "operator"
    assert found.trained == ("operator",)


@pytest.mark.parametrize("forecast", [{"use": "diffusion"}, {"steps": 2}, "operator", None])
def test_a_part_that_is_not_there_is_refused(bundle: Path, forecast: object) -> None:
    change(bundle, lambda description: description.update(forecast=forecast))
    with pytest.raises(StorageError, match=r"bundle.json: forecast: expected one by operator, got .*copy it again"):
        load_bundle(bundle)
