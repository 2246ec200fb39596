"""`upskit import-config`: recipes that validate, data of all kinds, files that are written whole, and a run."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from ups_kit.cli import cli
from ups_kit.cli.recipes import check_parts
from ups_kit.errors import RecipeError, StorageError, UsageError
from ups_kit.moving_in.importing import Imported
from ups_kit.moving_in.tasks import TASKS
from ups_kit.reading import read_recipe

from .conftest import EVERY_KEY

BURGERS = """\
# a configuration as many people had it
seed: 7
data:
  task: burgers1d
  root: data/pdebench
  patch_size: 1
latent: {dim: 32, tokens: 16}
operator:
  architecture_type: pdet_stack
  pdet: {input_dim: 32, hidden_dim: 64, depth: 2, num_heads: 4}
training:
  batch_size: 8
  dt: 0.1
  use_inverse_losses: true
  lambda_inv_enc: 0.5
  lambda_inv_dec: 0.1
  inverse_loss_warmup_epochs: 0
  inverse_loss_max_weight: 1.0
  query_sampling: {enabled: true, num_queries: 2048}
stages:
  operator:
    epochs: 2
    optimizer: {name: adamw, lr: 1e-3}
    scheduler: {name: StepLR, step_size: 1, gamma: 0.5}
checkpoint: {dir: runs}
"""


def called(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["import-config", *map(str, arguments)])


def valid(path: Path) -> Any:
    read = read_recipe(path)
    check_parts(read)
    return read.recipe


def test_a_yaml_of_every_key_becomes_a_recipe_that_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = called(EVERY_KEY, "--out", "recipes/new.toml", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.output)
    assert record["problems"] == []
    assert sum(len(keys) for keys in record["keys"].values()) > 200
    told = {each["path"]: each for each in record["keys"]["elsewhere"]}
    assert "periodic" in told["training.physics_priors.lambda_boundary"]["remark"]
    assert "'rho'" in told["training.physics_priors.lambda_positivity"]["remark"]
    recipe = valid(Path("recipes/new.toml"))
    assert [stage.name for stage in recipe.stages] == ["codec", "operator", "diffusion", "consistency", "evaluate"]
    assert recipe.dataset.path == tmp_path / "data/pdebench/burgers1d.h5"
    assert recipe.latent_cache.folder == tmp_path / "data/latent_cache"


def test_the_account_stands_at_the_head_and_on_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(f"{BURGERS}ttc: {{steps: 3}}\n".replace("  dt:", "  pacience: 5\n  dt:"))
    done = called("old.yaml")
    assert done.exit_code == 0, done.output
    text = Path("old.toml").read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.split("\n\n")[0].splitlines())
    for words in (
        "latent.dim = 32 -> latent.width",
        "latent.tokens = 16 -> encoder.patch_size: patches of 16: 16 tokens of 256 points",
        "training.pacience = 5: did you mean training.patience?",
        "ttc.steps = 3: no candidates are searched",
        "training.dt = 0.1: the time step is the data's",
        "stages.operator.scheduler.step_size = 1 -> stages.operator.schedule.steps: 5000 steps: 1 epochs",
    ):
        assert words in head
        assert words in " ".join(done.output.split())
    assert all(len(line) <= 120 for line in text.splitlines() if line.startswith("#"))
    assert valid(Path("old.toml")).run.name == "old"


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.simulate])
@pytest.mark.parametrize("shape", ["pdet_unet", "pdet_stack"])
def test_tasks_that_are_simulated_are_valid(imported: Callable[[str], Imported], task: str, shape: str) -> None:
    text = f"""\
data: {{task: {task}}}
operator: {{architecture_type: {shape}}}
training: {{use_inverse_losses: true, lambda_inv_enc: 1, lambda_inv_dec: 1, lambda_rollout: 1, lambda_spectral: 1,
  physics_priors: {{enabled: true, lambda_divergence: 1, lambda_conservation: 1, lambda_boundary: 1,
    lambda_positivity: 1, lambda_latent_norm: 1, lambda_latent_diversity: 1}}}}
stages: {{operator: {{epochs: 2}}, diff_residual: {{epochs: 2}}, consistency_distill: {{}}, steady_prior: {{}}}}
"""
    found = imported(text)
    assert found.problems == ()
    steady = ["codec", "operator", "steady_prior", "evaluate"]
    text = found.text.split("recipe_version")[1]
    uses = [stage.split('"')[1] for stage in text.split("[[stages]]\n")[1:]]
    assert uses == (steady if TASKS[task].steady else ["operator", "diffusion", "consistency", "evaluate"])
    assert ("divergence = " in text) == (task == "navier_stokes2d" or TASKS[task].dims == 1)
    assert ("boundary = " in text) == (task not in ("navier_stokes2d",) and TASKS[task].dims == 2)


def test_tasks_that_are_alike_are_a_mixture(imported: Callable[[str], Imported]) -> None:
    found = imported("data: {task: [burgers1d, advection1d, darcy2d]}\nstages: {operator: {epochs: 1}}\n")
    assert found.problems == ()
    assert '[dataset]\nuse = "mixture"' in found.text
    assert "[dataset.tasks.burgers1d.simulate]" in found.text
    assert "import a run of its own for darcy2d" in " ".join(found.settings.added)


@pytest.mark.parametrize("use", ["mesh_zarr", "particle_zarr", "grid_zarr"])
def test_stores_are_named_as_they_lie(imported: Callable[[str], Imported], use: str) -> None:
    kind = {"mesh_zarr": "mesh", "particle_zarr": "particles", "grid_zarr": "grid"}[use]
    found = imported(f"data: {{kind: {kind}, path: stores/all.zarr, group: a}}\nstages: {{operator: {{epochs: 1}}}}\n")
    assert found.fits
    assert found.problems[0].in_data
    assert f'use = "{use}"\npath = "stores/all.zarr/a"' in found.text


def test_data_that_are_there_size_the_recipe(tmp_path: Path, imported: Callable[[str], Imported]) -> None:
    """A file of few trajectories on another grid: no simulator, patches of that grid, and splits that it has."""
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data/burgers1d.h5", "w") as file:
        file["tensor"] = np.random.default_rng(0).random((12, 4, 48), dtype=np.float32)
        file["x-coordinate"] = (np.arange(48) + 0.5) / 48
        file["t-coordinate"] = np.arange(4) * 0.1
    found = imported("data: {task: burgers1d}\nlatent: {dim: 32, tokens: 12}\nstages: {operator: {epochs: 1}}\n")
    assert found.problems == ()
    assert "simulate]" not in found.text
    assert "patch_size = 4" in found.text
    assert "validation = 1\ntest = 2" in found.text


def test_a_task_of_ones_own_is_read_as_fields_on_a_grid(imported: Callable[[str], Imported]) -> None:
    written = re.sub("task: .*", "task: my_own", EVERY_KEY.read_text())
    found = imported(written)
    assert found.fits
    assert [problem.path for problem in found.problems] == ["dataset.path"]  # it is not there yet
    assert "sampler = {use" in found.text
    assert tomllib.loads(found.text)["dataset"]["path"].endswith("my_own.h5")


def test_neither_task_nor_path_is_told(imported: Callable[[str], Imported]) -> None:
    with pytest.raises(RecipeError, match=r"data.task: missing; expected a task, for example burgers1d"):
        imported("latent: {dim: 32}\n")


def test_an_operator_that_is_skipped_is_told(imported: Callable[[str], Imported]) -> None:
    with pytest.raises(RecipeError, match=r"stages.operator.epochs \(line 2\): 0 epochs"):
        imported("data: {task: burgers1d}\nstages: {operator: {epochs: 0}}\n")


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------
def test_what_is_there_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(BURGERS)
    Path("new.toml").write_text("mine")
    refused = called("old.yaml", "--out", "new.toml")
    assert isinstance(refused.exception, UsageError)
    assert "new.toml: is there already; --force writes over it" in str(refused.exception)
    assert Path("new.toml").read_text() == "mine"
    assert called("old.yaml", "--out", "new.toml", "--force").exit_code == 0
    assert valid(Path("new.toml")).run.seed == 7


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("folder.toml", "is a directory"),
        (".", "is a directory"),
        ("new.yaml", "recipes are TOML; nearest: --out new.toml"),
    ],
)
def test_where_no_recipe_can_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(BURGERS)
    Path("folder.toml").mkdir()
    assert said in str(called("old.yaml", "--out", out, "--force").exception)


def test_nothing_is_written_of_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text("data: {task: burgers1d}\ntraining: {batch_size: none}\n")
    assert isinstance(called("old.yaml", "--out", "new.toml").exception, RecipeError)
    for wrong in ("missing.yaml", "."):
        assert isinstance(called(wrong, "--out", "new.toml").exception, RecipeError)
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(BURGERS)
    Path("new.toml").write_text("mine")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert isinstance(called("old.yaml", "--out", "new.toml", "--force").exception, StorageError)
    assert Path("new.toml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.toml", "old.yaml"]


@pytest.mark.slow
def test_an_imported_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one, made smaller by --set: the file is simulated, a few steps are taken, and the model is scored."""
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(BURGERS)
    assert called("old.yaml", "--out", "new.toml").exit_code == 0
    settings = (
        "run.threads=1",
        "dataset.simulate.trajectories=14",
        "dataset.simulate.points=32",
        "dataset.simulate.frames=6",
        "dataset.validation=3",
        "dataset.test=3",
        "encoder.patch_size=4",
        "decoder.modes=4",
        "latent.width=16",
        "operator.heads=2",
        "stages.operator.budget.steps=4",
        "stages.operator.validation_steps=2",
        "stages.evaluate.pictures=false",
        "stages.evaluate.require_beating=[]",
    )
    done = CliRunner().invoke(cli, ["run", "new.toml", *(word for each in settings for word in ("--set", each))])
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "runs/old/1/summary.json").read_text())
    assert summary["stages"]["operator"]["steps"] == 4
