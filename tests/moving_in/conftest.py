"""Configurations of the ancestor, whole and in parts, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ups_kit.moving_in.importing import Imported, import_config
from ups_kit.moving_in.settings import Settings
from ups_kit.moving_in.translation import translate
from ups_kit.moving_in.yaml_files import Tree, Value, read_yaml
from ups_kit.plugins import Catalog, discover

EVERY_KEY = Path(__file__).parent / "every_key.yaml"
TRACKERS = {"wandb": {"project", "entity", "name", "tags", "group", "notes"}}


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return discover()


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings of plain values by dotted path."""
    return Settings.of(Tree("some.yaml", {tuple(key.split(".")): Value(value, "") for key, value in values.items()}))


def translated(values: Mapping[str, Any] | Settings, **options: Any) -> tuple[dict[str, Any], Settings]:
    """The recipe of dotted values, as if no data were there and wandb's plugin were installed."""
    settings = values if isinstance(values, Settings) else settings_of(values)
    given = {"grid_of": lambda table: None, "without": {}, "tracker_keys": TRACKERS, **options}
    return translate(settings, Path("recipes"), **given), settings


@pytest.fixture(scope="session")
def every() -> dict[str, Any]:
    """Every key of the ancestor by its dotted path."""
    return {".".join(map(str, path)): value.value for path, value in read_yaml(EVERY_KEY).leaves.items()}


@pytest.fixture
def imported(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Imported]:
    """A YAML text imported, checked as the command does."""
    from ups_kit.cli.import_config import _problems

    monkeypatch.chdir(tmp_path)

    def make(text: str) -> Imported:
        (tmp_path / "old.yaml").write_text(text)
        return import_config(Path("old.yaml"), Path("new.toml"), catalog, lambda tables: _problems(tables, catalog))

    return make
