"""docs/reproducing.md: commands that exist, recipes and keys that are there, and no claim left out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ups_kit import read_recipe

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/reproducing.md").read_text()
INLINE = re.findall(r"`((?:upskit|python) [^`\n]+)`", PAGE)
COMMANDS = [shlex.split(line) for line in (*INLINE, *re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE))]
SHARED = ("trials", "measure", "plain", "plain_points")  # what benchmarks import

sys.path.append(str(ROOT / "docs/_examples"))
from commands import problems  # noqa: E402 - the part of the pages' own tests that needs no sybil


def called(program: str) -> list[Sequence[str]]:
    return [words[1:] for words in COMMANDS if words[0] == program]


@pytest.mark.parametrize("words", called("upskit"), ids=" ".join)
def test_commands_parse_and_recipes_take_their_settings(words: Sequence[str]) -> None:
    assert not problems(words)
    settings = [after for word, after in pairwise(words) if word == "--set"]
    for word in words:
        if word.endswith(".toml"):
            assert read_recipe(ROOT / word, settings)


@pytest.mark.parametrize("words", called("python"), ids=" ".join)
def test_scripts_are_there_and_have_their_options(words: Sequence[str]) -> None:
    sources = (ROOT / words[0]).read_text() + (ROOT / "benchmarks/trials.py").read_text()
    assert not [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in sources]


def test_every_measured_recipe_and_benchmark_is_on_the_page() -> None:
    measured = [
        path.name for path in (ROOT / "recipes").glob("*.toml") if re.search("^# Measured", path.read_text(), re.M)
    ]
    assert len(measured) > 20
    assert not [name for name in measured if f" recipes/{name}" not in PAGE]
    scripts = [path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in SHARED]
    assert not [path.name for path in scripts if f"python benchmarks/{path.name}" not in PAGE]
