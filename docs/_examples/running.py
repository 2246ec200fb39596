"""What is done with a block, by its language."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from difflib import unified_diff
from pathlib import Path
from typing import Any
from unittest import SkipTest

from commands import problems
from page import ROOT, Page, shrink
from sybil import Example

PAGE = Path("page.toml")


def evaluate_block(example: Example) -> str | None:
    """Run a block; what is wrong with it, or None. One that is not run is skipped with its reason."""
    block, page = example.parsed, example.namespace["page"]
    if block.language not in RUNNERS:
        return f"blocks in {block.language or 'no language'} are not run: use one of {', '.join(RUNNERS)}"
    reason = block.comment("not run")
    if reason is not None:
        found = _unknown_commands(block.source) if block.language == "console" else []
        if found or not reason:
            return "\n".join(found) or "a block that is not run says why: <!-- not run: WHY -->"
        raise SkipTest(reason)
    if block.comment("same as") is not None:
        return _differs(block.source, Path(str(block.comment("same as"))))
    wrong: str | None = RUNNERS[block.language](example, block, page)
    if block.comment("file") is not None and wrong is None:
        path = page.folder / str(block.comment("file"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.source)
    return wrong


def _differs(shown: str, path: Path) -> str | None:
    """How a block differs from the file that it shows; None where it does not."""
    lines = unified_diff(path.read_text().splitlines(), shown.splitlines(), str(path), "the page", lineterm="")
    return "\n".join(lines) or None


def evaluate_comment(example: Example) -> str | None:
    """Run what no reader sees."""
    word, text = example.parsed
    page: Page = example.namespace["page"]
    if word == "shrink":
        name, *settings = shlex.split(text)
        shrink(name, settings)
    else:
        _execute(text, example, page, 0)
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Python, recipes, and what is only read
# ---------------------------------------------------------------------------------------------------------------------
def _python(example: Example, block: Any, page: Page) -> None:
    _execute(block.source, example, page, 1)


def _execute(source: str, example: Example, page: Page, below: int) -> None:
    """Run code under its own lines of the page, so that a traceback shows them."""
    lines = "\n" * (example.line - 1 + below)
    exec(compile(lines + source, str(example.path), "exec"), page.names.__dict__)


def _toml(example: Example, block: Any, page: Page) -> str | None:
    from ups_kit import RecipeError, read_recipe
    from ups_kit.plugins import discover
    from ups_kit.sketches import sketch

    text = block.source
    tables = tomllib.loads(text)
    if "project" in tables or "tool" in tables:
        return None
    whole = "extends" in tables or {"run", "dataset", "stages"} <= tables.keys()
    if whole:
        page.recipe = text
        PAGE.write_text(text)
    else:
        base = block.comment("over")
        if base is None:
            base = "base.toml"
            Path(base).write_text(page.recipe or sketch(discover()))
        PAGE.write_text(f'extends = "{base}"\n\n{_addressed(text, base)}')
    try:
        read_recipe(PAGE)
    except RecipeError as error:
        return f"{error}\n\nof this text:\n\n{PAGE.read_text()}"
    return None


def _addressed(text: str, base: str) -> str:
    """`[stages.losses]`, which continues a `[[stages]]`, as the losses of the base's first stage that has any."""
    from ups_kit import read_recipe

    names = [stage.name for stage in read_recipe(base).recipe.stages if getattr(stage, "losses", None)]
    return re.sub(r"^\[stages\.losses", f"[stages.{names[0]}.losses" if names else "[stages.losses", text, flags=re.M)


def _math(example: Example, block: Any, page: Page) -> str | None:
    sys.path.insert(0, str(ROOT / "docs/_extensions"))
    from mathml import mathml

    try:
        mathml(block.source, "block")
    except ValueError as error:
        return str(error)
    return None


def _json(example: Example, block: Any, page: Page) -> None:
    json.loads(block.source)


def _text(example: Example, block: Any, page: Page) -> str | None:
    return "commands stand in console blocks" if re.search(r"^\$ |^upskit ", block.source, re.MULTILINE) else None


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------
def _console(example: Example, block: Any, page: Page) -> str | None:
    steps = list(_steps(block.source))
    if not steps:
        return "a console block has lines that begin with $"
    expected = [0] * (len(steps) - 1) + [int(block.comment("exit") or 0)]
    for number, ((line, shown), code) in enumerate(zip(steps, expected, strict=True), start=1):
        words = shlex.split(f"{line.split(' # ')[0]} {block.appended(number)}", comments=True)
        found, printed = _run(words)
        printed = printed.replace(str(page.folder), "/data")
        if found != code:
            return f"$ {shlex.join(words)}\nended with {found}, not {code}:\n{printed}"
        missing = _missing(shown, printed.splitlines())
        if missing is not None:
            return f"$ {shlex.join(words)}\ndoes not print, or not here:\n{missing}\nbut:\n{printed}"
    return None


def _steps(source: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that are shown below it."""
    steps: list[tuple[str, list[str]]] = []
    lines = iter(source.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines).strip()
            steps.append((command, []))
        elif line.strip() and steps:
            steps[-1][1].append(line.rstrip())
    return steps


def _run(words: list[str]) -> tuple[int, str]:
    """Run a command in the page's folder: its exit code, and all that it has printed."""
    if Path(words[0]).name == "upskit":
        from ups_kit.cli import main

        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            try:
                main(words[1:])
            except SystemExit as done:
                return int(done.code or 0), printed.getvalue()
    if words[0] == "make":
        words, place = ["make", "-n", *words[1:]], ROOT
    elif words[0] in ("python", "ls", "cat"):
        words, place = [sys.executable if words[0] == "python" else words[0], *words[1:]], Path()
    else:
        return 127, f"{words[0]} is not run by the tests of pages: <!-- not run: WHY -->"
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _missing(shown: list[str], printed: list[str]) -> str | None:
    """The first line that is shown and not printed after those before it; None where all are."""
    rest = iter(printed)
    for line in shown:
        pattern = re.compile(".*".join(re.escape(part) for part in line.split("…")))
        if line != "…" and not any(pattern.fullmatch(other.rstrip()) for other in rest):
            return line
    return None


def _unknown_commands(source: str) -> list[str]:
    commands = (shlex.split(line, comments=True) for line, _ in _steps(source))
    return [problem for words in commands if Path(words[0]).name == "upskit" for problem in problems(words[1:])]


RUNNERS = {"python": _python, "console": _console, "toml": _toml, "math": _math, "json": _json, "text": _text}
