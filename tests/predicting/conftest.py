"""Bundles of tiny models whose weights are noise: nothing is learned, and no part is the identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from scipy.spatial import Delaunay

import ups_kit
from ups_kit.assemble import Experiment, assemble
from ups_kit.bundle import save_bundle
from ups_kit.cli import main
from ups_kit.data.mesh_store import MeshSample, write_meshes

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = ("latent.width=16", "encoder.patch_size=4", "operator.depth=1", "decoder.modes=4")
FEW = ("dataset.train=6", "dataset.validation=2", "dataset.test=3", "dataset.simulate.trajectories=11")
Upskit = Callable[..., tuple[int, str, str]]


@frozen(eq=False)
class Case:
    """A bundle, what it was made of, and the data file that it names."""

    folder: Path
    experiment: Experiment
    data: Path


def made(home: Path, recipe: str, data: str, *settings: str, trained: tuple[str, ...] = ("operator",)) -> Case:
    """The bundle of a recipe whose weights are noise."""
    threads = torch.get_num_threads()
    given = [f"run.folder={home}", *([f"dataset.path={home / data}"] if data else []), *settings]
    read = ups_kit.read_recipe(RECIPES / recipe, given)
    experiment = assemble(read.recipe)
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in experiment.model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    experiment.model.eval()
    folder = home / f"{read.recipe.run.name}_{len(list(home.iterdir()))}"
    save_bundle(folder / "bundle", experiment, trained)
    return Case(folder, experiment, home / data)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def burgers(home: Path) -> Case:
    """Burgers' equation on 64 points, as in recipes/smoke.toml."""
    return made(home, "smoke.toml", "burgers.h5", *FEW)


@pytest.fixture(scope="session")
def drawing(home: Path, burgers: Case) -> Case:
    """The same with a part that draws forecasts, and one that no stage has trained."""
    small = ("dataset.simulate.points=64", "dataset.simulate.frames=13", "dataset.simulate.refinement=1")
    trained = ("codec", "operator", "diffusion")
    return made(home, "burgers_full.toml", "burgers.h5", *FEW, *small, *TINY, trained=trained)


@pytest.fixture(scope="session")
def prior(home: Path) -> Case:
    """Darcy flow with a prior of its answers, in 16 × 16 points."""
    small = ("dataset.simulate.points=16", *TINY)
    trained = ("codec", "steady_prior")
    return made(home, "darcy_steady_prior.toml", "darcy.h5", *FEW, *small, trained=trained)


@pytest.fixture(scope="session")
def meshes(home: Path) -> Case:
    """Waves on meshes that differ, two frames given."""
    write_meshes(home / "meshes.zarr", map(mesh, range(5)))
    settings = ("dataset.train=3", "dataset.validation=1", "dataset.test=1", "dataset.history=2", "dataset.features=[]")
    small = ("latent.width=16", "encoder.lattice=[3, 3]", "encoder.depth=1", "operator.depth=1", "decoder.modes=3")
    return made(home, "mesh_flow_upt.toml", "meshes.zarr", *settings, *small)


def mesh(number: int) -> MeshSample:
    random = np.random.default_rng(number)
    nodes, times = random.random((60 + 10 * number, 2)), 0.5 + 0.25 * np.arange(5)
    phase = 3 * nodes[None, :, 0] + 2 * nodes[None, :, 1] - times[:, None] + number
    return MeshSample(
        coords=nodes,
        cells=Delaunay(nodes).simplices.astype(np.int64),
        time=times,
        fields={"velocity": np.stack([np.sin(phase), np.cos(phase)], -1).astype(np.float32)},
        statics={"depth": nodes[:, :1] ** 2},
        parameters={"viscosity": 0.01 * (1 + number)},
    )


@pytest.fixture
def upskit(capsys: pytest.CaptureFixture[str]) -> Upskit:
    """Call `upskit` in this process: its exit code, what it prints, and what it says on standard error."""

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out, captured.err

    return call
