"""Steady tasks in 2D: answers to static fields, on other grids, with static fields of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ups_kit.errors import DataError
from ups_kit.fit.batches import TrainingWindows
from ups_kit.model import LatentModel
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.mixture.config import MixtureConfig
from ups_plugins.mixture.dataset import Mixture
from ups_plugins.upt.training.validation import rollout_validation

from .conftest import tasks_of
from .test_training import CPU, calibrate, experiment


def write_steady(path: Path, points: int, seed: int) -> Path:
    """Smooth static fields `nu` on a square, and an answer that is a linear map of them."""
    random = np.random.default_rng(seed)
    x = (np.arange(points) + 0.5) / points
    waves = np.cos(np.pi * np.arange(3)[:, None] * x)
    nu = np.einsum("sab,ax,by->sxy", random.normal(size=(24, 3, 3)), waves, waves)
    with h5py.File(path, "w") as file:
        file["nu"] = nu.astype(np.float32)
        file["tensor"] = (2 + 3 * nu)[:, None].astype(np.float32)
        file["x-coordinate"], file["y-coordinate"] = x, x
        file.attrs["beta"] = 1.0
    return path


@pytest.fixture
def steady(tmp_path: Path) -> Mixture:
    tasks = {
        name: PDEBenchConfig(
            path=write_steady(tmp_path / f"{name}.h5", points, seed),
            fields=(name,),
            periodic=False,
            validation=4,
            test=4,
        )
        for name, points, seed in (("head", 16, 1), ("heat", 8, 2))
    }
    built = MixtureConfig(tasks=tasks).build(seed=0)
    assert isinstance(built, Mixture)
    return built


def test_steady_tasks_are_answers_to_their_statics(steady: Mixture, make_model: Callable[..., LatentModel]) -> None:
    fields = steady.fields
    assert (fields.steady, fields.space_dims, fields.target_channels, fields.input_channels) == (True, 2, 2, 1)
    first = steady.tasks["head"].windows("train", 1)
    batch = steady.batch("train", first + np.arange(3), 1)
    assert (batch.grid, batch.channels, batch.inputs.values.shape) == ((8, 8), (1,), (3, 64, 1))
    assert not batch.states[:, 0].any()
    assert not batch.states[..., 0].any()
    assert torch.allclose(batch.states[:, 1, :, 1:], batch.inputs.values, atol=1e-4), "both normalised"
    model = make_model(steady, fresh=True, width=16).eval()
    with torch.no_grad():
        validation = rollout_validation(steady, CPU, 1, 50, 8)
        before = validation(model)
        windows = TrainingWindows(dataset=steady, steps=1, batch=6, seed=0, stage="operator", shift=True, device=CPU)
        calibrate(experiment(steady, model), windows)
        after = validation(model)
    for name in ("head/score", "heat/score"):
        assert after[name] < 0.1 < before[name]


def test_steady_data_and_time_series_make_no_mixture(steady: Mixture, files: dict[str, Path]) -> None:
    still = steady.tasks["head"].member.settings  # type: ignore[attr-defined]
    mixed = MixtureConfig(tasks={**tasks_of(files), "head": still})
    with pytest.raises(DataError) as found:
        mixed.describe()
    assert "tasks.burgers a time series, tasks.waves a time series, tasks.head steady" in str(found.value)
    assert "tasks.waves 1D, tasks.head 2D" in str(found.value)
