"""docs/writing_a_plugin.md shows what `upskit new-plugin ups-h1` writes, all of its code."""

from __future__ import annotations

import re
from pathlib import Path

from ups_kit.new_plugin.naming import names_of
from ups_kit.new_plugin.rendering import Package

PAGE = Path(__file__).parents[2] / "docs/writing_a_plugin.md"
SHOWN = re.compile(r"<!-- same as: (?P<path>\S+) -->\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_shows_the_files_as_they_are_written() -> None:
    files = Package.of(names_of("ups-h1", []), ["loss"]).files()
    shown = {found["path"]: found["text"] for found in SHOWN.finditer(PAGE.read_text())}
    assert {path for path in files if path.endswith(".py")} | {"pyproject.toml"} == set(shown)
    for path, text in shown.items():
        assert text == files[path], f"{path} differs from the template: copy it to the page anew"


def test_the_page_names_every_file() -> None:
    files = Package.of(names_of("ups-h1", []), ["loss"]).files()
    page = PAGE.read_text()
    assert not [path for path in files if path not in page]
