"""A page for each shipped recipe: its head comment, which has hardware, time and scores, and the file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from ups_kit.plugins import Catalog
from ups_kit.reading import read_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes"


def paths() -> list[tuple[str, Path]]:
    """All recipes by their names below `recipes`, without what is only laid over others."""
    found = sorted(path for path in FOLDER.rglob("*.toml") if path.parent.name != "overlays")
    return [(path.relative_to(FOLDER).with_suffix("").as_posix(), path) for path in found]


def pages() -> Iterator[tuple[str, str]]:
    """The page of every recipe, and the one that lists them."""
    rows = []
    for name, path in paths():
        text = path.read_text()
        yield f"recipes/{name}.md", _page(name, path, text)
        rows.append(f"| [`{name}`]({name}.md) | {tomllib.loads(text).get('description', '')} |")
    overlays = sorted((FOLDER / "overlays").glob("*.toml"))
    lines = [
        "# Shipped recipes",
        "",
        "Each page has what was measured, on which hardware and in what time, and the file itself.",
        "",
        "| recipe | what it is |",
        "| --- | --- |",
        *rows,
        "",
        "These are laid over others, and are no recipes by themselves:",
        "",
    ]
    for path in overlays:
        lines += [f"## overlays/{path.stem}", "", "```toml", path.read_text().rstrip(), "```", ""]
    names = (name for name, _ in paths())
    yield "recipes/index.md", "\n".join([*lines, "```{toctree}", ":hidden:", "", *names, "```", ""])


def _page(name: str, path: Path, text: str) -> str:
    comment = head(text)
    lines = [f"# {name}", "", *(comment or [tomllib.loads(text).get("description", "")]), ""]
    lines += ["```console", f"$ upskit run recipes/{name}.toml", "```", ""]
    used: dict[str, list[str]] = {}
    for kind, component in components_of(path):
        used.setdefault(kind, []).append(f"[`{component}`]({_up(name)}components/{kind}/{component}.md)")
    named = "; ".join(f"{kind} {', '.join(names)}" for kind, names in used.items())
    lines += [f"**What it is made of**, with what it extends: {named}.", ""]
    bases = tomllib.loads(text).get("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if bases:
        lines += [f"It extends {', '.join(f'`{base}`' for base in bases)}.", ""]
    lines += [f"`recipes/{name}.toml`, without the comment at its head:", "", "```toml", _without_head(text), "```", ""]
    return "\n".join(lines)


def _up(name: str) -> str:
    return "../" * (1 + name.count("/"))


def head(text: str) -> list[str]:
    """The comment at the head of a recipe as Markdown: paragraphs, and tables of numbers as they stand."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        line = line.removeprefix("#").removeprefix(" ")
        if line.startswith("   ") != fenced:
            lines += ["```"] if fenced else ["", "```text"]
            fenced = not fenced
        lines.append(line if fenced else _escaped(line))
    return [*lines, "```"] if fenced else lines


def _without_head(text: str) -> str:
    lines = text.rstrip().splitlines()
    while lines and lines[0].startswith("#"):
        del lines[0]
    return "\n".join(lines)


def _escaped(line: str) -> str:
    parts = line.split("`")
    for number in range(0, len(parts), 2):
        parts[number] = parts[number].replace("*", "\\*").replace("_", "\\_").replace("<", "\\<")
    return "`".join(parts)


@cache
def components_of(path: Path) -> tuple[tuple[str, str], ...]:
    """(kind, name) of all components in a recipe, in the order in which they stand in it."""
    read = read_recipe(path)
    classes = _classes(read.catalog)
    found: dict[tuple[str, str], None] = {}

    def visit(value: Any) -> None:
        if type(value) in classes:
            found.setdefault(classes[type(value)])
        if attrs.has(type(value)):
            for attribute in attrs.fields(type(value)):
                visit(getattr(value, attribute.name))
        elif isinstance(value, Mapping):
            for member in value.values():
                visit(member)
        elif isinstance(value, (tuple, list)):
            for member in value:
                visit(member)

    visit(read.recipe)
    return tuple(found)


def _classes(catalog: Catalog) -> dict[type, tuple[str, str]]:
    return {entry.config: (kind, entry.name) for kind, names in catalog.registries.items() for entry in names.values()}
