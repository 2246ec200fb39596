"""What is installed is what stands in the sources: entry points freeze when a package is installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from ups_kit.plugins import GROUP, discover

ROOT = Path(__file__).parents[2]
AGAIN = "run pip install -e . again"


def test_folders_pyproject_and_installed_entry_points_agree() -> None:
    folders = {path.parent.name for path in (ROOT / "plugins/ups_plugins").glob("*/__init__.py")}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == {name: f"ups_plugins.{name}" for name in sorted(folders)}, (
        "pyproject.toml lists every plugin folder"
    )
    installed = {
        point.name: point.value
        for point in entry_points(group=GROUP)
        if point.dist is not None and point.dist.name == GROUP
    }
    assert installed == declared, AGAIN


def test_every_built_in_plugin_works() -> None:
    assert {plugin.name: plugin.reason for plugin in discover().broken() if plugin.distribution == GROUP} == {}


def test_every_component_has_a_docstring_and_help_for_its_keys() -> None:
    from ups_kit.keys import keys_of

    for registry in discover().registries.values():
        for entry in registry.values():
            assert (entry.config.__doc__ or "").strip(), f"{entry.kind} {entry.name} has no docstring"
            silent = [name for name, key in keys_of(entry.config).items() if not key.help]
            assert not silent, f"{entry.kind} {entry.name}: no help for {silent}"
