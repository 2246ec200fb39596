"""Pages that are written from the code when the documentation is built, into docs/generated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import api_pages
import component_pages
import recipe_pages
from sphinx.application import Sphinx

FOLDER = "generated"


def pages() -> Iterator[tuple[str, str]]:
    """All of them: the name below `FOLDER`, and what is on the page."""
    for source in (component_pages, recipe_pages, api_pages):
        yield from source.pages()


def write(app: Sphinx) -> None:
    """Write what has changed, so that only that is built again; remove what is no longer there."""
    folder = Path(app.srcdir) / FOLDER
    names = set()
    for name, text in pages():
        path = folder / name
        names.add(path)
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if path not in names:
            path.unlink()
    for path in folder.iterdir():
        if path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
