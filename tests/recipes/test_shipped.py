"""The recipes that are shipped are valid, here and now, without their data."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.assemble import check
from ups_kit.reading import read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = [*sorted(FOLDER.glob("*.toml")), *sorted(FOLDER.glob("scale/*.toml"))]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    assert check(read_recipe(path).recipe) == []


def test_a_loss_of_weight_0_is_not_held_against_the_data() -> None:
    darcy = RECIPES[0].with_name("darcy_upt.toml")
    assert check(read_recipe(darcy).recipe) == []
    (problem,) = check(read_recipe(darcy, ["stages.operator.losses.inverse_encoding.weight=0.1"]).recipe)
    assert problem.path.startswith("stages.operator.losses.inverse_encoding")
