"""The fixtures and the tiny things that plugin authors are given, and the package's own lightness."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ups_kit.assemble import assemble, check
from ups_kit.interfaces import KINDS
from ups_kit.plugins import discover
from ups_kit.run import run
from ups_kit.testing import check_component, clauses_of, tiny_recipe, with_tiny
from ups_kit.testing.tiny import PLACES, TINY, Place, TinyDatasetConfig

OWN_TESTS = """
import attrs

def test_catalog(catalog):
    assert catalog["encoder"]["tiny"].plugin == "ups_kit.testing"
    assert "forward" in catalog["loss"]

def test_dataset(tiny_dataset):
    batch = tiny_dataset("mesh").batch("train", [0, 1], 1)
    assert batch.mask is not None and batch.states.shape[:2] == (2, 2)

def test_recipe(tiny_recipe, catalog):
    from ups_kit.assemble import assemble
    operator = catalog["operator"]["transformer"].config(depth=1)
    experiment = assemble(attrs.evolve(tiny_recipe, operator=operator), catalog)
    assert len(experiment.stages) == 1
"""


def test_importing_it_loads_neither_pytest_nor_torch() -> None:
    code = "import sys, ups_kit.testing; print(sorted({'torch', 'pytest', '_pytest'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_stranger_takes_the_fixtures_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p ups_kit.testing.fixtures\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("kind", TINY)
def test_the_tiny_components_keep_their_own_contracts(kind: str) -> None:
    check_component(kind, "tiny")


@pytest.mark.parametrize("on", PLACES)
def test_tiny_recipes_can_be_run_on_all_tiny_data(on: Place, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, on)
    assert check(recipe) == []
    experiment = assemble(recipe, with_tiny(discover()))
    assert experiment.dataset.fields == PLACES[on]


def test_a_tiny_recipe_is_a_run_like_any_other(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        result = run(tiny_recipe(tmp_path), catalog=with_tiny(discover()))
    assert result.summary["status"] == "ok"
    assert (result.folder / "bundle").is_dir()


def test_particles_move_with_what_is_predicted_of_them() -> None:
    dataset = TinyDatasetConfig(on="particles").build(0)
    batch, fields = dataset.batch("train", np.arange(3), 2), dataset.fields
    velocity = dataset.normaliser.physical(batch.states[:, 1].double())
    reached = (batch.positions[:, 0].double() + fields.dt * velocity) % 1.0
    apart = (reached - batch.positions[:, 1].double() + 0.5) % 1.0 - 0.5
    assert float(apart.abs().max()) < 1e-5


def test_the_page_names_every_clause_that_there_is_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text()
    section = page.split("## Checking it")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    clauses = {clause for kind in KINDS for clause in clauses_of(kind)}
    assert clauses == set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)*)`", "\n".join(rows)))
