"""Every component that comes with ups_kit keeps the contract of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ups_kit.cli import cli
from ups_kit.plugins import Catalog, discover
from ups_kit.testing import contract_report
from ups_kit.testing.examples import tiny_settings
from ups_kit.testing.files import made
from ups_kit.testing.tiny import PLACES

from ..data.well_files import write_well
from ..particles.particle_files import benchmark

BUILT_IN = [
    (entry.kind, entry.name)
    for registry in discover().registries.values()
    for entry in registry.values()
    if entry.plugin in {plugin.name for plugin in discover().plugins if plugin.distribution == "ups_kit"}
]
FEW = {"validation": 2, "test": 2}


@cache
def catalog() -> Catalog:
    return discover()


def simulated(name: str) -> Path:
    config = catalog()["simulator"][name].config
    return made(config(**tiny_settings(config)))


def grid_zarr(folder: Path) -> Mapping[str, Any]:
    source, target = simulated("burgers1d"), folder / "burgers.zarr"
    done = CliRunner().invoke(cli, ["data", "convert", str(source), "--to", "zarr", "--out", str(target)])
    assert done.exit_code == 0, done.output
    return {"path": folder / "burgers.zarr", **FEW}


def lagrangebench(folder: Path) -> Mapping[str, Any]:
    return {"path": benchmark(folder / "files")}


def well(folder: Path) -> Mapping[str, Any]:
    values = np.random.default_rng(0).standard_normal((6, 4, 8, 8)).astype("f4")
    return {"path": write_well(folder / "well.hdf5", {"density": (0, values, {})}, (8, 8), 4, 6), **FEW}


def mixture(folder: Path) -> Mapping[str, Any]:
    names = ("burgers1d", "advection1d")
    return {"tasks": {name: {"use": "pdebench", "path": simulated(name), **FEW} for name in names}}


FILES: Mapping[str, Callable[[Path], Mapping[str, Any]]] = {  # of data sets that no simulator makes files for
    "grid_zarr": grid_zarr,
    "lagrangebench": lagrangebench,
    "well": well,
    "mixture": mixture,
}


# What may be skipped of a component that comes with ups_kit: there is nothing of the kind to check in it.
SKIPPED: Mapping[str, set[str]] = {
    "encoder": {"permutation", "padding", "preparation", "devices"},
    "operator": {"devices"},
    "decoder": {"devices"},
    "loss": {"padding"},
    "sampler": {"unbiased", "state-round-trip"},
    "stage": {"trains", "resumes", "deterministic", "plans"},
}


@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=lambda value: value)
def test_it_keeps_its_contract(kind: str, name: str, tmp_path: Path) -> None:
    settings = FILES[name](tmp_path) if kind == "dataset" and name in FILES else {}
    report = contract_report(kind, name, catalog=catalog(), settings=settings)
    assert not report.broken, str(report)
    assert {finding.clause for finding in report.skipped} <= SKIPPED.get(kind, set())
    if (kind, name) in EVERYWHERE:
        assert set(report.on) == set(PLACES)


EVERYWHERE = (("encoder", "mesh"), ("operator", "transformer"), ("decoder", "perceiver"), ("loss", "forward"))
