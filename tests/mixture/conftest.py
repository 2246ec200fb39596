"""Two small tasks: Burgers' equation on 64 points, and waves that move with a speed of their own on 32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from ups_kit import LatentSpec
from ups_kit.data.making import make
from ups_kit.model import LatentModel
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.mixture.config import MixtureConfig
from ups_plugins.mixture.dataset import Mixture
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.simulators.config import Burgers1DConfig


def write_waves(path: Path, trajectories: int = 12, points: int = 32, nodes: bool = True, seed: int = 0) -> Path:
    """Two sine waves on [-1, 1] that move with the speed `beta` of their trajectory, in PDEBench's layout."""
    random = np.random.default_rng(seed)
    x = -1 + 2 * (np.arange(points) + (0.0 if nodes else 0.5)) / points
    t = 0.05 * np.arange(7)
    beta = random.uniform(0.2, 3.0, trajectories)
    place = x - beta[:, None, None] * t[:, None]
    phase, size = random.uniform(0, 6, (2, trajectories, 2, 1, 1))
    values = sum((1 + size[:, k]) * np.sin(np.pi * (k + 1) * place + phase[:, k]) for k in range(2))
    with h5py.File(path, "w") as file:
        file["tensor"] = (3 + 5 * values).astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = x, np.append(t, 0.35)
        file["beta"] = beta
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tasks")
    make(folder / "burgers.h5", Burgers1DConfig(trajectories=20, points=64, frames=6, device="cpu", refinement=1))
    return {"burgers": folder / "burgers.h5", "waves": write_waves(folder / "waves.h5")}


def tasks_of(files: dict[str, Path], **waves: Any) -> dict[str, PDEBenchConfig]:
    return {
        "burgers": PDEBenchConfig(path=files["burgers"], validation=4, test=4),
        "waves": PDEBenchConfig(**({"path": files["waves"], "validation": 3, "test": 3, "fields": ("wave",)} | waves)),
    }


@pytest.fixture(scope="session")
def config(files: dict[str, Path]) -> MixtureConfig:
    return MixtureConfig(tasks=tasks_of(files), weights={"burgers": 2.0, "waves": 1.0})


@pytest.fixture(scope="session")
def mixture(config: MixtureConfig) -> Mixture:
    built = config.build(seed=0)
    assert isinstance(built, Mixture)
    return built


@pytest.fixture
def make_model() -> Callable[..., LatentModel]:
    def build(mixture: Mixture, fresh: bool = False, width: int = 8) -> LatentModel:
        torch.manual_seed(3)
        fields, latent = mixture.fields, LatentSpec(width=width)
        model = LatentModel(
            GridEncoderConfig(patch_size=4, heads=1).build(fields, latent),
            TransformerConfig(depth=1, heads=1, rank=4).build(fields, latent),
            PartitionConfig(modes=5).build(fields, latent),
            fields,
        )
        with torch.no_grad():  # what is zero in a fresh model counts here too
            for weight in model.parameters() if not fresh else ():
                weight.add_(0.05 * torch.randn_like(weight))
        return model

    return build
