"""The pages: the Python on them runs, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ups_kit.cli import cli
from ups_kit.data.layouts import guess_layouts
from ups_kit.plugins import GROUP, discover
from ups_kit.reading import read_recipe
from ups_kit.sketches import sketch
from ups_plugins.upt.evaluation.config import FLOORS
from ups_plugins.upt.evaluation.report import BUDGET_TERMS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [path for room in ("ups_kit", "plugins", "tests", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))]
CONSOLE = re.findall(r"^\$ (upskit data .*)$", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
NO_PAGES = ("README.md", "compare.md", "replicate.md")  # the first page, and what commands write
SOURCES = [*CODE, *sorted((ROOT / "recipes").glob("*.toml"))]


def test_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "runs/from_python/1/report.html").is_file()


def test_the_python_on_the_page_about_data_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, in order; what it writes is read with the table that `inspect` would give."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/data.md", "exec"), names)
    (layout,) = guess_layouts(Path("waves.zarr"))
    assert (layout.use, layout.problems, layout.fields["conditions"]) == ("grid_zarr", (), ["dt", "speed"])


def test_the_tables_on_the_page_about_data_are_read(tmp_path: Path) -> None:
    """Each [dataset] that the page shows has only keys that there are, with values that they take."""
    page = (ROOT / "docs/data.md").read_text()
    tables = [text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[dataset]\n" in text]
    assert len(tables) >= 4
    model = sketch(discover())
    rest = model[model.index("[latent]") :]
    for number, table in enumerate(tables):
        recipe = tmp_path / f"{number}.toml"
        recipe.write_text(f'[run]\nname = "page"\n\n{table}\n{rest}')
        uses = re.findall(r'^use = "(\w+)"', table, re.MULTILINE)
        dataset = read_recipe(recipe).recipe.dataset
        assert type(dataset) is discover()["dataset"][uses[0]].config


def test_the_own_file_of_the_first_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What README.md shows of a file is what the commands print, and its recipe is valid with that file."""
    page = (ROOT / "README.md").read_text().split("## On your own file")[1].split("\n## ")[0]
    console, table = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)[0] for kind in ("console", "toml"))
    made, inspected = re.findall(r"^\$ upskit (data .*)$", console, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    runner = CliRunner()
    assert runner.invoke(cli, shlex.split(made, comments=True)).exit_code == 0
    printed = runner.invoke(cli, shlex.split(inspected, comments=True)).output.splitlines()
    shown = [line for line in console.split(inspected)[1].splitlines() if line not in ("", "…")]
    assert len(shown) >= 8
    assert not [line for line in shown if line not in printed and not line.startswith("path = ")]
    (tmp_path / "waves.toml").write_text(table)
    done = runner.invoke(cli, ["data", "validate", "waves.toml"])
    assert (done.exit_code, "250 train, 50 validation, 100 test" in done.output) == (0, True)


@pytest.mark.parametrize("line", CONSOLE)
def test_commands_on_the_page_about_data_are_there(line: str) -> None:
    """Every command and option that the page shows exists; what they do, tests/commands says."""
    words = shlex.split(line, comments=True)
    command = cli.commands["data"].commands[words[2]]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert not [word for word in words if word.startswith("--") and word not in known]


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
