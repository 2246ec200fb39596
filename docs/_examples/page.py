"""Where the blocks of one page run: a folder with the recipes, a module for the names, a recipe to lay parts over."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

from attrs import define, field

ROOT = Path(__file__).parents[2]
QUICK = ("stages.evaluate.pictures=false", "trackers=[]")  # pictures take longer than all else
FINISHED: dict[tuple[str, ...], Path] = {}  # runs that pages share, by recipe and settings


@define
class Page:
    """One page while its blocks run."""

    folder: Path
    before: Path  # the working directory that is gone back to
    names: ModuleType = field(factory=lambda: ModuleType("page"))
    recipe: str = ""  # the last whole recipe


def open_page(namespace: dict[str, Any]) -> None:
    """Make the folder, and go there."""
    page = Page(Path(mkdtemp(prefix="page-")).resolve(), Path.cwd())
    shutil.copytree(ROOT / "recipes", page.folder / "recipes")
    sys.modules[page.names.__name__] = page.names
    given = {"finished_run": finished_run, "installed": installed, "small_data": small("dataset.")}
    page.names.__dict__.update(given, small_model=[key for key in small() if not key.startswith("stages.")])
    sys.path.insert(0, str(page.folder))
    os.chdir(page.folder)
    namespace["page"] = page


def close_page(namespace: dict[str, Any]) -> None:
    """Go back, and leave nothing behind but the runs that other pages want, too."""
    page: Page = namespace["page"]
    os.chdir(page.before)
    sys.path.remove(str(page.folder))
    for name, module in list(sys.modules.items()):
        if name == page.names.__name__ or str(getattr(module, "__file__", "")).startswith(str(page.folder)):
            del sys.modules[name]
    shutil.rmtree(page.folder)


def finished_run(folder: str, recipe: str = "recipes/smoke.toml", *settings: str) -> None:
    """Put a finished run of a small recipe where a page says that there is one; each is run once for all pages."""
    from ups_kit import read_recipe
    from ups_kit.run import run

    key = (recipe, *settings)
    if key not in FINISHED:
        place = Path(mkdtemp(prefix="runs-")).resolve()
        shutil.copytree(ROOT / "recipes", place / "recipes")
        here = Path.cwd()
        os.chdir(place)
        try:
            FINISHED[key] = place / run(read_recipe(recipe, [*settings, *QUICK]).recipe).folder
        finally:
            os.chdir(here)
    shutil.copytree(FINISHED[key], folder)


def installed(distribution: str = "page", version: str = "1.0", /, **plugins: str) -> None:
    """Tell Python of a distribution whose modules are on the page: plugins by name, as in its pyproject.toml."""
    folder = Path(f"{distribution.replace('-', '_')}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    points = "".join(f"{name} = {module}\n" for name, module in plugins.items())
    (folder / "entry_points.txt").write_text(f"[ups_kit]\n{points}")


def shrink(name: str, settings: list[str]) -> None:
    """Lay settings over a recipe of the page's folder; where none are given, those of smoke.toml over burgers_upt."""
    path = Path(f"recipes/{name}.toml")
    whole = path.with_name(f"{path.stem}_whole.toml")
    path.rename(whole)
    settings = [*(settings or small()), *QUICK]
    lines = [f'extends = "{whole.name}"', *(setting.replace("=", " = ", 1) for setting in settings)]
    path.write_text("\n".join(lines) + "\n")


def small(begin: str = "") -> list[str]:
    """What recipes/smoke.toml lays over recipes/burgers_upt.toml, as settings, or the keys with this beginning."""
    leaves = _leaves(tomllib.loads((ROOT / "recipes/smoke.toml").read_text()))
    without = ("extends", "description", "run.name")
    return [f"{key}={value}" for key, value in leaves if key not in without and key.startswith(begin)]


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    from ups_kit.keys import toml

    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", toml(value)
