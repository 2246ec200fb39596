"""A stranger's plugin: a distribution of its own, installed by pip, found and used without a word in our code.

The plugin is the one of docs/plugins.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ups_kit.plugins import discover
from ups_kit.sketches import sketch

PAGE = Path(__file__).parents[2] / "docs/plugins.md"


def block(language: str) -> str:
    """The one block of a language on the page about plugins."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the stranger's distribution is installed."""
    source = tmp_path_factory.mktemp("ups-wavelets")
    point = 'wavelets = "ups_wavelets"\n'
    (source / "pyproject.toml").write_text(
        block("toml").replace(point, f'{point}broken_wavelets = "ups_wavelets.broken"\n')
    )
    (source / "ups_wavelets").mkdir()
    (source / "ups_wavelets/__init__.py").write_text(block("python"))
    (source / "ups_wavelets/broken.py").write_text("import a_library_that_is_missing\n")
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


def upskit(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ups_kit", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A small recipe of built-in components, with the stranger's encoder."""
    path = tmp_path / "recipe.toml"
    text = sketch(discover())
    encoder = text[text.index("[encoder]") : text.index("[operator]")]
    dataset = text[text.index("[dataset]") : text.index("[latent]")]
    data = '[dataset]\nuse = "pdebench"\nsimulate = { use = "burgers1d" }\npath = "data/burgers.h5"\n\n'
    path.write_text(text.replace(encoder, '[encoder]\nuse = "wavelets"\nlevels = 2\n\n').replace(dataset, data))
    return path


def test_it_is_listed(site: Path) -> None:
    plugins = {plugin["name"]: plugin for plugin in json.loads(upskit(site, "list-plugins", "--json").stdout)}
    assert plugins["wavelets"]["components"] == {"encoder": ["wavelets"]}
    assert (plugins["wavelets"]["distribution"], plugins["wavelets"]["version"]) == ("ups-wavelets", "0.3")
    assert plugins["broken_wavelets"]["state"] == "broken"
    assert "a_library_that_is_missing" in plugins["broken_wavelets"]["reason"]
    assert set(plugins) == {plugin.name for plugin in discover().plugins} | {"wavelets", "broken_wavelets"}
    assert "levels" in upskit(site, "show", "encoder", "wavelets").stdout


def test_a_recipe_uses_it(site: Path, recipe: Path) -> None:
    done = upskit(site, "validate", str(recipe))
    assert (done.returncode, done.stderr) == (0, "")
    done = upskit(site, "validate", str(recipe), "--set", "encoder.family=haas", "--set", "encoder.levels=0")
    assert done.returncode == 2
    assert "encoder.family (--set 'encoder.family=haas'): expected one of 'haar', 'db2'" in done.stderr
    assert "encoder.levels (--set 'encoder.levels=0'): expected a whole number greater than 0, got 0" in done.stderr


def test_without_it_the_recipe_says_what_is_missing(recipe: Path, tmp_path: Path) -> None:
    done = upskit(tmp_path, "validate", str(recipe))
    assert done.returncode == 2
    assert "no encoder is called 'wavelets'" in done.stderr


def test_the_schema_knows_it(site: Path) -> None:
    schema = json.loads(upskit(site, "schema").stdout)
    assert schema["$defs"]["encoder.wavelets"]["properties"]["family"]["enum"] == ["haar", "db2"]
