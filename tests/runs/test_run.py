"""Whole runs of the smallest shipped recipe: folder, summary, bundle, and what must never happen to them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import h5py
import pytest
import torch

import ups_kit
from ups_kit.assemble import assemble, check
from ups_kit.bundle import load_bundle
from ups_kit.errors import DataError, RecipeError, StorageError, UsageError
from ups_kit.fit.settings import Budget
from ups_kit.folder import write_text
from ups_kit.interfaces import PointSet, Queries
from ups_kit.run import RunResult, run
from ups_plugins.upt.training.config import CodecStageConfig, OperatorStageConfig

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def read(home: Path, *settings: str) -> ups_kit.Recipe:
    tiny = ("stages.operator.budget.steps=12", "stages.operator.validate_every=6", "stages.evaluate.pictures=false")
    places = (f"run.folder={home / 'runs'}", f"dataset.path={home / 'smoke.h5'}")
    return ups_kit.read_recipe(RECIPES / "smoke.toml", [*places, *tiny, *settings]).recipe


@pytest.fixture(scope="module")
def finished(home: Path) -> Iterator[RunResult]:
    threads = torch.get_num_threads()
    yield run(read(home))
    torch.set_num_threads(threads)


def test_a_run_leaves_what_the_docs_say(finished: RunResult) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    expected = {"recipe.toml", "resolved.json", "environment.json", "STATUS", "metrics.jsonl", "tensorboard"}
    assert names >= expected | {"operator", "evaluate", "bundle", "summary.json", "report.html"}
    assert (finished.folder / "STATUS").read_text() == "finished\n"
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert set(summary["metrics"]) == {"one_step", "latent_rollout", "reencoded_rollout"}
    assert set(summary["floors"]) >= {"persistence", "spatial_mean", "linear_autoregression", "encode_decode"}
    assert {"budget", "shuffle", "status", "recipe", "seconds", "parameters"} <= set(summary)
    assert summary["seconds"]["total"] == pytest.approx(summary["seconds"]["operator"] + summary["seconds"]["evaluate"])


def test_the_next_run_gets_a_folder_of_its_own_and_the_same_numbers(home: Path, finished: RunResult) -> None:
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    again = run(read(home))
    assert again.folder.parent == finished.folder.parent
    assert int(again.folder.name) == int(finished.folder.name) + 1
    assert again.summary["metrics"] == finished.summary["metrics"]
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before
    shutil.rmtree(again.folder)


def test_another_seed_gives_other_numbers(home: Path, finished: RunResult) -> None:
    other = run(read(home, "run.seed=1", "run.name=other"))
    assert other.summary["metrics"]["one_step"]["nrmse"] != finished.summary["metrics"]["one_step"]["nrmse"]


def test_resuming_a_finished_run_changes_no_result(home: Path, finished: RunResult) -> None:
    again = run(read(home), resume=True)
    assert again.folder == finished.folder
    assert again.summary["metrics"] == finished.summary["metrics"]


def test_damaged_weights_of_a_finished_stage_are_refused(home: Path, finished: RunResult) -> None:
    path = finished.folder / "operator" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    try:
        with pytest.raises(StorageError, match="its content is not what was written"):
            run(read(home), resume=True)
    finally:
        path.write_bytes(whole)


def test_a_changed_recipe_is_not_resumed(home: Path, finished: RunResult) -> None:
    with pytest.raises(UsageError, match=r"latent\.width: 16 in the run, 24 now"):
        run(read(home, "latent.width=24"), resume=True)
    with pytest.raises(UsageError, match="there is no run to resume"):
        run(read(home, "run.name=never_started"), resume=True)


def test_a_run_that_must_beat_more_than_it_can_ends_with_7(home: Path) -> None:
    hard = read(home, 'stages.evaluate.require_beating=["interpolation"]', "run.name=hard")
    result = run(hard)
    assert (result.exit_code, result.summary["status"]) == (7, "below_floor")
    assert (result.folder / "STATUS").read_text() == "below_floor\n"


def test_a_stage_without_a_budget_is_skipped(home: Path) -> None:
    recipe = read(home, "run.name=skipped")
    operator = recipe.stages[0]
    assert isinstance(operator, OperatorStageConfig)
    losses = {"inverse_encoding": operator.losses["inverse_encoding"]}
    codec = CodecStageConfig(budget=Budget(epochs=0), optimizer=operator.optimizer, losses=losses)
    result = run(attrs.evolve(recipe, stages=(codec, *recipe.stages)))
    assert set(result.summary["stages"]) == {"operator", "evaluate"}
    assert not (result.folder / "codec").exists()


def test_an_encoder_that_is_never_trained_is_not_evaluated(home: Path) -> None:
    recipe = read(home, "stages.operator.budget.steps=0")
    assert [problem.path for problem in check(recipe)] == ["stages.evaluate"]


# -- bundle -----------------------------------------------------------------------------------------------------------
def test_a_bundle_predicts_what_the_evaluation_scored(home: Path, finished: RunResult) -> None:
    bundle = ups_kit.load(finished.folder)
    ids = list(bundle.splits["splits"]["test"]["ids"])
    with h5py.File(home / "smoke.h5") as file:
        truth = torch.from_numpy(file["tensor"][ids][..., None])
        epsilon = file["epsilon"][ids]
    errors = []
    for sample in range(len(ids)):
        found = bundle.predict(truth[sample, :1], {"epsilon": float(epsilon[sample])}, steps=12)[0]
        future = truth[sample, 1:]
        error = (found - future).square().mean((1, 2)).sqrt() / future.square().mean((1, 2)).sqrt()
        errors.append(error.mean())
    scored = finished.summary["metrics"]["latent_rollout"]["nrmse"]
    assert torch.stack(errors).mean().item() == pytest.approx(scored, rel=1e-4)


def test_a_bundle_answers_between_grid_points(finished: RunResult) -> None:
    bundle = load_bundle(finished.folder / "bundle")
    frames = torch.randn(3, 1, 64, 1)
    middle = torch.tensor([[0.5 / 64], [17.5 / 64]])
    some = bundle.predict(frames, {"epsilon": 0.01}, 2, queries=middle)
    every = bundle.predict(frames, {"epsilon": 0.01}, 2)
    torch.testing.assert_close(some, every[:, :, [0, 17]], rtol=1e-4, atol=1e-5)


def test_a_bundle_refuses_what_does_not_fit(finished: RunResult) -> None:
    bundle = ups_kit.load(finished.folder)
    with pytest.raises(DataError, match="there is no 'viscosity', 'epsilon' is missing"):
        bundle.predict(torch.randn(1, 64, 1), {"viscosity": 0.1}, 1)
    with pytest.raises(DataError, match="expected \\(samples, 1, 64, 1\\)"):
        bundle.predict(torch.randn(1, 63, 1), {"epsilon": 0.1}, 1)


def test_a_damaged_bundle_is_refused(finished: RunResult, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(finished.folder / "bundle", copy)
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    with pytest.raises(StorageError, match="sha256 differs"):
        ups_kit.load(copy)
    (copy / "bundle.json").write_text("{")
    with pytest.raises(StorageError, match="is not a bundle"):
        ups_kit.load(copy)


@pytest.mark.parametrize("key", ["recipe", "fields", "normaliser", "splits", "sha256", ""])
def test_a_description_of_something_else_is_refused(finished: RunResult, tmp_path: Path, key: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(finished.folder / "bundle", copy)
    description = json.loads((copy / "bundle.json").read_text())
    description.pop(key, None)
    (copy / "bundle.json").write_text(json.dumps(description if key else [1]))
    with pytest.raises(StorageError, match="is not the description of a bundle"):
        ups_kit.load(copy)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("operator/done.json", "garbage", "done.json: cannot be read, restore it or start a new run"),
        ("operator/done.json", "[]", "done.json: expected a JSON object, got list"),
        ("operator/model.safetensors", None, "model.safetensors: cannot be read"),
        ("operator/model.safetensors", "garbage", "its content is not what was written"),
        ("resolved.json", "garbage", "resolved.json: cannot be read"),
        ("environment.json", "garbage", "environment.json: cannot be read"),
    ],
)
def test_a_damaged_run_is_not_resumed(
    home: Path, finished: RunResult, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    shutil.copytree(finished.folder, tmp_path / finished.folder.parent.name / "1")
    damaged = tmp_path / finished.folder.parent.name / "1" / name
    damaged.unlink()
    if text is not None:
        damaged.write_text(text)
    with pytest.raises(StorageError, match=says):
        run(read(home, f"run.folder={tmp_path}"), resume=True)


# -- assemble ---------------------------------------------------------------------------------------------------------
def test_assembled_weights_follow_the_seed(home: Path) -> None:
    first, same, other = (assemble(read(home, f"run.seed={seed}")).model for seed in (3, 3, 4))
    pairs = list(zip(first.state_dict().values(), same.state_dict().values(), other.state_dict().values()))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_a_model_that_fits_no_memory_is_told_at_the_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*parts: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("ups_kit.assemble.build_model", build)
    with pytest.raises(RecipeError, match=r"latent\.width: a model 16 wide does not fit in the memory of cpu"):
        assemble(read(home))


def test_parts_that_do_not_fit_are_all_named_before_anything_is_built(home: Path) -> None:
    recipe = read(
        home, "encoder.patch_size=5", "operator.heads=3", "latent.tokens=7", "decoder.use=local", "decoder.heads=5"
    )
    assert [problem.path for problem in check(recipe)] == ["encoder.patch_size", "operator.heads", "decoder.heads"]
    with pytest.raises(RecipeError, match="nearest: patch_size = 4"):
        assemble(recipe)


def test_one_model_serves_another_resolution(finished: RunResult) -> None:
    """Trained on 64 points; asked for a frame of 128 points it still answers, at as many points as one likes."""
    bundle = ups_kit.load(finished.folder)
    x = (torch.arange(128) + 0.5) / 128
    points = PointSet(x[None, :, None], torch.sin(6.2832 * x)[None, :, None], grid=(128,))
    values = bundle.model.decode(bundle.model.encode(points), Queries(points.positions, (128,)))
    assert values.shape == (1, 128, 1)


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "summary.json", "{}")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "summary.json").stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
