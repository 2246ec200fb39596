"""A small training for the engine's tests: three linear parts, made data, dropout, and noise drawn by the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from torch import nn

from ups_kit.fit.fitting import Task
from ups_kit.fit.forward import LossBundle
from ups_kit.fit.settings import Budget, FieldFitSettings
from ups_kit.folder import RunFolder, StageFolder
from ups_kit.interfaces import Batch, PointSet, Progress
from ups_kit.recipe import Run
from ups_kit.trackers import Trackers

POINTS = 8


@frozen
class ToyAdamW:
    lr: float = 1e-2

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=self.lr, fused=True)


@frozen
class ToySGD:
    lr: float = 1e-2

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=self.lr)


class ToyModel(nn.Module):
    def __init__(self, dropout: float = 0.1, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.encoder = nn.Linear(1, 6, dtype=dtype)
        self.operator = nn.Sequential(nn.Tanh(), nn.Linear(6, 6, dtype=dtype), nn.Dropout(dropout))
        self.decoder = nn.Linear(6, 1, dtype=dtype)
        self.register_buffer("table", torch.arange(7))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.decoder(self.operator(self.encoder(values)))
        return result


class ToySource:
    """Windows of fixed random numbers; batch k depends on k alone."""

    def __init__(self, windows: int = 40, batch: int = 4, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(1)
        self.windows = windows
        self._batch = batch
        self._values = torch.randn(windows, POINTS, 1, generator=generator, dtype=dtype)

    def numbers(self, step: int) -> np.ndarray:
        return np.random.default_rng(step).integers(0, self.windows, self._batch)

    def batch(self, step: int) -> Batch:
        values = self._values[self.numbers(step)]
        size = len(values)
        positions = torch.zeros(size, POINTS, 1)
        inputs = PointSet(positions, values, grid=(POINTS,))
        states = torch.stack([values, values.roll(1, 1) * 0.9], 1)
        return Batch(inputs, states, positions, (POINTS,), torch.zeros(size, 1), torch.zeros(size), torch.zeros(size))

    @contextmanager
    def stream(self, first: int) -> Iterator[Iterator[Batch]]:
        yield (self.batch(step) for step in range(first, 1_000_000))


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, dict[str, float]]] = []

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self.lines.append((stage, step, dict(values)))

    def figure(self, *arguments: object) -> None:
        pass

    def forget_after(self, stage: str, step: int) -> None:
        self.lines = [line for line in self.lines if line[0] != stage or line[1] <= step]

    def close(self) -> None:
        pass


def toy_task(
    *,
    model: nn.Module | None = None,
    source: ToySource | None = None,
    loss: Callable[..., LossBundle] | None = None,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    run: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Task:
    model = model or ToyModel()
    source = source or ToySource()

    def toy_loss(batch: Batch, progress: Progress, generator: torch.Generator) -> LossBundle:
        noise = torch.randn(batch.states.shape[:1], generator=generator)[:, None, None]
        error = (model(batch.inputs.values) - batch.states[:, 1] + 0.01 * noise).square().mean()
        return LossBundle(error, {"forward": error.detach()})

    def toy_validation(scored: nn.Module) -> Mapping[str, float]:
        held_out = source.batch(999_999)
        return {"score": float((scored(held_out.inputs.values) - held_out.states[:, 1]).square().mean())}

    keys: dict[str, Any] = {
        "budget": Budget(steps=20),
        "optimizer": ToyAdamW(),
        "batch": 4,
        "validate_every": 5,
        "checkpoint_every": 4,
        "log_every": 3,
    }
    return Task(
        stage="toy",
        model=model,
        settings=FieldFitSettings(**(keys | settings)),
        run=Run(name="toy", **(run or {})),
        device=torch.device("cpu"),
        source=source,
        loss=loss or toy_loss,
        validate=validate or toy_validation,
    )


def toy_folder(path: Path, resume: bool = False) -> StageFolder:
    path.mkdir(exist_ok=True)
    return RunFolder(path).stage("toy", resume)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_bits(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    torch.set_num_threads(1)
    return SimpleNamespace(
        Model=ToyModel,
        Source=ToySource,
        AdamW=ToyAdamW,
        SGD=ToySGD,
        Recorder=Recorder,
        task=toy_task,
        folder=toy_folder,
        weights=weights,
        same_bits=same_bits,
        no_trackers=lambda: Trackers([]),
    )
