"""Reading recipes: what is accepted comes through unchanged, and everything knows where it was written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from attrs import field, frozen

from ups_kit.documents import read_document
from ups_kit.errors import PluginError, RecipeError
from ups_kit.fit.settings import Budget
from ups_kit.interfaces import LatentSpec
from ups_kit.keys import toml
from ups_kit.plugins import Catalog
from ups_kit.reading import read_recipe, read_resolved, resolved
from ups_kit.recipe import Recipe, Run
from ups_kit.sketches import sketch
from ups_kit.strict import structure, unstructure


def config(catalog: Catalog, kind: str, name: str) -> Any:
    return catalog[kind][name].config


def child(folder: Path, waves: Path, text: str) -> Path:
    """A recipe that extends waves.toml."""
    (folder / "waves.toml").write_text(waves.read_text())
    path = folder / "child.toml"
    path.write_text('extends = "waves.toml"\n' + text)
    return path


def test_a_recipe_read_equals_the_one_written_in_python(stand_ins: Catalog, waves: Path) -> None:
    read = read_recipe(waves, catalog=stand_ins).recipe
    loss, rollout = config(stand_ins, "loss", "forward"), config(stand_ins, "loss", "rollout")
    written = Recipe(
        description="the recipe that tests start from",
        run=Run(name="waves", seed=3),
        dataset=config(stand_ins, "dataset", "files")(
            path=waves.parent / "data/waves.h5",
            simulate=config(stand_ins, "simulator", "waves")(samples=4, viscosity=(0.001, 0.1)),
        ),
        latent=LatentSpec(width=32),
        encoder=config(stand_ins, "encoder", "grid")(patch_size=4),
        operator=config(stand_ins, "operator", "transformer")(heads=4),
        decoder=config(stand_ins, "decoder", "local")(),
        stages=(
            config(stand_ins, "stage", "operator")(
                name="operator",
                budget=Budget(seconds=30.0),
                batch=16,
                optimizer=config(stand_ins, "optimizer", "adam")(lr=0.002),
                losses={
                    "forward": loss(),
                    "rollout": rollout(weight=0.5, sampler=config(stand_ins, "sampler", "uniform")(ratio=0.5)),
                },
            ),
            config(stand_ins, "stage", "evaluate")(name="evaluate"),
        ),
        trackers=(config(stand_ins, "tracker", "printer")(),),
    )
    assert read == written


def test_unstructure_is_the_inverse_of_structure(stand_ins: Catalog, waves: Path) -> None:
    settings = ["stages.operator.clip=none", "dataset.crop=[0.0, 0.5]", "encoder.radii=[1, 2.5]"]
    recipe = read_recipe(waves, settings, stand_ins).recipe
    tables = unstructure(recipe, stand_ins)
    assert structure(tables, Recipe, stand_ins) == recipe
    assert structure(json.loads(json.dumps(tables)), Recipe, stand_ins) == recipe
    assert recipe.stages[0].clip is None  # type: ignore[attr-defined]  # the default is 1.0


def test_unstructure_refuses_a_component_that_nobody_offers(stand_ins: Catalog, waves: Path) -> None:
    @frozen
    class Own:
        size: int = field(default=1)

        def build(self, fields: Any, latent: Any) -> Any: ...

    recipe = read_recipe(waves, catalog=stand_ins).recipe
    with pytest.raises(PluginError, match="Own is not offered by any installed plugin"):
        unstructure(
            Recipe(
                **{
                    **{
                        key: getattr(recipe, key)
                        for key in ("run", "dataset", "latent", "operator", "decoder", "stages")
                    },
                    "encoder": Own(),
                }
            ),
            stand_ins,
        )


def test_every_value_knows_where_it_was_written(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    path = child(tmp_path, waves, "[operator]\nheads = 8\n\n[stages.operator.budget]\nsteps = 7\n")
    read = read_recipe(path, ["run.seed=5"], stand_ins)
    base = tmp_path / "waves.toml"
    assert read.origins["run.seed"] == "--set 'run.seed=5'"
    assert read.origins["run.name"] == f"{base}, line 4"
    assert read.origins["run.device"] == "default"
    assert read.origins["operator.heads"] == f"{path}, line 3"
    assert read.origins["operator.use"] == f"{base}, line 20"
    assert read.origins["stages.operator.budget.steps"] == f"{path}, line 6"
    assert read.origins["stages.operator.budget.seconds"] == "default"
    assert read.origins["dataset.simulate.viscosity"] == f"{base}, line 10"
    assert read.origins["stages.operator.losses.rollout.weight"] == f"{base}, line 38"
    assert set(read.resolved["origins"]) == set(read.origins)


def test_the_line_of_each_key_is_the_line_of_its_text(tmp_path: Path) -> None:
    text = (
        "# comment\na.b = 1\nlong = [\n  1, # ]\n  2,\n]\ntext = '''\n[not.a.table]\nc = 3\n'''\n"
        '[table]\n"quoted key" = "= 1"\n[[list]]\nname = 1\n[list.inner]\nx = { y = 1, z = [1, 2] }\n'
        "[[list]]\nname = 2\n"
    )
    path = tmp_path / "lines.toml"
    path.write_text(text)
    lines = read_document(path, "lines.toml").lines
    assert lines[("a", "b")] == 2
    assert lines[("long",)] == 3
    assert lines[("text",)] == 7
    assert lines[("table", "quoted key")] == 12
    assert lines[("list", 0, "name")] == 14
    assert lines[("list", 0, "inner", "x", "z", 1)] == 16
    assert lines[("list", 1, "name")] == 18
    assert ("not", "a", "table") not in lines


# ---------------------------------------------------------------------------------------------------------------------
# Extending
# ---------------------------------------------------------------------------------------------------------------------
def test_tables_merge_and_arrays_replace(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    path = child(tmp_path, waves, "[dataset]\ncrop = [0, 1]\n[encoder]\ndepth = 3\nradii = [1]\n")
    base.write_text(path.read_text())
    path.write_text('extends = ["base.toml"]\n[encoder]\nradii = [2, 3]\n')
    recipe = read_recipe(path, catalog=stand_ins).recipe
    assert recipe.encoder == config(stand_ins, "encoder", "grid")(patch_size=4, depth=3, radii=(2.0, 3.0))


def test_of_several_bases_the_later_one_counts(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    child(tmp_path, waves, "")
    (tmp_path / "a.toml").write_text("run.seed = 1\nlatent.width = 8\n")
    (tmp_path / "b.toml").write_text("run.seed = 2\n")
    path = tmp_path / "c.toml"
    path.write_text('extends = ["waves.toml", "a.toml", "b.toml"]\n')
    recipe = read_recipe(path, catalog=stand_ins).recipe
    assert (recipe.run.seed, recipe.latent.width) == (2, 8)


def test_a_change_of_component_leaves_nothing_behind(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    path = child(
        tmp_path, waves, '[encoder]\nuse = "points"\nanchors = 9\n[stages.operator.optimizer]\nuse = "momentum"\n'
    )
    recipe = read_recipe(path, catalog=stand_ins).recipe
    assert recipe.encoder == config(stand_ins, "encoder", "points")(anchors=9)
    assert recipe.stages[0].optimizer == config(stand_ins, "optimizer", "momentum")()  # type: ignore[attr-defined]


def test_a_stage_keeps_the_name_by_which_it_was_replaced(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    path = child(tmp_path, waves, '[stages.operator]\nuse = "evaluate"\n')
    stages = read_recipe(path, catalog=stand_ins).recipe.stages
    assert [stage.name for stage in stages] == ["operator", "evaluate"]
    assert type(stages[0]) is type(stages[1])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("budget = { seconds = 5 }", Budget(seconds=5.0)),
        ("budget = { steps = 5 }", Budget(steps=5)),
        ("budget = { steps = 5, seconds = 9 }", Budget(steps=5, seconds=9.0)),
    ],
)
def test_another_limit_replaces_the_budget(
    stand_ins: Catalog, waves: Path, tmp_path: Path, written: str, expected: Budget
) -> None:
    path = child(tmp_path, waves, f"[stages.operator]\n{written}\n")
    recipe = read_recipe(path, catalog=stand_ins).recipe
    assert recipe.stages[0].budget == expected  # type: ignore[attr-defined]
    settings = [f"stages.operator.budget.{key}={value}" for key, value in tomllib.loads(written)["budget"].items()]
    assert read_recipe(waves, settings, stand_ins).recipe.stages[0].budget == expected  # type: ignore[attr-defined]


def test_stages_losses_and_trackers_are_addressed_by_name(stand_ins: Catalog, waves: Path) -> None:
    settings = [
        "stages.operator.losses.rollout.weight=0",
        "stages.1.split=validation",
        "trackers.printer.every=3",
        "stages.operator.losses.extra={use='forward', weight=2}",
    ]
    recipe = read_recipe(waves, settings, stand_ins).recipe
    operator, evaluate = recipe.stages
    assert operator.losses["rollout"].weight == 0.0  # type: ignore[attr-defined]
    assert operator.losses["rollout"].sampler.ratio == 0.5  # type: ignore[attr-defined]
    assert operator.losses["extra"] == config(stand_ins, "loss", "forward")(weight=2.0)  # type: ignore[attr-defined]
    assert evaluate.split == "validation"  # type: ignore[attr-defined]
    assert recipe.trackers[0].every == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"/etc/base.toml"', "not a relative path"),
        ('"~/base.toml"', "not a relative path"),
        ('"C:/base.toml"', "not a relative path"),
        ('"https://example.org/base.toml"', "is a URL"),
        ('"child.toml"', "goes in a circle: {child} -> {child}"),
        ("7", 'expected a string, got 7; write "7"'),
        ('"bose.toml"', "does not exist"),
    ],
)
def test_extends_names_a_file_beside(
    stand_ins: Catalog, waves: Path, tmp_path: Path, written: str, expected: str
) -> None:
    path = child(tmp_path, waves, "")
    path.write_text(f"extends = {written}\n")
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, catalog=stand_ins)
    assert expected.format(child=path) in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_circle_and_a_long_chain_are_shown(stand_ins: Catalog, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    with pytest.raises(RecipeError, match=r"more than 8 recipes extend each other: .*0\.toml -> .*1\.toml -> "):
        read_recipe(tmp_path / "0.toml", catalog=stand_ins)
    (tmp_path / "2.toml").write_text('extends = "0.toml"\n')
    with pytest.raises(RecipeError, match=r"circle: .*0\.toml -> .*1\.toml -> .*2\.toml -> .*0\.toml"):
        read_recipe(tmp_path / "0.toml", catalog=stand_ins)


# ---------------------------------------------------------------------------------------------------------------------
# Paths, files, sketches
# ---------------------------------------------------------------------------------------------------------------------
def test_a_path_starts_where_it_was_written(
    stand_ins: Catalog, waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    child(tmp_path / "sub", waves, "")
    path = tmp_path / "top.toml"
    path.write_text('extends = "sub/waves.toml"\nrun.folder = "elsewhere"\n')
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("top.toml", catalog=stand_ins).recipe
    assert recipe.dataset.path == tmp_path / "sub/data/waves.h5"  # type: ignore[attr-defined]
    assert recipe.run.folder == Path("elsewhere")
    recipe = read_recipe("top.toml", ['dataset.path=["a.h5", "/b.h5"]'], stand_ins).recipe
    assert recipe.dataset.path == (tmp_path / "a.h5", Path("/b.h5"))  # type: ignore[attr-defined]
    path.write_text('extends = "sub/waves.toml"\ndataset.path = "../x.h5"\n')
    recipe = read_recipe("top.toml", catalog=stand_ins).recipe
    assert recipe.dataset.path == tmp_path.parent / "x.h5"  # type: ignore[attr-defined]


def test_a_byte_order_mark_and_windows_line_ends_are_read(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + waves.read_bytes().replace(b"\n", b"\r\n"))
    read = read_recipe(path, catalog=stand_ins)
    assert read.recipe.run.seed == 3
    assert read.origins["run.seed"] == f"{path}, line 5"


def test_a_run_is_read_back_from_what_it_recorded(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    read = read_recipe(waves, ["run.seed=9"], stand_ins)
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(read.resolved))
    again = read_resolved(path, catalog=stand_ins)
    assert again.recipe == read.recipe
    assert again.origins == read.origins
    assert read_resolved(path, "cuda:1", stand_ins).recipe.run == Run(name="waves", seed=9, device="cuda:1")
    with pytest.raises(RecipeError, match=r"run\.device \(--device tpu\): 'tpu' does not fit"):
        read_resolved(path, "tpu", stand_ins)
    for text in ("{}", '{"values": [], "origins": {}}', '{"values": [3], "origins": {}}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"is not the resolved\.json of a run|: \d+ problems"):
            read_resolved(path, catalog=stand_ins)
    for plugins in (3, [], {"disable": 3}, {"disable": [{}]}):
        path.write_text(json.dumps({"values": {**read.resolved["values"], "plugins": plugins}, "origins": {}}))
        with pytest.raises(RecipeError, match=r"plugins.*expected"):
            read_resolved(path, catalog=stand_ins)


def test_a_recipe_made_in_python_is_recorded_as_such(stand_ins: Catalog, waves: Path) -> None:
    record = resolved(read_recipe(waves, catalog=stand_ins).recipe, None, stand_ins)
    assert set(record["origins"].values()) == {"python"}


def test_the_sketch_for_an_empty_file_is_a_valid_recipe(stand_ins: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "sketch.toml"
    path.write_text(sketch(stand_ins))
    assert read_recipe(path, catalog=stand_ins).recipe.stages


def test_a_disabled_plugin_is_missed_by_name(stand_ins: Catalog, waves: Path) -> None:
    with pytest.raises(RecipeError, match=r"no encoder is called 'grid'.*the plugin 'stand_ins' is disabled"):
        read_recipe(waves, ["plugins.disable=['stand_ins']"], stand_ins)


@pytest.mark.parametrize("value", ["tab\\there", 'say "yes"', "path\\to", "plain", ""])
def test_strings_survive_being_written_as_toml(value: str) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


def test_a_version_that_is_set_is_refused_too(stand_ins: Catalog, waves: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe_version \(--set 'recipe_version=99'\): version 99 cannot be read"):
        read_recipe(waves, ["recipe_version=99"], stand_ins)
