"""The documentation is whole: whatever a user can name, call or meet stands on a page."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ups_kit import errors
from ups_kit.cli import INTERRUPTED, cli
from ups_kit.interfaces import KINDS
from ups_kit.plugins import discover

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PROSE = "\n".join(page.read_text() for page in PAGES)
SOURCES = [path for room in ("ups_kit", "plugins/ups_plugins") for path in (ROOT / room).rglob("*.py")]

sys.path += [str(DOCS / "_examples"), str(DOCS / "_extensions")]
from commands import unknown  # noqa: E402 - the part of the pages' own tests that needs no sybil


def listed(page: Path) -> list[str]:
    """The names in a page's lists of contents."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below one, by what is typed."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(commands(cli, "upskit"))


def test_every_page_is_in_a_list_of_the_front_page() -> None:
    names = listed(DOCS / "index.md")
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert not pages - set(names)
    assert not [name for name in names if not (DOCS / f"{name}.md").is_file() and not name.startswith("generated/")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_is_in_the_text(kind: str) -> None:
    """Keys stand on pages that are made of the classes; what a component is for, a person has written."""
    ours = {plugin.name for plugin in discover().plugins if plugin.distribution == "ups_kit"}
    names = [name for name, entry in discover()[kind].items() if entry.plugin in ours]
    assert not [name for name in names if f"`{name}`" not in PROSE and f'use = "{name}"' not in PROSE]


def test_every_kind_is_in_the_text() -> None:
    assert not [kind for kind in KINDS if f"`{kind}`" not in (DOCS / "plugins.md").read_text()]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_in_the_text_and_says_what_its_options_do(path: str) -> None:
    """Options are listed on docs/commands.md, which is made of the commands: of what they say of themselves."""
    command = COMMANDS[path]
    assert command.help or path == "upskit check"
    assert not [p.opts for p in command.params if isinstance(p, click.Option) and not p.help]
    first = " ".join(path.split()[:2])
    assert re.search(rf"\b{path}\b", PROSE) or re.search(rf"{first} [^\n]*`{path.split()[-1]}`", PROSE)


def test_the_page_of_commands_is_made_of_all_of_them() -> None:
    page = (DOCS / "commands.md").read_text()
    assert ".. click:: command_line:upskit" in page
    assert ":nested: full" in page
    from command_line import upskit

    assert set(cli.commands) - set(upskit.commands) == {"check"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    """Those between backticks on a line; tests of the pages (`make test-docs`) run the others."""
    found = []
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`upskit ([a-z][^`\n]*)`", text):
        words = shlex.split(re.sub(r"[][|…]", " ", code), comments=True)
        found += [f"{code}: {problem}" for problem in unknown(words)]
    assert not found


def test_every_recipe_has_a_line_on_the_first_page() -> None:
    page = (ROOT / "README.md").read_text()
    recipes = [path for path in (ROOT / "recipes").rglob("*.toml") if path.parent.name != "overlays"]
    assert not [path.name for path in recipes if f"({path.relative_to(ROOT)})" not in page]


def test_every_exit_code_is_on_the_first_page() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {getattr(value, "exit_code", 0) for value in classes} - {errors.UpsKitError.exit_code}
    codes |= {errors.BELOW_FLOOR_EXIT_CODE, INTERRUPTED}
    (line,) = re.findall(r"^Exit codes: .*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert not [code for code in codes if not re.search(rf"\b{code}\b", line)]


def test_every_environment_variable_is_in_the_text() -> None:
    names = {name for path in SOURCES for name in re.findall(r"\bUPSKIT_[A-Z_]+\b", path.read_text())}
    assert "UPSKIT_DISABLE_PLUGINS" in names
    assert not [name for name in names - {"UPSKIT_COMPLETE"} if name not in PROSE]  # the shell's own
