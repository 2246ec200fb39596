"""What is wrong with a sampler is told when the recipe is read, with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.assemble import check
from ups_kit.errors import RecipeError
from ups_kit.reading import read_recipe

SMOKE = Path(__file__).parents[2] / "recipes" / "smoke.toml"
FORWARD = "stages.operator.losses.forward.sampler"


def problems(tmp_path: Path, *settings: str) -> str:
    """What the recipe's keys, and then its parts, are found to be wrong with."""
    try:
        read = read_recipe(SMOKE, [f"dataset.path={tmp_path / 'none.h5'}", *settings])
    except RecipeError as error:
        return str(error)
    return "\n".join(f"{problem.path}: {problem.message}" for problem in check(read.recipe))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("epsilon = 0", ("sampler.epsilon", "greater than 0 and of at most 1, got 0")),
        ("epsilon = 1.5", ("sampler.epsilon", "at most 1, got 1.5")),
        ('score = "gradiant"', ("sampler.score", "'gradient', 'error'", "did you mean 'gradient'?")),
        ("cells = 4", ("sampler", "cells goes with score = 'error'")),
        ('score = "error"', ("sampler", "periodic_shifts = false")),
        ("epsilom = 0.5", ("sampler.epsilom", "did you mean 'epsilon'?")),
    ],
)
def test_keys_of_importance_that_do_not_fit(tmp_path, keys, expected):
    settings = ["stages.operator.periodic_shifts=true"] if "error" in keys else []
    text = problems(tmp_path, *settings, f'{FORWARD}={{ use = "importance", ratio = 0.5, {keys} }}')
    assert all(part in text for part in expected)


@pytest.mark.parametrize("loss", ["relative", "mean_preservation"])
def test_losses_whose_expectation_would_be_another_refuse_importance(tmp_path, loss):
    key = f"stages.operator.losses.{loss}"
    text = problems(tmp_path, f'{key}={{ sampler = {{ use = "importance", ratio = 0.5 }} }}')
    assert f"{key}.sampler" in text
    assert "count unequally" in text


@pytest.mark.parametrize("score", ["gradient", "error"])
def test_a_recipe_with_importance_is_right(tmp_path, score):
    sampler = f'{{ use = "importance", ratio = 0.5, score = "{score}" }}'
    assert not problems(tmp_path, "stages.operator.periodic_shifts=false", f"{FORWARD}={sampler}")
