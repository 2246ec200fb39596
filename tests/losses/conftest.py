"""A tiny model whose parts count their calls, and a batch of smooth periodic fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ups_kit import Batch, Field, FieldSpec, Latent, PointSet, Progress, Queries, Weighted
from ups_kit.fit.forward import LossBundle, LossTerm, compute_losses
from ups_kit.model import LatentModel

POINTS, PATCH, WIDTH, CHANNELS = 16, 4, 6, 2


class Counted(nn.Module):
    """A part that notes the batch size of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.dense: list[bool] = []


class TinyEncoder(Counted):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(PATCH * channels, WIDTH)

    def forward(self, points: PointSet) -> Latent:
        self.calls.append(len(points.values))
        tokens = torch.tanh(self.linear(points.values.reshape(len(points.values), POINTS // PATCH, -1)))
        anchors = points.positions[0].view(-1, PATCH, 1).mean(1)
        return Latent(tokens, anchors, (POINTS // PATCH,))


class TinyOperator(Counted):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH + 2, WIDTH)

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        self.calls.append(len(latent.tokens))
        beside = condition[:, None].expand(-1, latent.tokens.shape[1], -1)
        step = torch.tanh(self.linear(torch.cat([latent.tokens.roll(1, 1), beside], -1)))
        return latent._replace(tokens=latent.tokens + step)


class TinyDecoder(Counted):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 3 * CHANNELS)

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        self.calls.append(len(latent.tokens))
        self.dense.append(queries.grid is not None)
        token = (queries.positions[..., 0] * (POINTS // PATCH)).long().clamp(0, POINTS // PATCH - 1)
        local = latent.tokens.gather(1, token[..., None].expand(-1, -1, WIDTH))
        phase = 2 * torch.pi * queries.positions
        basis = torch.cat([torch.ones_like(phase), phase.cos(), phase.sin()], -1)
        return (self.linear(local).unflatten(-1, (CHANNELS, 3)) * basis[..., None, :]).sum(-1)


def make_fields(history: int = 1, layout: str = "grid") -> FieldSpec:
    grid = (POINTS,) if layout == "grid" else None
    names = ("dt", "epsilon")
    return FieldSpec(
        (Field("u", CHANNELS),),
        ((0.0, 1.0),),
        (True,),
        layout,
        grid,
        0.1,
        (Field("k"),),
        history,
        names,  # type: ignore[arg-type]
    )


def make_model(history: int = 1, seed: int = 0) -> LatentModel:
    torch.manual_seed(seed)
    fields = make_fields(history)
    return LatentModel(TinyEncoder(fields.input_channels), TinyOperator(), TinyDecoder(), fields)


def make_batch(size: int = 3, frames: int = 4, history: int = 1, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    positions = ((torch.arange(POINTS) + 0.5) / POINTS).view(1, -1, 1).expand(size, -1, -1).contiguous()
    amplitude = torch.randn(size, 1, 1, CHANNELS, generator=random)
    times = torch.arange(1 - history, frames + 1).view(1, -1, 1, 1)
    states = amplitude * torch.sin(2 * torch.pi * (positions[:, None] - 0.05 * times)) + 0.3
    static = torch.randn(size, POINTS, 1, generator=random)
    values = torch.cat([*states[:, :history].unbind(1), static], -1)
    inputs = PointSet(positions, values, grid=(POINTS,))
    condition = torch.randn(size, 2, generator=random)
    zeros = torch.zeros(size)
    return Batch(inputs, states[:, history - 1 :], positions, (POINTS,), condition, zeros.long(), zeros)


def make_terms(*configs: Any, fields: FieldSpec | None = None) -> list[LossTerm]:
    fields = fields or make_fields()
    return [
        LossTerm(f"{type(config).__name__.removesuffix('Config')}_{place}", config, config.build(fields))
        for place, config in enumerate(configs)
    ]


START = Progress(step=0, epoch=0.0, fraction=0.0)


@pytest.fixture
def fields() -> Callable[..., FieldSpec]:
    return make_fields


@pytest.fixture
def model() -> Callable[..., LatentModel]:
    return make_model


@pytest.fixture
def batch() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def compute() -> Callable[..., LossBundle]:
    """Compute losses of configs, or of (name, config) pairs."""

    def run(
        model: LatentModel,
        batch: Batch,
        *configs: Weighted | tuple[str, Weighted],
        progress: Progress = START,
        seed: int = 0,
        fields: FieldSpec | None = None,
    ) -> LossBundle:
        named: Sequence[tuple[str, Any]] = [c if isinstance(c, tuple) else (type(c).__name__, c) for c in configs]
        terms = [LossTerm(name, config, config.build(fields or make_fields())) for name, config in named]
        return compute_losses(model, batch, terms, progress, torch.Generator().manual_seed(seed))

    return run
