"""Ten thousand damaged recipes: each is read, or refused by name of file and key; nothing else ever comes out."""

from __future__ import annotations

import copy
import datetime
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ups_kit.errors import RecipeError
from ups_kit.keypaths import quoted
from ups_kit.plugins import Catalog, discover
from ups_kit.reading import read_recipe
from ups_kit.recipe import Recipe
from ups_kit.tables import unstructure

VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 3, 2**63, -(10**30), 10**400, 0.0, 0.5, 3.0, -2.5, 1e300, float("nan"), float("inf")),
    *(
        True,
        False,
        "",
        "none",
        "64",
        "1e-3",
        "true",
        "grid",
        "gird",
        "os.system",
        "a:b",
        "${x}",
        "~",
        "~nobody/x",
        "\0",
    ),
    *("\u202e", "ä" * 200, "/", "..", "$HOME", "x\ny", datetime.date(2026, 11, 21), datetime.time(1, 2)),
    *(
        [],
        [1],
        [1, 2],
        ["a"],
        [[1], ["b"]],
        [{}],
        [{"use": "operator"}],
        {},
        {"use": "grid"},
        {"use": 3},
        {"seconds": 1},
    ),
)
NAMES = (
    "use",
    "name",
    "seed",
    "extends",
    "stages",
    "budget",
    "losses",
    "",
    "a.b",
    "ä",
    "0",
    "recipe_version",
    "plugins",
)
SHIPPED = Path(__file__).parents[1] / "recipes/burgers_upt.toml"
LOCATION = re.compile(r"^(line \d+, column \d+|byte \d+|file|.+): .+", re.DOTALL)


def written(value: Any) -> str:
    """A value as TOML, of any kind that TOML has."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_written(key)} = {written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(inner) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in value) + '"'
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else repr(value)


def key_written(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else quoted(key)


def containers(node: Any) -> Iterator[Any]:
    if isinstance(node, (dict, list)):
        if node:
            yield node
        for inner in node.values() if isinstance(node, dict) else node:
            yield from containers(inner)


def change_value(tables: dict[str, Any], draw: random.Random) -> None:
    """Put something else, somewhere else, or nothing in the place of one value."""
    node = draw.choice(list(containers(tables)) or [tables])
    if not node:
        return
    key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
    action = draw.random()
    if action < 0.5:
        node[key] = copy.deepcopy(draw.choice(VALUES))
    elif action < 0.65:
        del node[key]
    elif action < 0.8 and isinstance(node, dict):
        node[draw.choice((*NAMES, f"{key}s", str(key)[1:]))] = node.pop(key)
    elif action < 0.9:
        node[key] = {"inner": node[key]} if draw.random() < 0.5 else [node[key], node[key]]
    else:
        node[key] = copy.deepcopy(draw.choice(list(containers(tables))))


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Flip, insert, cut or repeat a few bytes."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at, length = draw.randrange(len(changed) + 1), draw.randint(1, 12)
        action = draw.randrange(4)
        if action == 0 and at < len(changed):
            changed[at] = draw.randrange(256)
        elif action == 1:
            changed[at:at] = draw.choice(
                (b'"', b"[", b"]", b"{", b"=", b"\n", b".", b"#", b"'''", b"\xff", b"\r", b"9")
            )
        elif action == 2:
            del changed[at : at + length]
        else:
            changed[at:at] = changed[at : at + length]
    return bytes(changed)


def read(path: Path, settings: list[str], catalog: Catalog) -> int:
    """1 where the recipe was refused properly, 0 where it was read."""
    refused = None
    try:
        recipe = read_recipe(path, settings, catalog).recipe
    except RecipeError as error:
        refused = error
    if refused is None:
        assert isinstance(recipe, Recipe)
        unstructure(recipe, catalog)
        return 0
    assert str(refused).startswith(str(path.parent)), "the file is named"
    assert refused.problems
    assert all(problem.path and LOCATION.match(str(problem)) for problem in refused.problems), "the key is named"
    return 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fuzzed.toml"


@pytest.mark.parametrize("seed", range(5))
def test_damaged_values(stand_ins: Catalog, waves: Path, path: Path, seed: int) -> None:
    draw = random.Random(seed)
    tables = tomllib.loads(waves.read_text())
    refused = 0
    for _ in range(1000):
        changed = copy.deepcopy(tables)
        for _ in range(draw.randint(1, 2)):
            change_value(changed, draw)
        path.write_text("\n".join(f"{key_written(key)} = {written(value)}" for key, value in changed.items()))
        refused += read(path, [], stand_ins)
    assert 500 < refused < 1000  # most damage is found, and some does no harm


def test_damaged_values_of_a_shipped_recipe(path: Path) -> None:
    """The same with the built-in components."""
    draw, catalog = random.Random(2000), discover()
    tables = tomllib.loads(SHIPPED.read_text())
    refused = 0
    for _ in range(500):
        changed = copy.deepcopy(tables)
        change_value(changed, draw)
        path.write_text("\n".join(f"{key_written(key)} = {written(value)}" for key, value in changed.items()))
        refused += read(path, [], catalog)
    assert 250 < refused < 500


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes(stand_ins: Catalog, waves: Path, path: Path, seed: int) -> None:
    draw = random.Random(100 + seed)
    data = waves.read_bytes()
    refused = 0
    for _ in range(1000):
        path.write_bytes(change_bytes(data, draw))
        refused += read(path, [], stand_ins)
    assert 500 < refused < 1000


def test_damaged_settings(stand_ins: Catalog, waves: Path, tmp_path: Path) -> None:
    draw = random.Random(1000)
    paths = [
        "run.seed",
        "run",
        "stages.operator.budget",
        "stages.0.losses.rollout.weight",
        "stages.5",
        "trackers.x.every",
    ]
    paths += ["dataset.path", "encoder.use", "latent.width.x", "plugins.disable", "", "a b", "'", "extends", "stages"]
    refused = 0
    for _ in range(1000):
        settings = [
            change_bytes(f"{draw.choice(paths)}={written(draw.choice(VALUES))}".encode(), draw).decode(errors="replace")
            if draw.random() < 0.3
            else f"{draw.choice(paths)}={written(draw.choice(VALUES))}"
            for _ in range(draw.randint(1, 2))
        ]
        refused += read(waves, settings, stand_ins)
    assert 500 < refused < 1000
