"""Small files in PDEBench's layouts whose answers are known, and models for them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import scipy.fft
import torch
from torch import Tensor, nn

from ups_kit.interfaces import FieldSpec, Latent, PointSet, Queries
from ups_kit.model import LatentModel
from ups_plugins.grid.config import PDEBenchConfig
from ups_plugins.grid.dataset import GridDataset

SIZE = 12
DIFFUSIVITIES = (1.0, 2.5)


def heat(path: Path, samples: int = 16, frames: int = 9, size: int = SIZE) -> GridDataset:
    """Two fields that diffuse between walls without flux, in the layout `groups`: exact in cosines of cell centres."""
    generator, centres = np.random.default_rng(0), (np.arange(size) + 0.5) / size
    axis = -4 * size**2 * np.sin(np.pi * np.arange(size) / 2 / size) ** 2
    rates = np.asarray(DIFFUSIVITIES)[:, None, None] * (axis[:, None] + axis[None, :])
    with h5py.File(path, "w") as file:
        for sample in range(samples):
            start = generator.normal(size=(2, size, size)) * np.exp(0.005 * rates)
            start[:, 0, 0] += 3 * size
            modes = start * np.exp(0.002 * np.arange(frames)[:, None, None, None] * rates)
            group = file.create_group(f"{sample:04d}")
            group["data"] = np.moveaxis(scipy.fft.idctn(modes, axes=(2, 3), norm="ortho"), 1, -1).astype(np.float32)
            group["grid/x"], group["grid/y"], group["grid/t"] = centres, centres, 0.1 * np.arange(frames)
    return PDEBenchConfig(path=path, validation=2, test=5, periodic=False, fields=("a", "b")).build(0)


def steady(path: Path, samples: int = 60, size: int = SIZE) -> GridDataset:
    """Answers u = β (2 + 3 x-derivative-like shift of ν): linear in the input, and proportional to a parameter.

    u(x, y) = β (2 + ν(x, y) + 0.5 ν(x + 1 cell, y)), with β over four decades.
    """
    generator, centres = np.random.default_rng(1), (np.arange(size) + 0.5) / size
    components = generator.normal(size=(6, size, size))
    nu = np.einsum("sk,kxy->sxy", generator.normal(size=(samples, 6)), components) / 4
    beta = 10 ** generator.uniform(-2, 2, samples)
    answers = beta[:, None, None] * (2 + nu + 0.5 * np.roll(nu, -1, 1))
    with h5py.File(path, "w") as file:
        file["tensor"], file["nu"] = answers[:, None].astype(np.float32), nu.astype(np.float32)
        file["x-coordinate"], file["y-coordinate"], file["beta"] = centres, centres, beta
        file["t-coordinate"] = np.zeros(1)
    return PDEBenchConfig(path=path, validation=2, test=10).build(0)


class Part(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))


class Encoder(Part):
    def forward(self, points: PointSet) -> Latent:
        return Latent(self.factor * points.values, points.positions[0], points.grid)


class Keep(Part):
    """Nothing changes, but for a factor."""

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent._replace(tokens=self.factor * latent.tokens)


class Grow(Part):
    """Tokens times e to the last condition: what a parameter is for."""

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent._replace(tokens=self.factor * latent.tokens * condition[:, -1].exp()[:, None, None])


class Decoder(Part):
    def __init__(self, channels: int, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.channels = channels

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        return self.factor * latent.tokens[..., : self.channels]


def keeping(fields: FieldSpec, operator: float = 1.0) -> LatentModel:
    """A model that leaves everything as it is but for the operator's factor."""
    return LatentModel(Encoder(), Keep(operator), Decoder(fields.target_channels), fields)


def listening(fields: FieldSpec) -> LatentModel:
    """A model whose answer is its input times e to the last condition."""
    return LatentModel(Encoder(), Grow(), Decoder(fields.target_channels), fields)
