"""Optimisers: who gets weight decay, which matrices are hidden, and Muon against torch's own."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from ups_kit.errors import UsageError
from ups_kit.fit.state import check_state_tree
from ups_kit.layers import Block
from ups_plugins.optim import AdamConfig, AdamWConfig, MuonConfig, SGDConfig
from ups_plugins.optim.muon import MuonWithAdamW, orthogonalised
from ups_plugins.optim.optimizers import decay_groups, hidden_matrices


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 16, 3)
        self.positions = nn.Parameter(torch.zeros(4, 16))
        self.codes = nn.Embedding(5, 16)
        self.blocks = nn.ModuleList([Block(16, 2), Block(16, 2)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)


def _names(model: nn.Module, group: dict[str, Any]) -> set[str]:
    chosen = {id(weight) for weight in group["params"]}
    return {name for name, weight in model.named_parameters() if id(weight) in chosen}


def test_only_matrices_of_layers_are_decayed() -> None:
    model = Model()
    decayed, plain = decay_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    names = _names(model, decayed)
    assert {"stem.weight", "head.weight", "blocks.0.up.weight"} <= names
    assert not {name for name in names if name.endswith("bias")}
    assert {"positions", "codes.weight", "norm.weight", "head.bias"} <= _names(model, plain)
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_hidden_matrices_are_those_of_blocks() -> None:
    model = Model()
    names = {
        name for name, weight in model.named_parameters() if any(weight is hidden for hidden in hidden_matrices(model))
    }
    assert {"blocks.0.up.weight", "blocks.0.down.weight", "blocks.1.up.weight"} <= names
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in names)
    assert "head.weight" not in names


@pytest.mark.parametrize("config", [AdamWConfig(), AdamConfig(), SGDConfig(), MuonConfig()])
def test_every_trained_parameter_is_updated_and_no_other(config: Any) -> None:
    model = Model()
    frozen = [model.head.weight, *model.blocks[0].parameters()]
    for weight in frozen:
        weight.requires_grad_(False)
    optimizer = config.build(model)
    held = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert len({id(weight) for weight in held}) == len(held)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for weight in held:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for name, weight in model.named_parameters():
        assert torch.equal(before[name], weight) == any(weight is one for one in frozen), name
        assert weight.grad is None


def test_muon_without_hidden_matrices_says_what_to_use() -> None:
    with pytest.raises(UsageError, match=r"no hidden matrices .*; use 'adamw'"):
        MuonConfig().build(nn.Linear(3, 3))


SHAPES = [(48, 16), (16, 16), (64, 16), (16, 64), (16, 64), (3, 5)]


def _pair(weight_decay: float) -> tuple[list[nn.Parameter], list[nn.Parameter], MuonWithAdamW, list[Any]]:
    """Our optimiser over six matrices and two others, and torch's Muon and AdamW over copies of them."""
    generator = torch.Generator().manual_seed(0)
    shapes = [*SHAPES, (7,), (2, 3, 4)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    mine = MuonWithAdamW(
        ours[:6],
        [{"params": ours[6:], "weight_decay": weight_decay}],
        lr=0.02,
        weight_decay=weight_decay,
        momentum=0.95,
        rest_lr=2e-3,
        betas=(0.9, 0.95),
    )
    torchs = [
        torch.optim.Muon(theirs[:6], lr=0.02, weight_decay=weight_decay, momentum=0.95),
        torch.optim.AdamW(theirs[6:], lr=2e-3, weight_decay=weight_decay, betas=(0.9, 0.95), fused=True),
    ]
    return ours, theirs, mine, torchs


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_our_muon_is_torchs(weight_decay: float) -> None:
    ours, theirs, mine, torchs = _pair(weight_decay)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        before = [weight.detach().clone() for weight in ours]
        for one, other in zip(ours, theirs):
            other.data.copy_(one.data)
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        mine.step()
        for optimizer in torchs:
            optimizer.step()
        for start, one, other in zip(before, ours, theirs):
            size = float((other.detach() - start).norm())
            difference = float((one.detach() - other.detach()).norm())
            assert difference < (0.01 * size if one.dim() == 2 else 1e-6)  # bfloat16 rounds at 0.004


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(2)
    matrices = [torch.randn(shape, generator=generator) for shape in SHAPES]
    for matrix, result in zip(matrices, orthogonalised(matrices)):
        assert result.shape == matrix.shape
        values = torch.linalg.svdvals(result.float())
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        cosine = (result.float() * (u @ v)).sum() / result.float().norm() / (u @ v).norm()
        assert float(cosine) > 0.97


def test_a_stack_gives_what_each_matrix_gives_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    matrices = [torch.randn(shape, generator=generator) for shape in SHAPES]
    for matrix, result in zip(matrices, orthogonalised(matrices)):
        torch.testing.assert_close(orthogonalised([matrix])[0], result, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("config", [AdamWConfig(), AdamConfig(), SGDConfig(), MuonConfig()])
def test_a_saved_state_goes_on_to_the_same_bits(config: Any) -> None:
    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for weight in model.parameters():
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    whole = Model()
    stopped, resumed = Model(), Model()
    stopped.load_state_dict(whole.state_dict())
    train(whole, config.build(whole), range(6))
    first = config.build(stopped)
    train(stopped, first, range(3))
    check_state_tree(first.state_dict())
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(stopped.state_dict())
    second = config.build(resumed)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    train(resumed, second, range(3, 6))
    for one, other in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(one, other)


def test_complex_parameters_are_taken() -> None:
    layer = nn.Module()
    layer.modes = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
    optimizer = AdamWConfig().build(layer)
    before = layer.modes.detach().clone()
    layer.modes.grad = torch.ones_like(layer.modes)
    optimizer.step()
    assert not torch.equal(before, layer.modes)
