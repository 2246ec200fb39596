"""A family of its own, from recipe to bundle: what the core does for models that are not of fields in space."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import jsonschema
import pytest
import torch

import ups_kit
from ups_kit.assemble import check
from ups_kit.bundle import load_bundle, load_model
from ups_kit.errors import DataError, DivergedError, PluginError, RecipeError, StorageError, UsageError
from ups_kit.evaluating import evaluate
from ups_kit.planning.plan import plan
from ups_kit.plugins import GROUP, Catalog, discover
from ups_kit.reading import ReadRecipe, read_recipe
from ups_kit.recipe import ModelRecipe
from ups_kit.run import RunResult, run
from ups_kit.schema import recipe_schema

HERE = Path(__file__).parent
RECIPE = HERE / "counting.toml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The built-in plugins, and that of the family."""
    sys.path.insert(0, str(HERE))
    own = [point for point in entry_points(group=GROUP) if point.value.startswith("ups_plugins.")]
    return discover(points=[*own, EntryPoint("counters", "counters", GROUP)])


@pytest.fixture(autouse=True)
def found(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks for plugins itself finds these."""
    for module in ("reading", "run", "bundle", "assemble"):
        monkeypatch.setattr(f"ups_kit.{module}.discover", lambda disable=(): catalog.without(disable))


def read(catalog: Catalog, tmp_path: Path, settings: Sequence[str] = ()) -> ReadRecipe:
    return read_recipe(RECIPE, [f"run.folder={tmp_path}", "run.device=cpu", *settings], catalog)


def ran(catalog: Catalog, tmp_path: Path, settings: Sequence[str] = (), **options: object) -> RunResult:
    found = read(catalog, tmp_path, settings)
    return run(found.recipe, catalog=catalog, recipe_text=found.text, origins=found.origins, **options)  # type: ignore[arg-type]


def test_a_run_trains_evaluates_and_leaves_a_bundle(catalog: Catalog, tmp_path: Path) -> None:
    result = ran(catalog, tmp_path)
    assert result.summary["status"] == "ok"
    assert result.summary["metrics"]["error"] < 0.5 * result.summary["floors"]["last"]["error"]
    assert result.summary["parameters"] == {"model": 5, "total": 5}
    bundle = load_model(result.folder, catalog)
    assert isinstance(bundle.recipe, ModelRecipe)
    assert (bundle.data.to_dict(), bundle.trained) == ({"length": 4}, ("counting",))
    values = torch.arange(4.0)[None]
    assert bundle.model(values).item() == pytest.approx(4, abs=1)
    with pytest.raises(StorageError, match=r"family 'counting'.*ups_kit\.load_model"):
        load_bundle(result.folder, catalog)
    assert ups_kit.load_model is load_model


def test_a_resumed_run_comes_to_the_same_bits(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_model(ran(catalog, tmp_path / "whole").folder, catalog).model
    from ups_kit.fit import loop

    step, steps = loop.training_step, []

    def stops(*arguments: object) -> None:
        step(*arguments)  # type: ignore[arg-type]
        steps.append(1)
        if len(steps) == 33:
            raise DivergedError("pulled the plug")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", stops)
        with pytest.raises(DivergedError):
            ran(catalog, tmp_path / "cut")
    resumed = load_model(ran(catalog, tmp_path / "cut", resume=True).folder, catalog).model
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_parts_of_a_batch_come_to_the_same_as_the_whole(catalog: Catalog, tmp_path: Path) -> None:
    plain, parts = (
        load_model(ran(catalog, tmp_path / str(count), [f"stages.counting.accumulation={count}"]).folder, catalog).model
        for count in (1, 5)
    )
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, parts.state_dict()[name], atol=1e-5, rtol=1e-5)


def test_a_finished_run_is_evaluated_again_and_taken_over(catalog: Catalog, tmp_path: Path) -> None:
    first = ran(catalog, tmp_path)
    again = evaluate(first.folder, changes={"scale": 2.0})
    assert again.result["metrics"]["error"] == pytest.approx(first.summary["metrics"]["error"] / 2)
    taken = ran(catalog, tmp_path, ["stages.scoring.scale=4.0"], from_stage="scoring")
    assert taken.folder != first.folder
    assert taken.summary["metrics"]["error"] == pytest.approx(first.summary["metrics"]["error"] / 4)
    assert taken.summary["stages"]["counting"]["key"] == first.summary["stages"]["counting"]["key"]


def test_a_plan_counts_what_is_trained(catalog: Catalog, tmp_path: Path) -> None:
    found = plan(read(catalog, tmp_path).recipe, catalog, probed=False)
    assert found.parameters == {"model": 5}
    assert (found.stages[0].steps, found.stages[0].parameters) == (60, 5)
    assert found.stages[0].read == 30 * 5 * 4  # bytes of an epoch: 30 sequences of 5 float32


def test_parts_of_another_family_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    foreign = read(catalog, tmp_path, ['stages.counting.losses.forward={use="forward"}'])
    (problem,) = check(foreign.recipe)
    assert problem.path == "stages.counting.losses.forward.use"
    assert "for models of fields in space" in problem.message
    assert "family 'counting'" in problem.message
    fields = HERE.parents[1] / "recipes/smoke.toml"
    other = read_recipe(fields, ['stages.operator.losses.mine={use="next"}'], catalog)
    (problem,) = check(other.recipe)
    assert problem.path == "stages.operator.losses.mine.use"
    assert "a [model] of that family" in problem.message


@pytest.mark.parametrize(
    ("setting", "path", "message"),
    [
        ("dataset.length=1", "model", "a line takes two numbers, and sequences have 1"),
        ("dataset.length=200", "dataset.length", "no sequence has 200 numbers"),
    ],
)
def test_what_does_not_fit_the_data_is_told_before(
    catalog: Catalog, tmp_path: Path, setting: str, path: str, message: str
) -> None:
    (problem,) = check(read(catalog, tmp_path, [setting]).recipe)
    assert (problem.path, problem.message) == (path, message)


def test_a_recipe_has_one_form_only(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"encoder.*: unknown table beside \[model\].*remove one of the two"):
        read(catalog, tmp_path, ["encoder.depth=2"])
    with pytest.raises(RecipeError, match=r"constraints.*: unknown key beside \[model\]"):
        read(catalog, tmp_path, ["constraints=[]"])


def test_the_schema_takes_both_forms(catalog: Catalog) -> None:
    schema = recipe_schema(catalog)
    tables = tomllib.loads(RECIPE.read_text())
    jsonschema.validate(tables, schema)
    for change in ({"encoder": {"use": "grid"}}, {"model": {"use": "line", "depth": 2}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**tables, **change}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({key: value for key, value in tables.items() if key != "model"}, schema)
    jsonschema.validate({"extends": "counting.toml", "model": {"bias": False}}, schema)


def test_a_damaged_description_is_told(catalog: Catalog, tmp_path: Path) -> None:
    bundle = ran(catalog, tmp_path).folder / "bundle"
    description = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**description, "data": {"size": 3}}))
    with pytest.raises(StorageError, match=r"not the description of a bundle \(KeyError: 'length'\)"):
        load_model(bundle, catalog)
    (bundle / "bundle.json").write_text(json.dumps({**description, "data": {"length": 2**62}}))
    with pytest.raises(StorageError, match="does not fit in the memory of this machine"):
        load_model(bundle, catalog)
    (bundle / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(StorageError, match="is not a bundle"):
        load_model(bundle, catalog)


def test_a_damaged_record_of_a_stage_is_no_fault_of_the_code(catalog: Catalog, tmp_path: Path) -> None:
    done = ran(catalog, tmp_path).folder / "counting" / "done.json"
    record = json.loads(done.read_text())
    done.write_text(json.dumps({**record, "wall_seconds": None}))
    assert ran(catalog, tmp_path, resume=True).summary["seconds"]["counting"] == 0
    for of in (3, {"data": 0}, {"data": []}):
        done.write_text(json.dumps({**record, "of": of}))
        with pytest.raises(DataError, match="trained on other data than its recipe's files hold now"):
            ran(catalog, tmp_path, resume=True)


def test_a_model_whose_plugin_is_gone_says_which(catalog: Catalog, tmp_path: Path) -> None:
    folder = ran(catalog, tmp_path).folder
    with pytest.raises(
        PluginError, match=r"it was written with the plugin 'counters' \(unknown \?\), which is not there"
    ):
        load_model(folder, catalog.without(["counters"]))


def test_a_key_that_an_evaluation_cannot_take_is_named(catalog: Catalog, tmp_path: Path) -> None:
    folder = ran(catalog, tmp_path).folder
    with pytest.raises(UsageError, match=r"^--scale -1\.0: the stage 'scoring' cannot do that: 'scale' must be > 0"):
        evaluate(folder, changes={"scale": -1.0})


def test_data_that_cannot_be_read_are_the_data_sets_problem(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        ran(catalog, tmp_path, ["dataset.length=200"])
    assert caught.value.exit_code == DataError.exit_code
