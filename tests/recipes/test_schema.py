"""The JSON Schema of recipes agrees with the strict reader."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ups_kit.errors import RecipeError
from ups_kit.plugins import Catalog, discover
from ups_kit.reading import read_recipe
from ups_kit.schema import recipe_schema

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def accepts(schema: dict[str, Any], text: str) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(text))


def test_it_is_a_schema(stand_ins: Catalog) -> None:
    jsonschema.Draft202012Validator.check_schema(recipe_schema(stand_ins))
    jsonschema.Draft202012Validator.check_schema(recipe_schema(discover()))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    jsonschema.validate(tomllib.loads(path.read_text()), recipe_schema(discover()), jsonschema.Draft202012Validator)


CHANGES = [
    ("seed = 3", "seed = 4", True),
    ("seed = 3", "seed = -1", False),
    ("seed = 3", 'seed = "3"', False),
    ("seed = 3", "sead = 3", False),
    ("seed = 3", "compile = 1", False),
    ('name = "waves"', 'name = "../waves"', False),
    ('name = "waves"', "", False),
    ("width = 32", "width = 0", False),
    ("width = 32", "tokens = 32", False),
    ("patch_size = 4", "patch_size = 4\nradii = [1, 2.5]", True),
    ("patch_size = 4", "patch_size = 4\nradii = [1, -2.5]", False),
    ("patch_size = 4", "anchors = 4", False),
    ('use = "grid"\npatch_size = 4', 'use = "points"\nanchors = 4', True),
    ('use = "grid"', 'use = "gird"', False),
    ("heads = 4", "dropout = 1.0", False),
    ("heads = 4", 'norm = "rms"', True),
    ("heads = 4", 'norm = "rma"', False),
    ("viscosity = [0.001, 0.1]", "viscosity = 0.1", True),
    ("viscosity = [0.001, 0.1]", "viscosity = [0.1]", False),
    ('path = "data/waves.h5"', 'path = ["a.h5", "b.h5"]', True),
    ('path = "data/waves.h5"', "path = 3", False),
    ("batch = 16", "clip = 'none'", True),
    ("batch = 16", 'on_nonfinite = "skip"', True),
    ("batch = 16", 'on_nonfinite = "go"', False),
    ("[stages.losses.rollout]", '[stages.losses.other]\nuse = "rollout"', True),
    ("[stages.losses.rollout]", '[stages.losses.rollout]\nuse = "forward"', True),
    ("[stages.losses.rollout]", "[stages.losses.other]", False),
]


@pytest.mark.parametrize(("old", "new", "valid"), CHANGES)
def test_the_schema_and_the_reader_agree(
    stand_ins: Catalog, waves: Path, tmp_path: Path, old: str, new: str, valid: bool
) -> None:
    text = waves.read_text()
    assert text.count(old) == 1
    text = text.replace(old, new)
    assert accepts(recipe_schema(stand_ins), text) == valid
    path = tmp_path / "changed.toml"
    path.write_text(text)
    try:
        read_recipe(path, catalog=stand_ins)
        assert valid
    except RecipeError:
        assert not valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("run.seed = 3", True),
        ('run.seed = "3"', False),
        ("encoder.patch_size = 3", True),
        ("encoder.patchsize = 3", False),
        ("stages.operator.budget.seconds = 3", True),
        ("stages.operator.losses.rollout.weight = 0", True),
        ("stages.operator.losses.rollout.wait = 0", False),
        ("trackers.printer.every = 2", True),
        ('stages = [{ use = "evaluate" }]', True),
        ('stages = [{ name = "evaluate" }]', False),
    ],
)
def test_a_recipe_that_extends_another_holds_only_changes(stand_ins: Catalog, text: str, valid: bool) -> None:
    assert accepts(recipe_schema(stand_ins), f'extends = "waves.toml"\n{text}') == valid


def test_help_defaults_and_units_are_in_it(stand_ins: Catalog) -> None:
    definitions = recipe_schema(stand_ins)["$defs"]
    assert definitions["encoder.grid"]["properties"]["patch_size"] == {
        "description": "points along a patch",
        "type": "integer",
        "exclusiveMinimum": 0,
        "default": 4,
    }
    assert definitions["simulator.waves"]["properties"]["viscosity"]["description"].endswith("[m2/s]")
