"""A pytest plugin: fixtures for the tests of plugins.

[tool.pytest.ini_options]
addopts = ["-p", "ups_kit.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..interfaces import Dataset
from ..plugins import Catalog, discover
from ..recipe import Recipe
from .tiny import Place, TinyDatasetConfig, with_tiny
from .tiny import tiny_recipe as made_recipe


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """Everything that is installed, and the tiny components of `ups_kit.testing` as `use = "tiny"`."""
    return with_tiny(discover())


@pytest.fixture
def tiny_dataset() -> Callable[..., Dataset]:
    """Data in memory, made in milliseconds: `tiny_dataset("line")`.

    "line" (one field, periodic), "plane" (three fields, walls, a static field, two frames given), "volume", "steady",
    "mesh" (another number of points in each sample, padded), "particles" (which move with their velocity).
    """

    def made(on: Place = "line", **keys: Any) -> Dataset:
        built: Dataset = TinyDatasetConfig(on=on, **keys).build(0)
        return built

    return made


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    """A recipe of tiny components that trains two steps in a fraction of a second; its runs lie in `tmp_path`.

    Put a component in with `attrs.evolve(tiny_recipe, encoder=MyEncoderConfig())`, and build it with
    `ups_kit.assemble.assemble(tiny_recipe, catalog)`.
    """
    return made_recipe(tmp_path)
