"""Optimisers over a model's trainable parameters, with weight decay where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ups_kit.errors import UsageError
from ups_kit.layers import Block

from .config import AdamConfig, AdamWConfig, MuonConfig, SGDConfig
from .muon import MuonWithAdamW

MATRIX_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def adamw(model: nn.Module, config: AdamWConfig) -> torch.optim.Optimizer:
    """AdamW over everything that is trained."""
    groups = decay_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, **_fastest(groups))


def adam(model: nn.Module, config: AdamConfig) -> torch.optim.Optimizer:
    """Adam over everything that is trained."""
    groups = decay_groups(model, config.weight_decay)
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, **_fastest(groups))


def sgd(model: nn.Module, config: SGDConfig) -> torch.optim.Optimizer:
    """SGD over everything that is trained."""
    groups = decay_groups(model, config.weight_decay)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, **_fastest(groups)
    )


def muon(model: nn.Module, config: MuonConfig) -> torch.optim.Optimizer:
    """Muon on the hidden matrices, AdamW on the rest; raises UsageError where a model has no hidden matrices."""
    hidden = {id(weight): weight for weight in hidden_matrices(model) if weight.requires_grad}
    if not hidden:
        raise UsageError(
            "optimizer 'muon': this model has no hidden matrices (weights of linear layers inside transformer blocks) "
            "to train; use 'adamw'"
        )
    rest = decay_groups(model, config.rest_weight_decay, without=hidden.keys())
    return MuonWithAdamW(
        list(hidden.values()),
        rest,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        rest_lr=config.rest_lr,
        betas=config.betas,
    )


def hidden_matrices(model: nn.Module) -> Iterator[Tensor]:
    """The 2-D weights of linear layers inside transformer blocks, each once."""
    seen = set()
    for block in model.modules():
        if isinstance(block, Block):
            for layer in block.modules():
                if isinstance(layer, nn.Linear) and id(layer.weight) not in seen:
                    seen.add(id(layer.weight))
                    yield layer.weight


def decay_groups(model: nn.Module, weight_decay: float, without: Any = ()) -> list[dict[str, Any]]:
    """Parameter groups of what is trained: linear and convolution weights with decay, everything else without."""
    decayed = {id(layer.weight) for layer in model.modules() if isinstance(layer, MATRIX_LAYERS)}
    trained = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in without]
    groups = [
        {"params": [weight for weight in trained if id(weight) in decayed], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if id(weight) not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _fastest(groups: list[dict[str, Any]]) -> dict[str, bool]:
    """Fused kernels take real floating-point parameters only."""
    fused = all(weight.is_floating_point() for group in groups for weight in group["params"])
    return {"fused": True} if fused else {"foreach": True}
