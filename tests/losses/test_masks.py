"""Losses of samples with different numbers of points, filled up with padding: the mean of what each gives alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ups_kit import Batch, Field, FieldSpec, Latent, LatentSpec, PointSet, Progress, Queries
from ups_kit.batching import batch_part
from ups_kit.errors import DataError
from ups_kit.fit.forward import LossTerm, compute_losses
from ups_kit.model import LatentModel
from ups_plugins.sampling.config import ImportanceConfig, UniformConfig
from ups_plugins.upt import config as upt

TOKENS, WIDTH, CHANNELS = 4, 6, 2
SIZES = (40, 25, 31)
FRAMES = 3
START = Progress(step=0, epoch=0.0, fraction=0.0)
CONFIGS = [
    upt.ForwardConfig(),
    upt.ForwardConfig(error="relative"),
    upt.RolloutConfig(horizon=FRAMES),
    upt.RolloutConfig(horizon=FRAMES, error="relative"),
    upt.LatentForwardConfig(relative=False),
    upt.LatentRolloutConfig(horizon=FRAMES, relative=False),
    upt.RelativeConfig(),
    upt.MeanPreservationConfig(),
    upt.InverseEncodingConfig(),
    upt.InverseEncodingConfig(error="relative"),
    upt.InverseDecodingConfig(),
    upt.InverseDecodingConfig(step=2),
]


class CloudEncoder(nn.Module):
    """Means over a sample's real points, as tokens; at places of their own where `standing` is false."""

    def __init__(self, channels: int, lattice: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(channels + 2, TOKENS * WIDTH)
        self.lattice = lattice

    def forward(self, points: PointSet) -> Latent:
        phase = 2 * torch.pi * points.positions
        said = torch.tanh(self.linear(torch.cat([points.values, phase.cos(), phase.sin()], -1)))
        mask = torch.ones_like(said[..., 0]) if points.mask is None else points.mask.float()
        tokens = (said * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        tokens = tokens.unflatten(-1, (TOKENS, WIDTH))
        if not self.lattice:
            return Latent(tokens, points.positions[:, :TOKENS])
        return Latent(tokens, ((torch.arange(TOKENS) + 0.5) / TOKENS)[:, None], (TOKENS,))


class ShiftOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH + 2, WIDTH)

    def forward(self, latent: Latent, condition: torch.Tensor) -> Latent:
        beside = condition[:, None].expand(-1, TOKENS, -1)
        step = torch.tanh(self.linear(torch.cat([latent.tokens.roll(1, 1), beside], -1)))
        return latent._replace(tokens=latent.tokens + step)


class WaveDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(TOKENS * WIDTH, 3 * CHANNELS)

    def forward(self, latent: Latent, queries: Queries) -> torch.Tensor:
        phase = 2 * torch.pi * queries.positions
        basis = torch.cat([torch.ones_like(phase), phase.cos(), phase.sin()], -1)
        return basis @ self.linear(latent.tokens.flatten(1)).unflatten(-1, (3, CHANNELS))


def spec(**keys) -> FieldSpec:
    """Fields on one-dimensional meshes."""
    return FieldSpec(
        (Field("u", CHANNELS),),
        ((0.0, 1.0),),
        (True,),
        "mesh",
        None,
        0.1,
        (Field("k"),),
        conditions=("dt", "epsilon"),
        counts=(min(SIZES), max(SIZES)),
        **keys,
    )


def model(lattice: bool = True) -> LatentModel:
    torch.manual_seed(0)
    fields = spec()
    return LatentModel(CloudEncoder(fields.input_channels, lattice), ShiftOperator(), WaveDecoder(), fields)


def batch() -> Batch:
    random, size, points = torch.Generator().manual_seed(1), len(SIZES), max(SIZES)
    mask = torch.arange(points) < torch.tensor(SIZES)[:, None]
    positions = torch.rand(size, points, 1, generator=random)
    positions = torch.where(mask[..., None], positions, positions[:, :1])
    states = torch.randn(size, FRAMES + 1, points, CHANNELS, generator=random) * mask[:, None, :, None]
    values = torch.cat([states[:, 0], torch.randn(size, points, 1, generator=random) * mask[..., None]], -1)
    condition, zeros = torch.randn(size, 2, generator=random), torch.zeros(size)
    inputs = PointSet(positions, values, mask)
    return Batch(inputs, states, positions, None, condition, zeros.long(), zeros, mask=mask)


def alone(whole: Batch, sample: int) -> Batch:
    """One sample of a batch, without padding."""
    part, real = batch_part(whole, slice(sample, sample + 1)), slice(0, SIZES[sample])
    return part._replace(
        inputs=PointSet(part.inputs.positions[:, real], part.inputs.values[:, real]),
        states=part.states[:, :, real],
        positions=part.positions[..., real, :],
        mask=None,
    )


def loss(config, made: LatentModel, data: Batch) -> torch.Tensor:
    term = LossTerm("loss", config, config.build(made.fields))
    return compute_losses(made, data, [term], START, torch.Generator().manual_seed(0)).total


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}")
def test_a_batch_with_padding_gives_the_mean_of_its_samples_and_the_same_gradient(config):
    made, data = model(), batch()
    together = loss(config, made, data)
    one_by_one = torch.stack([loss(config, made, alone(data, sample)) for sample in range(len(SIZES))]).mean()
    assert together.item() == pytest.approx(one_by_one.item(), rel=1e-6)
    parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
    gradients = (torch.autograd.grad(total, parameters, allow_unused=True) for total in (together, one_by_one))
    for first, second in zip(*gradients):
        assert (first is None) == (second is None)
        assert first is None or torch.allclose(first, second, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}")
def test_what_padding_holds_is_not_seen(config):
    made, data = model(), batch()
    noise = 100 * (~data.mask).float()
    other = data._replace(
        states=data.states + noise[:, None, :, None],
        inputs=data.inputs._replace(values=data.inputs.values + noise[..., None]),
    )
    assert loss(config, made, data).item() == pytest.approx(loss(config, made, other).item(), rel=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        UniformConfig(queries=10),
        ImportanceConfig(queries=10, epsilon=0.3),
        ImportanceConfig(queries=10, epsilon=0.3, score="error"),
    ],
    ids=["uniform", "gradient", "error"],
)
def test_samplers_leave_the_expectation_as_it_is(sampler):
    made, data = model(), batch()
    dense = loss(upt.ForwardConfig(error="relative"), made, data).item()
    sampled = upt.ForwardConfig(error="relative", sampler=sampler)
    term = LossTerm("loss", sampled, sampled.build(made.fields))
    with torch.no_grad():
        draws = torch.stack(
            [
                compute_losses(made, data, [term], START, torch.Generator().manual_seed(seed)).total
                for seed in range(200)
            ]
        )
    assert abs(float(draws.mean()) - dense) < 4 * float(draws.std()) / len(draws) ** 0.5


@pytest.mark.parametrize(
    "config", [upt.LatentForwardConfig(), upt.LatentRolloutConfig(horizon=2), upt.InverseDecodingConfig(step=1)]
)
def test_tokens_that_move_with_points_are_not_compared_between_frames(config):
    made, data = model(lattice=False), batch()
    moving = data._replace(positions=data.positions[:, None].expand(-1, FRAMES + 1, -1, -1))
    assert loss(config, made, data).isfinite()
    with pytest.raises(DataError, match="on a lattice"):
        loss(config, made, moving)


@pytest.mark.parametrize(
    ("config", "keys", "expected"),
    [
        (upt.SpectralConfig(), {}, {"use"}),
        (upt.TotalVariationConfig(), {}, {"use"}),
        (upt.TotalVariationConfig(of="latent"), {"sampled_inputs": 8}, set()),
        (upt.MeanPreservationConfig(), {}, set()),
        (upt.MeanPreservationConfig(), {"sampled_inputs": 8}, {"use"}),
        (upt.LatentForwardConfig(), {"sampled_inputs": 8}, set()),
        (upt.LatentForwardConfig(), {"sampled_inputs": 8, "sampled": 8}, {"use"}),
        (upt.InverseDecodingConfig(), {"sampled_inputs": 8}, set()),
        (upt.InverseDecodingConfig(), {"sampled": 8}, {"use"}),
    ],
)
def test_what_is_refused_of_data_without_a_grid(config, keys, expected):
    assert {key for key, _ in config.check(spec(**keys), LatentSpec(WIDTH))} == expected
