"""What is wrong on a page is told: a page that runs through without a word would say nothing of its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from blocks import parse
from page import close_page, open_page
from sybil import Sybil
from sybil.example import SybilFailure

FENCE = "```"


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    open_page(found)
    yield found
    close_page(found)


def run(text: str, names: dict[str, Any], folder: Path) -> None:
    """All examples of a page with this text, in the folder that a page has."""
    path = folder / "page.md"
    path.write_text(text.replace("'''", FENCE))
    document = Sybil([parse]).parse(path)
    document.namespace.update(names)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'''\nls\n'''", "blocks in no language are not run"),
        ("'''bash\nls\n'''", "blocks in bash are not run"),
        ("'''text\n$ upskit list\n'''", "commands stand in console blocks"),
        ("'''console\n$ upskit show encoder grd\n'''", "did you mean 'grid'"),
        ("'''console\n$ pip install x\n'''", "pip is not run by the tests of pages"),
        ("'''console\n$ upskit list encoder\ngrid of another name\n'''", "does not print, or not here"),
        ("<!-- exit: 2 -->\n'''console\n$ upskit list encoder\n'''", "ended with 0, not 2"),
        ("<!-- not run: -->\n'''console\n$ upskit list\n'''", "a block that is not run says why"),
        ("<!-- not run: long -->\n'''console\n$ upskit run a.toml --sett b=1\n'''", "No such option"),
        ("'''toml\n[encoder]\npatchsize = 4\n'''", "did you mean 'patch_size'"),
        ("<!-- same as: recipes/smoke.toml -->\n'''toml\nextends = \"other.toml\"\n'''", '+extends = "other.toml"'),
        ("'''math\n\\begin{nonsense} x & y \\end{nonsense}\n'''", "not a formula"),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str, names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SybilFailure) as caught:
        run(text, names, tmp_path)
    assert told in str(caught.value)


def test_code_that_fails_is_told_by_its_line(names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("A page.\n\n'''python\na = 0\n1 / a\n'''", names, tmp_path)
    assert caught.traceback[-1].lineno == 4  # from 0 on


def test_a_block_with_a_reason_is_skipped_with_it(names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SkipTest, match="takes an hour"):
        run(
            "<!-- not run: takes an hour -->\n\n'''console\n$ upskit run recipes/burgers_upt.toml\n'''", names, tmp_path
        )


def test_blocks_share_names_files_and_the_folder(names: dict[str, Any], tmp_path: Path) -> None:
    run(
        "<!-- python: given = 3 -->\n'''python\nvalue = given + 1\n'''\n"
        "<!-- file: tiny.toml -->\n'''toml\nextends = \"recipes/smoke.toml\"\n'''\n"
        "'''python\nassert value == 4\n'''\n<!-- append: --explain run.name -->\n'''console\n"
        "$ upskit validate tiny.toml\n…run.name = \"smoke\"…\n'''\n'''{toctree}\nnothing\n'''\n",
        names,
        tmp_path,
    )
