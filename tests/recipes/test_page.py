"""The page about recipes: what its text says that can be set can be. `make test-docs` reads its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.reading import read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("multitask", ["dataset.tasks.burgers.simulate.seed=3", "dataset.weights.burgers=2.0", "run.workers=4"]),
        ("burgers_cached", ["latent_cache=none"]),
    ],
)
def test_what_it_sets_can_be_set(name: str, settings: list[str]) -> None:
    assert not [
        setting for setting in settings if setting.replace("=none", ' = "none"') not in PAGE.replace(" = 4", "=4")
    ]
    read_recipe(ROOT / f"recipes/{name}.toml", settings)
