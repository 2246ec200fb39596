"""The page about recipes: its examples are true."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ups_kit.reading import read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text()
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_recipe_can_be_read(tmp_path: Path) -> None:
    text, sampler, dataset, points, physics, laws = TABLES
    path = tmp_path / "page.toml"
    path.write_text(text)
    recipe = read_recipe(
        path, ["stages.operator.losses.far={ use = 'rollout', horizon = 8 }", "stages.operator.clip=none"]
    )
    assert [stage.name for stage in recipe.recipe.stages] == ["operator", "evaluate"]
    assert (recipe.recipe.stages[0].clip, set(recipe.recipe.stages[0].losses)) == (  # type: ignore[attr-defined]
        None,
        {"forward", "inverse_encoding", "far"},
    )
    path.write_text(text.replace('[dataset]\nuse = "pdebench"\npath = "data/burgers.h5"\n', dataset))
    read = read_recipe(path).recipe.dataset
    assert (read.first_frame, read.points, read.normalisation) == (3, 128, "robust")  # type: ignore[attr-defined]
    assert read.simulate.points == 512  # type: ignore[attr-defined]
    base = os.path.relpath(ROOT / "recipes/mesh_flow_upt.toml", tmp_path)
    path.write_text(f'extends = "{base}"\n{points}')
    laid = read_recipe(path).recipe
    assert (laid.encoder.lattice, laid.dataset.input_points) == ((16, 8), (500, 2000))  # type: ignore[attr-defined]
    for table in (sampler, physics):
        path.write_text(text.split("[stages.losses]")[0] + table)
        assert read_recipe(path).recipe.stages[0].losses  # type: ignore[attr-defined]
    path.write_text(text + laws)
    assert [constraint.name for constraint in read_recipe(path).recipe.constraints] == ["total", "divergence_free"]


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


def test_the_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "docs/recipes.md", "exec"), {})
