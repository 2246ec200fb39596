"""Training on a mixture: per-task validation, calibration, resumption to the same bits, bundles, a whole run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from ups_kit import Queries, load
from ups_kit.assemble import check
from ups_kit.cli.recipes import validate
from ups_kit.errors import DataError, Preempted, RecipeError
from ups_kit.fit import loop
from ups_kit.fit.batches import TrainingWindows
from ups_kit.fit.settings import Budget
from ups_kit.folder import RunFolder, StageFolder
from ups_kit.metrics import nrmse
from ups_kit.model import LatentModel
from ups_kit.reading import read_recipe
from ups_kit.recipe import Run
from ups_kit.run import run
from ups_kit.trackers import Trackers
from ups_plugins.mixture.dataset import Mixture
from ups_plugins.optim import CosineScheduleConfig, MuonConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig, RolloutConfig
from ups_plugins.upt.training.config import OperatorStageConfig
from ups_plugins.upt.training.stages import calibrate, check_horizons
from ups_plugins.upt.training.validation import codec_validation, rollout_validation

Build = Callable[..., LatentModel]
CPU = torch.device("cpu")
LOSSES = {"forward": ForwardConfig(error="relative"), "inverse_encoding": InverseEncodingConfig(error="relative")}


def stage(**keys: Any) -> OperatorStageConfig:
    settings: dict[str, Any] = {
        "budget": Budget(steps=12),
        "optimizer": MuonConfig(),
        "schedule": CosineScheduleConfig(warmup=3),
        "batch": 6,
        "validate_every": 4,
        "checkpoint_every": 3,
        "validation_steps": 3,
        "losses": LOSSES,
    }
    return OperatorStageConfig(**(settings | keys))


def experiment(mixture: Mixture, model: LatentModel) -> Any:
    recipe = SimpleNamespace(run=Run(name="tiny"), stages=(), latent_cache=None)
    return SimpleNamespace(dataset=mixture, model=model, device=CPU, recipe=recipe)


def folder(path: Path, resume: bool = False) -> StageFolder:
    path.mkdir(exist_ok=True)
    return RunFolder(path).stage("operator", resume)


def same(one: nn.Module, other: nn.Module) -> bool:
    states: tuple[Mapping[str, torch.Tensor], ...] = (one.state_dict(), other.state_dict())
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_stopped_training_resumes_to_the_same_bits(
    mixture: Mixture, make_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    config = stage(accumulation=accumulation)
    whole, stopped, resumed = (experiment(mixture, make_model(mixture)) for _ in range(3))
    result = config.build().run(whole, folder(tmp_path / "whole"), Trackers([]))
    plain = loop.training_step

    def killed(fitting: Any, batch: Any) -> None:
        if fitting.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(fitting, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", killed)
        with pytest.raises(Preempted):
            config.build().run(stopped, folder(tmp_path / "stopped"), Trackers([]))
    again = config.build().run(resumed, folder(tmp_path / "stopped", resume=True), Trackers([]))
    assert same(whole.model, resumed.model)
    assert again["last_validation"] == result["last_validation"]


def test_the_score_is_the_mean_of_the_tasks_own(mixture: Mixture, make_model: Build) -> None:
    model = make_model(mixture).eval()
    for build in (
        lambda data: rollout_validation(data, CPU, 3, 50, 6),
        lambda data: rollout_validation(data, CPU, 3, 50, 6, reencoded=True),
        lambda data: codec_validation(data, CPU, 50, 6),
    ):
        with torch.no_grad():
            found = build(mixture)(model)
            alone = {name: build(task)(mixture.seen_by(name, model)) for name, task in mixture.tasks.items()}
        for name, values in alone.items():
            assert {key: found[f"{name}/{key}"] for key in values} == values
        assert found["score"] == pytest.approx(sum(values["score"] for values in alone.values()) / 2)
        assert alone["burgers"]["score"] != alone["waves"]["score"]


def test_a_task_s_own_forecast_is_in_its_own_units(mixture: Mixture, make_model: Build) -> None:
    model = make_model(mixture).eval()
    view, task = mixture.seen_by("waves", model), mixture.tasks["waves"]
    batch = task.batch("validation", np.arange(3), 3)
    with torch.no_grad():
        frames = view.reencoded_rollout(batch.inputs, batch.condition, 2)
        latents = view.rollout(view.encode(batch.inputs), batch.condition, 2)
        last = view.decode(latents[-1], Queries(batch.positions, batch.grid))
    assert frames[0].shape == last.shape == (3, 32, 1)
    held = task.trajectories("validation")
    truth = task.normaliser.physical(batch.states[:, 0])
    assert float((truth - 3).abs().max()) > 4, "physical units"
    assert held.values.shape[-2:] == (32, 1)
    assert float(nrmse(truth[:, None], held.values[:1, :1].expand(3, -1, -1, -1), [0])[0, 0]) < 1e-5


def test_each_task_calibrates_its_own_channels(mixture: Mixture, make_model: Build) -> None:
    models = [make_model(mixture) for _ in range(2)]
    examples = []
    for name, task in mixture.tasks.items():
        batch = task.batch("train", np.arange(task.windows("train", 1)), 1)
        with torch.no_grad():
            examples.append(mixture.seen_by(name, models[0]).example(batch))
    models[0].decoder.calibrate(examples)  # type: ignore[operator]
    models[1].decoder.calibrate(examples[1:])  # type: ignore[operator]
    both, waves, fresh = (
        model.decoder.linear.weight.unflatten(0, (2, -1))  # type: ignore[operator, union-attr]
        for model in (*models, make_model(mixture))
    )
    assert torch.equal(both[1], waves[1]), "what one task has not is no zero to fit"
    assert torch.equal(waves[0], fresh[0]), "and what no example has stays"
    assert not torch.equal(both[0], fresh[0])


def test_a_calibrated_decoder_undoes_the_encoder_for_every_task(mixture: Mixture, make_model: Build) -> None:
    model = make_model(mixture, fresh=True).eval()
    validation = codec_validation(mixture, CPU, 50, 6)
    with torch.no_grad():
        before = validation(model)
        windows = TrainingWindows(dataset=mixture, steps=1, batch=6, seed=0, stage="operator", shift=True, device=CPU)
        calibrate(experiment(mixture, model), windows)
        after = validation(model)
    for name in ("burgers/score", "waves/score"):
        assert after[name] < 0.2 < before[name]


def test_every_task_is_as_long_as_the_losses_look_ahead(mixture: Mixture) -> None:
    term = SimpleNamespace(name="far", loss=RolloutConfig(horizon=6).build(mixture.fields))
    with pytest.raises(DataError, match=r"longest train trajectory of dataset\.tasks\.burgers has 6"):
        check_horizons([term], mixture, "operator")  # type: ignore[list-item]


# ---------------------------------------------------------------------------------------------------------------------
# Recipes
# ---------------------------------------------------------------------------------------------------------------------
RECIPE = """
[run]
name = "two"
folder = "{folder}"
threads = 1
device = "cpu"

[dataset]
use = "mixture"
weights = {{ burgers = 2.0, waves = 1.0 }}

[dataset.tasks.burgers]
use = "pdebench"
path = "{folder}/made.h5"
fields = ["speed"]
train = 10
validation = 2
test = 2
simulate = {{ use = "burgers1d", trajectories = 14, points = 64, frames = 5, refinement = 1, device = "cpu" }}

[dataset.tasks.waves]
use = "pdebench"
path = "{waves}"
fields = ["wave"]
validation = 2
test = 2

[latent]
width = 8

[encoder]
use = "grid"
patch_size = 4

[operator]
use = "transformer"
depth = 1

[decoder]
use = "partition"
modes = 5

[[stages]]
use = "operator"
batch = 4
budget = {{ steps = 20 }}
optimizer = {{ use = "muon" }}
validate_every = 10
losses = {{ forward = {{ error = "relative" }}, inverse_encoding = {{}} }}

[[stages]]
use = "evaluate"
pictures = false
require_beating = []
"""


@pytest.fixture
def recipe(tmp_path: Path, files: dict[str, Path]) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(RECIPE.format(folder=tmp_path, waves=files["waves"]))
    return path


def test_a_whole_run_of_two_tasks(recipe: Path, tmp_path: Path) -> None:
    read = read_recipe(recipe)
    before = read.recipe.dataset.describe()
    result = run(read.recipe, recipe_text=read.text, origins=read.origins, catalog=read.catalog)
    assert read.recipe.dataset.describe() == before, "the made file is what the simulator said it would be"
    assert [field.name for field in before.targets] == ["speed", "wave"]
    logged = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in logged for name in (line.get("values") or line)}
    for task in ("burgers", "waves"):
        assert f"validation/{task}/score" in names
    evaluated = result.summary["tasks"]
    assert list(evaluated) == ["burgers", "waves"]
    own = [task["metrics"]["latent_rollout"]["nrmse"] for task in evaluated.values()]
    assert result.summary["metrics"]["latent_rollout"]["nrmse"] == pytest.approx(sum(own) / 2)
    bundle = load(result.folder)
    assert list(bundle.tasks) == ["burgers", "waves"]
    assert bundle.description["splits"]["digest"]
    dataset = read.recipe.dataset.build(read.recipe.run.seed)
    assert isinstance(dataset, Mixture)
    held = dataset.tasks["waves"].trajectories("test")
    speed = float(held.parameters[0, 1])
    predicted = bundle.predict(held.values[:1, :1], {"beta": speed}, 3, task="waves")
    assert predicted.shape == (1, 3, 32, 1)
    batch = dataset.tasks["waves"].batch("test", np.array([0]), 3)
    view = dataset.seen_by("waves", bundle.model)
    with torch.no_grad():
        latents = view.rollout(view.encode(batch.inputs), batch.condition, 3)
        last = view.decode(latents[-1], Queries(batch.positions, batch.grid))
    torch.testing.assert_close(predicted[:, -1], dataset.tasks["waves"].normaliser.physical(last), rtol=1e-4, atol=1e-4)
    frames = dataset.tasks["burgers"].trajectories("test").values[:1, 0]
    assert bundle.predict(frames, {"epsilon": 0.01}, 1, task="burgers").shape == (1, 1, 64, 1)
    with pytest.raises(DataError, match="say which: burgers, waves"):
        bundle.predict(frames, {"epsilon": 0.01}, 1)
    with pytest.raises(DataError, match="did you mean 'waves'"):
        bundle.predict(frames, {"epsilon": 0.01}, 1, task="wave")


def test_parts_are_checked_against_every_task(recipe: Path) -> None:
    problems = check(read_recipe(recipe, ["encoder.patch_size=64", "latent.tokens=1"]).recipe)
    assert [(problem.path, "(dataset.tasks.waves)" in problem.message) for problem in problems] == [
        ("encoder.patch_size", True)
    ]
    assert "a grid of 32" in problems[0].message
    both = check(read_recipe(recipe, ["encoder.patch_size=5"]).recipe)
    assert [problem.path for problem in both] == ["encoder.patch_size"] * 2
    assert check(read_recipe(recipe).recipe) == []
    few = check(read_recipe(recipe, ["dataset.tasks.burgers.train=100"]).recipe)
    assert [problem.path for problem in few] == ["dataset.tasks.burgers.train"]


def test_validate_shows_the_whole_and_its_tasks(recipe: Path) -> None:
    shown = CliRunner().invoke(validate, [str(recipe), "--data"]).output
    assert "fields      speed, wave" in shown
    assert "task burgers: grid 64, time step 0.5" in shown
    assert "task waves: grid 32, time step 0.05" in shown


def test_keys_of_a_task_are_set_extended_and_told_apart(recipe: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.toml"
    child.write_text('extends = "two.toml"\n[dataset.tasks.waves]\ntest = 3\n')
    read = read_recipe(child, ["dataset.tasks.burgers.train=6", "dataset.weights.burgers=5"])
    dataset: Any = read.recipe.dataset
    assert (dataset.tasks["waves"].test, dataset.tasks["waves"].validation) == (3, 2)
    assert (dataset.tasks["burgers"].train, dataset.weights) == (6, {"burgers": 5.0, "waves": 1.0})
    assert read.origins["dataset.tasks.burgers.train"].startswith("--set")
    with pytest.raises(RecipeError) as found:
        read_recipe(recipe, ["dataset.tasks.burgers.trian=6", "dataset.tasks.waves.simulate.use=burgers2d"])
    paths = [problem.path for problem in found.value.problems]
    assert paths == ["dataset.tasks.burgers.trian", "dataset.tasks.waves.simulate"]
    assert "did you mean 'train'" in str(found.value)
    with pytest.raises(RecipeError) as found:
        read_recipe(recipe, ["dataset.weights.wave=1"])
    assert [problem.path for problem in found.value.problems] == ["dataset.weights"]
