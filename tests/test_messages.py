"""The exact text of what a user is told about a recipe: tests/messages/<case>.toml beside <case>.txt.

The cases in messages/checked use the built-in components and are checked against their data, as `upskit validate` does.
The first comments of a case may set things up: `# --set KEY=VALUE`, `# plugin NAME = MODULE`, `# strangers` (the
distributions below are installed), `# env NAME=VALUE`, `# --no-plugin NAME`, and `# exit CODE`. To write the texts
anew after a change that is meant: `UPSKIT_REWRITE_MESSAGES=1 pytest tests/test_messages.py`, then read the difference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ups_kit.cli.recipes import check_parts
from ups_kit.disabling import leaving_out
from ups_kit.documents import LARGEST
from ups_kit.errors import RecipeError
from ups_kit.plugins import GROUP, Catalog, discover
from ups_kit.reading import read_recipe

MESSAGES = Path(__file__).parent / "messages"
CHECKED = MESSAGES / "checked"
CASES = sorted(MESSAGES.glob("*.toml"))


OFFER = """
from attrs import frozen
from ups_kit import hookimpl

@frozen
class Config:
    def build(self, fields, latent): ...

@hookimpl
def ups_kit_components():
    return {"encoder": {"%s": Config}}
"""
STRANGERS: dict[str, tuple[str, dict[str, Any]]] = {  # distribution -> text of its module, what its papers say
    "ups-lacking": (f"import a_library_that_is_missing\n{OFFER % 'lacking'}", {}),
    "ups-newer": (OFFER % "newer", {"api": "v2"}),
    "ups-older": (OFFER % "older", {"requires": ["ups-kit>=0.0.1,<0.1"]}),
    "ups-ripples": (OFFER % "ripples", {}),
    "ups-twin": (OFFER.replace('"%s": Config', '"ripples": Config, "twin": Config'), {}),
}


def directives(path: Path, word: str) -> list[str]:
    """What the comments of a case say after `# word `."""
    start = f"# {word} ".encode()
    lines = path.read_bytes().splitlines()
    return [line.removeprefix(start).decode() for line in lines if line.startswith(start)]


def catalog_of(path: Path, stand_ins: Catalog, install: Callable[..., Distribution]) -> Catalog:
    extra = [line.split(" = ") for line in directives(path, "plugin")]
    points = [EntryPoint(name, module, GROUP) for name, module in [("stand_ins", "stand_ins"), *extra]]
    if b"# strangers" in path.read_bytes():
        papers = [install(name, "0.2", text, **options) for name, (text, options) in STRANGERS.items()]
        points += [point for each in papers for point in each.entry_points if point.group == GROUP]
    if len(points) == 1:
        return stand_ins
    assert "stand_ins" in sys.modules
    return discover(points=points)


def told(path: str, settings: list[str], catalog: Catalog | None, exit_code: int = 2) -> str:
    with pytest.raises(RecipeError) as caught:
        check_parts(read_recipe(path, settings, catalog))
    assert caught.value.exit_code == exit_code
    return str(caught.value).replace(str(Path.cwd()), "{cwd}") + "\n"


def compare(case: str, text: str) -> None:
    expected = MESSAGES / f"{case}.txt"
    if os.environ.get("UPSKIT_REWRITE_MESSAGES"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_message(
    path: Path, stand_ins: Catalog, install: Callable[..., Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MESSAGES)
    for line in directives(path, "env"):
        monkeypatch.setenv(*line.split("=", 1))
    (exit_code,) = directives(path, "exit") or ["2"]
    options = directives(path, "--no-plugin")
    with leaving_out(options) if options else nullcontext():
        catalog = catalog_of(path, stand_ins, install)
        compare(path.stem, told(path.name, directives(path, "--set"), catalog, int(exit_code)))


@pytest.mark.parametrize("path", sorted(CHECKED.glob("*.toml")), ids=lambda path: path.stem)
def test_message_of_a_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKED)
    exit_code = 3 if path.stem == "r34_no_data" else 2  # the recipe is right there, and the data are missing
    compare(f"checked/{path.stem}", told(path.name, directives(path, "--set"), None, exit_code))


def test_a_missing_file(stand_ins: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("burgers_upt.toml", "smoke.toml"):
        (tmp_path / name).touch()
    compare("r01_missing", told("burgers_utp.toml", [], stand_ins))


def test_a_file_missing_beside_the_recipes(stand_ins: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/smoke.toml").touch()
    compare("r01_elsewhere", told("smoke.toml", [], stand_ins))


def test_a_directory(stand_ins: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/smoke.toml").touch()
    compare("r02_directory", told("recipes", [], stand_ins))


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("r07_deep_arrays", "a = " + "[" * 3000),
        ("r07_deep_keys", "a" + ".a" * 3000 + " = 1"),
        ("r07_large", "#" * (LARGEST + 1)),
    ],
)
def test_a_file_too_large_or_too_deep(
    stand_ins: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big.toml").write_text(text)
    compare(case, told("big.toml", [], stand_ins))


def test_no_text_without_a_case() -> None:
    made = {"r01_missing", "r01_elsewhere", "r02_directory", "r07_deep_arrays", "r07_deep_keys", "r07_large"}
    assert {path.stem for path in MESSAGES.glob("*.txt")} == {path.stem for path in CASES} | made
