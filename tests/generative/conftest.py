"""Toys whose truth is known: one token or two of a channel or two, and small networks that are trained in seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ups_kit import Field, FieldSpec, Latent
from ups_plugins.generative.network import NetworkSize

FIELDS = FieldSpec(
    targets=(Field("u"),), domain=((0.0, 1.0),), periodic=(True,), layout="grid", grid=(8,), dt=1.0, conditions=("dt",)
)
SIZE = NetworkSize(width=32, depth=1, heads=1, mlp_ratio=2.0, rank=16, neighbours=False)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def latent(tokens: Tensor) -> Latent:
    """Tokens without a place, with a condition that says nothing."""
    return Latent(tokens, None, condition=torch.zeros(len(tokens), 1))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(model: nn.Module, error: Callable[[torch.Generator], Tensor], steps: int, lr: float = 0.01) -> None:
    """Adam with a cosine to zero on the mean of errors that are drawn anew in every step."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        error(generator(step)).mean().backward()
        optimizer.step()
        schedule.step()
