"""A tiny experiment of real parts: made Burgers data of 16 points, grid encoder, transformer, partition decoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ups_kit import LatentSpec
from ups_kit.data.making import make
from ups_kit.fit.settings import Budget
from ups_kit.folder import RunFolder, StageFolder
from ups_kit.interfaces import Dataset
from ups_kit.model import LatentModel
from ups_kit.recipe import Run
from ups_plugins.decoders.config import PartitionConfig
from ups_plugins.grid.config import GridEncoderConfig, PDEBenchConfig
from ups_plugins.operators.config import TransformerConfig
from ups_plugins.optim import AdamWConfig, CosineScheduleConfig, MuonConfig
from ups_plugins.simulators.config import Burgers1DConfig
from ups_plugins.upt.config import ForwardConfig, InverseEncodingConfig, LatentForwardConfig
from ups_plugins.upt.training.config import OperatorStageConfig


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("data") / "burgers.hdf5"
    simulator = Burgers1DConfig(trajectories=20, points=16, frames=8, epsilon=0.1, device="cpu")
    make(path, simulator)
    return PDEBenchConfig(path=path, validation=4, test=4).build(seed=0)


def model_of(dataset: Dataset, drop_path: float = 0.1) -> LatentModel:
    torch.manual_seed(3)
    fields, latent = dataset.fields, LatentSpec(width=8)
    return LatentModel(
        GridEncoderConfig(patch_size=4, heads=1).build(fields, latent),
        TransformerConfig(depth=2, heads=1, rank=4, drop_path=drop_path).build(fields, latent),
        PartitionConfig().build(fields, latent),
        fields,
    )


def experiment_of(dataset: Dataset, seed: int = 0, **model: Any) -> Any:
    run = Run(name="tiny", seed=seed)
    return SimpleNamespace(
        dataset=dataset,
        model=model_of(dataset, **model),
        device=torch.device("cpu"),
        recipe=SimpleNamespace(run=run, stages=(), latent_cache=None),
    )


def operator_stage(**keys: Any) -> OperatorStageConfig:
    settings: dict[str, Any] = {
        "budget": Budget(steps=12),
        "optimizer": MuonConfig(),
        "schedule": CosineScheduleConfig(warmup=3),
        "ema": 0.9,
        "batch": 6,
        "validate_every": 4,
        "checkpoint_every": 3,
        "validation_steps": 3,
        "losses": {
            "forward": ForwardConfig(error="relative"),
            "inverse_encoding": InverseEncodingConfig(),
            "latent_forward": LatentForwardConfig(weight=0.1),
        },
    }
    return OperatorStageConfig(**(settings | keys))


def stage_folder(path: Path, name: str = "operator", resume: bool = False) -> StageFolder:
    path.mkdir(exist_ok=True)
    return RunFolder(path).stage(name, resume)


@pytest.fixture(scope="session")
def tiny(dataset: Dataset) -> SimpleNamespace:
    return SimpleNamespace(
        dataset=dataset,
        experiment=lambda **keys: experiment_of(dataset, **keys),
        operator_stage=operator_stage,
        folder=stage_folder,
        adamw=AdamWConfig,
    )
