"""The pages: links lead somewhere, and what they name is there. `make test-docs` runs what stands in their blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ups_kit.cli import cli
from ups_kit.plugins import GROUP, discover
from ups_plugins.upt.evaluation.config import FLOORS
from ups_plugins.upt.evaluation.report import BUDGET_TERMS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [path for room in ("ups_kit", "plugins", "tests", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))]
NO_PAGES = ("README.md", "compare.md", "replicate.md")  # the first page, and what commands write
SOURCES = [*CODE, *sorted((ROOT / "recipes").glob("*.toml"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing


def test_pages_that_sources_cite_are_there() -> None:
    cited = [
        (str(source.relative_to(ROOT)), page, section)
        for source in SOURCES
        for page, section in re.findall(r"([\w./-]*\w\.md)\b(?: §(\d+))?", source.read_text())
    ]
    assert len(cited) > 10
    for source, page, section in cited:
        path = ROOT / page if page.startswith("docs/") else ROOT / "docs" / page
        assert path.is_file() or Path(page).name in NO_PAGES, f"{source} cites {page}"
        assert not section or f"\n## {section}. " in path.read_text(), f"{source} cites {page} §{section}"


def test_the_page_about_the_method_names_every_part() -> None:
    page = (ROOT / "docs/method.md").read_text()
    kinds = ("encoder", "operator", "decoder", "constraint", "loss", "sampler", "stage", "schedule", "simulator")
    catalog = discover()
    own = catalog.without(plugin.name for plugin in catalog.plugins if plugin.distribution != GROUP)
    assert not [name for kind in kinds for name in own[kind] if f"`{name}`" not in page]


def test_the_page_about_the_code_names_files_that_are_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:ups_kit|plugins|tests)/[^`]*)`", page)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]
    data = {path.name for path in (ROOT / "ups_kit/data").glob("*.py")} - {"__init__.py"}
    assert not [name for name in data if f"`{name}`" not in page]
    plugins = {path.name for path in (ROOT / "plugins/ups_plugins").iterdir() if (path / "__init__.py").exists()}
    assert not [name for name in plugins if f"`{name}`" not in page]


def test_the_page_about_the_numbers_names_them_all() -> None:
    page = (ROOT / "docs/evaluation.md").read_text()
    names = {*FLOORS, *BUDGET_TERMS, *discover()["metric"]} - {"frmse"}
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_first_page_names_every_recipe_and_verb() -> None:
    page = (ROOT / "README.md").read_text()
    assert not [path.name for path in (ROOT / "recipes").glob("*.toml") if f"(recipes/{path.name})" not in page]
    verbs = cli.commands["data"].commands  # type: ignore[attr-defined]
    shown = [line for line in page.splitlines() if line.startswith("| `upskit data")]
    assert not [verb for verb in verbs if not any(re.search(rf"\b{verb}\b", line.split("|")[1]) for line in shown)]
