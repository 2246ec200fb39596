"""The page about recipes: its examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ups_kit.reading import read_recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text()


def test_the_recipe_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
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


def test_the_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "docs/recipes.md", "exec"), {})
