"""Runs from a stage on, and of one stage alone: the same bits as a whole run, and nothing stale."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import h5py
import pytest
from click.testing import CliRunner
from safetensors.torch import load

import ups_kit
from ups_kit.cli import cli
from ups_kit.errors import StorageError, UsageError
from ups_kit.evaluating import evaluate
from ups_kit.fit.settings import Budget
from ups_kit.run import run
from ups_plugins.upt.training.config import OperatorStageConfig

Pipeline = Callable[..., ups_kit.Recipe]


def done(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / stage / "done.json").read_text())
    return found


def logged(folder: Path) -> list[Any]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key and key != "data_wait"} for line in lines]


# -- what comes out ---------------------------------------------------------------------------------------------------
def test_a_stage_that_is_added_later_gets_the_bits_of_a_whole_run(pipeline: Pipeline, files: SimpleNamespace) -> None:
    whole = run(pipeline("run.name=whole"))
    short = run(pipeline("run.name=short", stages=("codec", "operator")))
    for stage in ("codec", "operator"):  # no base weight depends on a part that a later stage adds
        ours, its = (load(files.weights(each, stage)) for each in (short, whole))
        assert all(value.equal(its[name]) for name, value in ours.items())
        assert all(name.startswith("added.diffusion.") for name in set(its) - set(ours))
        assert done(short.folder, stage)["key"] == done(whole.folder, stage)["key"]
    before = files.every(short.folder)
    longer = run(pipeline("run.name=short"), from_stage="diffusion")
    assert files.every(short.folder) == before
    assert (short.folder.name, longer.folder.name) == ("1", "2")
    assert files.weights(longer, "diffusion") == files.weights(whole, "diffusion")
    weights = [(each.folder / "bundle" / "weights.safetensors").read_bytes() for each in (longer, whole)]
    assert weights[0] == weights[1]
    assert logged(longer.folder) == logged(whole.folder)
    assert set(longer.summary["stages"]) == {"codec", "operator", "diffusion"}
    assert done(longer.folder, "codec")["taken_from"] == str(short.folder)
    assert "of" not in longer.summary["stages"]["codec"]
    record = json.loads((longer.folder / "resolved.json").read_text())["course"]
    assert record["of"] == str(short.folder)
    assert record["taken"] == ["codec", "operator"]


def test_only_one_stage_is_run_and_the_run_is_left_at_that(pipeline: Pipeline, files: SimpleNamespace) -> None:
    first = run(pipeline())
    again = run(pipeline("stages.operator.optimizer.lr=0.02"), only="operator")
    assert set(again.summary["stages"]) == {"codec", "operator"}
    assert not (again.folder / "diffusion").exists()
    assert (again.folder / "STATUS").read_text() == "finished\n"
    assert files.weights(again, "operator") != files.weights(first, "operator")
    resumed = run(pipeline("stages.operator.optimizer.lr=0.02"), resume=True)
    assert (resumed.folder, (resumed.folder / "diffusion").exists()) == (again.folder, False)
    last = run(pipeline("stages.operator.optimizer.lr=0.02"), from_stage="diffusion")  # from the newest: that one
    assert files.weights(last, "operator") == files.weights(again, "operator")


def test_from_the_first_stage_is_a_plain_run(pipeline: Pipeline, files: SimpleNamespace) -> None:
    recipe = attrs.evolve(pipeline(stages=("codec",)), latent_cache=None)
    plain, again = run(recipe), run(recipe, from_stage="codec")
    assert files.weights(plain, "codec") == files.weights(again, "codec")
    assert "course" not in json.loads((again.folder / "resolved.json").read_text())
    alone = run(pipeline(stages=("codec", "operator")), only="codec")
    assert set(alone.summary["stages"]) == {"codec"}


def test_a_run_that_took_stages_over_is_stopped_and_resumed_to_the_same_bits(
    pipeline: Pipeline, stopped: Callable[..., None], files: SimpleNamespace
) -> None:
    whole = run(pipeline())
    stopped(pipeline(), "diffusion", 4, from_stage="diffusion", of=whole.folder)
    folder = whole.folder.with_name("2")
    assert (folder / "STATUS").read_text() == "preempted\n"
    (folder / "operator" / "done.json").unlink()  # as if it had been killed while it took the stages over
    resumed = run(pipeline(), resume=True)
    assert resumed.folder == folder
    assert files.weights(resumed, "diffusion") == files.weights(whole, "diffusion")
    assert logged(folder) == logged(whole.folder)
    (folder / "operator" / "done.json").unlink()
    shutil.rmtree(whole.folder)
    with pytest.raises(StorageError, match=r"1/codec/done\.json: cannot be read, restore it"):
        run(pipeline(), resume=True)


def test_a_copy_is_made_where_no_link_can_be(
    pipeline: Pipeline, files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(pipeline(stages=("codec", "operator")), only="codec")
    monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    again = run(pipeline(stages=("codec", "operator")), only="operator")
    assert files.weights(again, "codec") == files.weights(first, "codec")
    assert (again.folder / "codec" / "model.safetensors").stat().st_nlink == 1


def test_only_evaluate_evaluates_what_is_finished(pipeline: Pipeline, stopped: Callable[..., None]) -> None:
    stages = ("codec", "operator", "evaluate")
    stopped(pipeline(stages=stages), "operator", 4)
    half = pipeline().run.folder / "burgers" / "1"
    with pytest.raises(UsageError, match=r"'operator' is not finished in .*1\n  `upskit run .*1 --resume` goes on"):
        run(pipeline(stages=stages), only="evaluate")
    with pytest.raises(UsageError, match=r"did not finish.*--allow-partial"):
        evaluate(half)
    whole = run(pipeline(stages=stages), resume=True)
    again = run(pipeline(stages=stages), only="evaluate")
    assert again.summary["metrics"] == whole.summary["metrics"]
    names = [(each.folder / "bundle" / "weights.safetensors").read_bytes() for each in (whole, again)]
    assert names[0] == names[1]
    between = attrs.evolve(pipeline(), stages=tuple(pipeline(stages=(*stages, "diffusion")).stages))
    order = sorted(between.stages, key=lambda stage: stage.name == "diffusion")  # evaluate before diffusion
    added = run(attrs.evolve(between, stages=tuple(order)), from_stage="diffusion")
    assert set(added.summary["stages"]) == {"codec", "operator", "diffusion"}


def test_a_run_of_one_stage_is_evaluated_only_where_that_is_asked_for(pipeline: Pipeline, finished: Path) -> None:
    """And then without what has not trained: the diffusion stands in its bundle as it was drawn."""
    stages = ("codec", "operator", "diffusion", "evaluate")
    alone = run(pipeline(stages=stages), only="operator", of=finished)
    says = r"this run is of --only operator alone: .*'diffusion' were not run; `upskit run .* --from diffusion` goes on"
    with pytest.raises(UsageError, match=says):
        evaluate(alone.folder)
    found = evaluate(alone.folder, partial=True).result
    assert found["status"] == "ok"
    assert not found.get("ensembles")


# -- what is stale ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, that tests only take from."""
    places = [f"run.folder={tmp_path_factory.mktemp('finished')}", f"dataset.path={data}"]
    recipe = ups_kit.read_recipe(Path(__file__).parents[1] / "pipelines" / "burgers.toml", places).recipe
    return run(attrs.evolve(recipe, stages=recipe.stages[:3])).folder


@pytest.mark.parametrize(
    ("settings", "says", "first"),
    [
        (("latent.width=12",), ["latent.width: 8 in the run, 12 now"], "codec"),
        (("run.seed=3",), ["run.seed: 0 in the run, 3 now"], "codec"),
        (("run.precision=bf16",), ["run.precision: 'fp32' in the run, 'bf16' now"], "codec"),
        (("dataset.train=20",), ["dataset.train: 24 in the run, 20 now"], "codec"),
        (("latent_cache.dtype=float16",), ["latent_cache.dtype: 'float32' in the run, 'float16' now"], "operator"),
        (
            ("stages.operator.optimizer.lr=0.5", "stages.codec.batch=8"),
            ["stages.codec.batch: 4 in the run, 8 now", "stages.operator.optimizer.lr: 0.01 in the run, 0.5 now"],
            "codec",
        ),
        (("stages.operator.budget.steps=13",), ["stages.operator.budget.steps: 12 in the run, 13 now"], "operator"),
        (("decoder.use=local",), ["decoder.use: 'partition' in the run, 'local' now"], "codec"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_stale_stages_are_refused_with_what_has_changed(
    pipeline: Pipeline, finished: Path, settings: tuple[str, ...], says: list[str], first: str
) -> None:
    with pytest.raises(UsageError) as told:
        run(pipeline(*settings), from_stage="diffusion", of=finished)
    assert told.value.exit_code == 2
    lines = str(told.value).splitlines()
    assert set(says) <= {line.strip() for line in lines}
    assert lines[-1].startswith(f"--from {first} trains ")
    assert not (pipeline().run.folder / "burgers").exists()


def test_what_changes_no_weights_is_not_stale(pipeline: Pipeline, finished: Path, data: Path, tmp_path: Path) -> None:
    """Later stages, where the data lie, what is logged and kept, budgets of 0 between."""
    shutil.copyfile(data, tmp_path / "elsewhere.h5")
    recipe = pipeline(
        "stages.diffusion.optimizer.lr=0.02",
        "stages.operator.keep=1",
        "stages.codec.log_every=3",
        "run.workers=1",
        "run.name=other",
        f"dataset.path={tmp_path / 'elsewhere.h5'}",
        'description="another"',
    )
    operator = recipe.stages[1]
    assert isinstance(operator, OperatorStageConfig)
    idle = attrs.evolve(operator, name="idle", budget=Budget(steps=0))
    stages = (recipe.stages[0], idle, *recipe.stages[1:])
    assert run(attrs.evolve(recipe, stages=stages), from_stage="diffusion", of=finished).summary["status"] == "ok"


def test_other_data_are_refused_and_other_dates_are_told(
    pipeline: Pipeline, finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.h5"
    shutil.copyfile(data, other)
    run(pipeline(f"dataset.path={other}"), only="diffusion", of=finished)
    assert "trained on data files of other dates or content" in capsys.readouterr().err
    with h5py.File(other, "r+") as file:
        file["tensor"][:, 1:] *= 1.01  # the same initial conditions
    with pytest.raises(UsageError, match="hold other data than in the run \\(other statistics\\)"):
        run(pipeline(f"dataset.path={other}"), only="diffusion", of=finished)
    with h5py.File(other, "r+") as file:
        file["tensor"][:, 0] *= 1.01
    with pytest.raises(UsageError, match=r"\(other trajectories, or another split\)\n--from codec trains it anew"):
        run(pipeline(f"dataset.path={other}"), only="diffusion", of=finished)


def test_a_stage_that_was_trained_after_others_is_stale(pipeline: Pipeline, finished: Path) -> None:
    """The codec is skipped now: the operator of the run stood on it."""
    recipe = pipeline()
    codec, operator = recipe.stages[:2]
    assert isinstance(operator, OperatorStageConfig)
    skipped = attrs.evolve(codec, budget=Budget(steps=0))  # type: ignore[misc]  # a protocol's class is not known
    apart = attrs.evolve(operator, freeze=())
    with pytest.raises(UsageError, match=r"stages\.operator: was trained after other stages: 'codec' trains no more"):
        run(
            attrs.evolve(recipe, latent_cache=None, stages=(skipped, apart, recipe.stages[2])),
            from_stage="diffusion",
            of=finished,
        )


def test_versions_that_have_changed_are_told(
    pipeline: Pipeline, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "1"
    shutil.copytree(finished, copy)
    found = done(copy, "codec")
    assert {"ups_kit", "grid", "upt", "operators", "decoders", "optim", "generative"} <= set(found["versions"])
    assert "particles" not in found["versions"]
    found["versions"]["upt"] = "ups_kit 0.0.1"
    (copy / "codec" / "done.json").write_text(json.dumps(found))
    run(pipeline(), only="diffusion", of=copy)
    assert "its stage 'codec' was trained by other versions: upt ups_kit 0.0.1 -> ups_kit" in capsys.readouterr().err


# -- what cannot be ---------------------------------------------------------------------------------------------------
def test_what_cannot_be_taken_over_is_told(pipeline: Pipeline, finished: Path, tmp_path: Path) -> None:
    recipe = pipeline()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"from_stage": "difusion"}, r"no such stage; did you mean 'diffusion'\? \(stages: codec, operator, diffusion"),
        ({"from_stage": "diffusion"}, "there is no run in .*burgers to take the stages before it from"),
        ({"only": "operator", "of": tmp_path / "7"}, "--of .*7: is not there; expected the folder of a run"),
        ({"only": "operator", "of": tmp_path}, "is no run folder"),
        ({"of": finished}, "--of .*: .* add --from STAGE or --only STAGE"),
        ({"from_stage": "codec", "only": "codec"}, "--from codec and --only codec are two ways of running"),
        ({"from_stage": "operator", "resume": True}, "--resume goes on .* and --from operator begins a new one"),
        ({"allow_changed": ["latent.width"]}, "--allow-changed latent.width: goes with --resume"),
    ]
    for options, says in cases:
        with pytest.raises(UsageError, match=says):
            run(recipe, **options)
    with pytest.raises(UsageError, match="--only codec: its budget is 0"):
        run(pipeline("stages.codec.budget.steps=0", "stages.operator.freeze=[]", 'latent_cache="none"'), only="codec")


def test_a_stage_that_is_not_finished_is_named_with_what_to_do(
    pipeline: Pipeline, stopped: Callable[..., None], finished: Path
) -> None:
    recipe = pipeline()
    home = recipe.run.folder / "burgers"
    shutil.copytree(finished, home / "1")
    stopped(recipe, "operator", 4)
    with pytest.raises(UsageError) as told:
        run(recipe, from_stage="diffusion")
    assert str(told.value).splitlines() == [
        f"--from diffusion: takes over the stages before it, and 'operator' is not finished in {home / '2'}",
        f"  `upskit run {home / '2'} --resume` goes on with it",
        f"  --of {home / '1'} takes them from a run in which they are",
        "  --from operator runs 'operator' and all after it",
    ]
    shutil.rmtree(home / "2" / "codec")
    with pytest.raises(UsageError, match=r"'codec' was not run in (.|\n)*without it, the recipe runs 'codec'"):
        run(recipe, from_stage="diffusion")


@pytest.mark.parametrize("damage", ["weights", "no weights", "record", "versions"])
def test_a_damaged_stage_is_not_taken_over(pipeline: Pipeline, finished: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "1"
    shutil.copytree(finished, copy)
    weights = copy / "operator" / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    else:
        done = copy / "operator" / "done.json"
        record = json.loads(done.read_text())
        done.write_text(json.dumps({**record, damage: True}) if damage in record else "{")
    with pytest.raises(StorageError, match=r"operator/(model\.safetensors|done\.json).*restore it"):
        run(pipeline(), from_stage="diffusion", of=copy)


def test_a_run_folder_stands_for_its_recipe_and_for_where_stages_are_taken_from(
    pipeline: Pipeline, finished: Path, files: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "moved" / "burgers"
    shutil.copytree(finished, home / "1")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    told = runner.invoke(cli, ["run", str(home / "1"), "--only", "diffusion"])
    assert isinstance(told.exception, UsageError)
    assert "call upskit from where that path leads to it" in str(told.exception)
    record = json.loads((home / "1" / "resolved.json").read_text())
    record["values"]["run"]["folder"] = "moved"
    (home / "1" / "resolved.json").write_text(json.dumps(record))
    again = runner.invoke(cli, ["run", "moved/burgers/1", "--only", "diffusion", "--json"])
    assert again.exit_code == 0, again.exception
    assert files.weights(home / "2", "diffusion") == files.weights(finished, "diffusion")
    told = runner.invoke(cli, ["run", "moved/burgers/1", "--only", "diffusion", "--set", "run.seed=1"])
    assert "--set goes with a recipe file" in str(told.exception)
