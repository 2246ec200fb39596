"""Stand-ins: a data set of travelling waves, and models whose forecasts are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ups_kit.assemble import Experiment
from ups_kit.folder import RunFolder
from ups_kit.interfaces import Batch, Field, FieldSpec, Latent, PointSet, Queries, Trajectories
from ups_kit.model import LatentModel
from ups_kit.trackers import Trackers
from ups_plugins.upt.evaluation.config import EvaluateConfig

POINTS, FRAMES = 32, 13


class Scaling:
    """A normaliser with known numbers: targets 2 + 3·normalised, statics and conditions as they are."""

    def targets(self, values: Tensor) -> Tensor:
        return (values - 2) / 3

    def physical(self, values: Tensor) -> Tensor:
        return 2 + 3 * values

    def statics(self, values: Tensor) -> Tensor:
        return values

    def condition(self, values: Tensor) -> Tensor:
        return values


class Waves:
    """Periodic waves that travel at each trajectory's own speed, or at one for all; any number of frames given."""

    normaliser = Scaling()

    def __init__(self, speeds: tuple[float, ...], history: int = 1, offset: float = 0.0, frames: int = FRAMES) -> None:
        domain, conditions = ((0.0, 1.0),), ("dt", "speed")
        self.fields = FieldSpec(
            (Field("u", unit="m/s"),), domain, (True,), "grid", (POINTS,), 0.1, (), history, conditions
        )
        self.splits = dict.fromkeys(("train", "validation", "test"), tuple(range(len(speeds))))
        self._speeds = torch.tensor(speeds)
        self._positions = ((torch.arange(POINTS) + 0.5) / POINTS)[:, None]
        self._values = offset + self._waves(frames)
        self._frames = frames

    def _waves(self, frames: int) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        amplitude = torch.rand(len(self._speeds), 4, generator=generator)
        phase = 2 * math.pi * torch.rand(len(self._speeds), 4, generator=generator)
        shift = self._speeds[:, None] * 0.1 * torch.arange(frames)
        place = self._positions[:, 0] - shift[..., None]
        modes = torch.arange(1, 5)
        waves = torch.sin(2 * math.pi * modes * place[..., None] + phase[:, None, None])
        return (amplitude[:, None, None] * waves).sum(-1)[..., None]

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        samples = len(self._speeds)
        parameters = torch.stack([torch.full((samples,), 0.1), self._speeds], 1)
        times = 0.1 * torch.arange(self._frames)
        statics = torch.zeros(samples, POINTS, 0)
        return Trajectories(self._values, statics, self._positions, parameters, times, torch.arange(samples))

    def windows(self, split: str, steps: int) -> int:
        return len(self._speeds) * max(0, self._frames - self.fields.history - steps + 1)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        history, values = self.fields.history, self.normaliser.targets(self._values)
        each = self._frames - history - steps + 1
        sample, start = torch.from_numpy(windows // each), torch.from_numpy(windows % each)
        frames = torch.stack([values[sample, start + place] for place in range(history + steps)], 1)
        inputs = torch.cat([frames[:, place] for place in range(history)], -1)
        positions = self._positions.expand(len(windows), -1, -1)
        condition = self.trajectories(split).parameters[sample]
        points = PointSet(positions, inputs, grid=(POINTS,))
        states = frames[:, history - 1 :]
        return Batch(points, states, positions, (POINTS,), condition, sample, 0.1 * start.float())


class Scale(nn.Module):
    """Multiplication with a number that can be trained."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))


class Encoder(Scale):
    def __init__(self, channels: int, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.channels = channels

    def forward(self, points: PointSet) -> Latent:
        return Latent(self.factor * points.values[..., -self.channels :], points.positions[0], points.grid)


class Shift(Scale):
    """Carries the tokens on at the speed of the condition, or at a fixed one."""

    def __init__(self, speed: float | None = None, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.speed = speed

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        speed = condition[:, 1] if self.speed is None else torch.full_like(condition[:, 1], self.speed)
        spectrum = torch.fft.rfft(latent.tokens, dim=1)
        numbers = torch.arange(spectrum.shape[1], device=spectrum.device)
        angle = -2 * math.pi * numbers * (speed * condition[:, 0])[:, None]
        moved = torch.fft.irfft(spectrum * torch.exp(1j * angle)[..., None], n=latent.tokens.shape[1], dim=1)
        return latent._replace(tokens=self.factor * moved)


class Decoder(Scale):
    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        return self.factor * latent.tokens


SPEEDS = (0.3, -0.7, 1.1, 0.45, -0.2, 0.9, 1.6)


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels, and few frames: what takes the time of a report is to draw them."""
    monkeypatch.setattr("ups_plugins.upt.evaluation.report.DPI", 36)
    monkeypatch.setattr("ups_plugins.upt.evaluation.animation.FRAMES", 3)


@pytest.fixture
def waves() -> Callable[..., Waves]:
    return lambda speeds=SPEEDS, **options: Waves(speeds, **options)


@pytest.fixture
def model() -> Callable[..., LatentModel]:
    """A model that carries waves on exactly, unless it is told a speed, or factors of its parts other than 1."""

    def build(
        speed: float | None = None, encoder: float = 1.0, operator: float = 1.0, decoder: float = 1.0, history: int = 1
    ) -> LatentModel:
        fields = Waves((0.0,), history).fields
        return LatentModel(Encoder(1, encoder), Shift(speed, operator), Decoder(decoder), fields)

    return build


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Any]:
    """What a stage is given, around a data set and a model."""

    def build(dataset: Waves, model: LatentModel, stages: tuple[Any, ...] = ()) -> Any:
        catalog = SimpleNamespace(locate=lambda config: SimpleNamespace(name=type(config).__name__))
        recipe = SimpleNamespace(
            run=SimpleNamespace(name="waves", seed=0),
            description="Travelling <waves>",
            stages=stages,
            dataset=dataset,
            encoder=model,
            operator=model,
            decoder=model,
        )
        return Experiment(recipe, dataset, model, (), torch.device("cpu"), catalog)  # type: ignore[arg-type]

    return build


def run(experiment: Any, tmp_path: Any, **keys: Any) -> tuple[dict[str, Any], RunFolder, list[tuple[str, Any]]]:
    """Run the stage; its result, its folder, and what it told the trackers."""
    folder = RunFolder(tmp_path)
    told: list[tuple[str, Any]] = []
    tracker = SimpleNamespace(
        scalars=lambda stage, step, values: told.append(("scalars", (stage, step, values))),
        figure=lambda stage, step, name, figure: told.append(("figure", name)),
        close=lambda: None,
    )
    stage = EvaluateConfig(**keys).build()
    return dict(stage.run(experiment, folder.stage("evaluate"), Trackers([tracker]))), folder, told
