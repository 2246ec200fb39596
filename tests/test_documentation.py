"""The documentation is whole: every page is in a list of its front page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def listed(page: Path) -> list[str]:
    """The names in a page's lists of contents."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]


def test_every_page_is_in_a_list_of_the_front_page() -> None:
    names = listed(DOCS / "index.md")
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert not pages - set(names)
    assert not [name for name in names if not (DOCS / f"{name}.md").is_file() and not name.startswith("generated/")]
    assert len(names) == len(set(names))
