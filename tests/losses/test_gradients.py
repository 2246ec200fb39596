"""Where each loss's gradient arrives, and that sampling leaves it the same on average."""

from __future__ import annotations

import pytest
import torch

from ups_plugins.sampling.config import UniformConfig
from ups_plugins.upt import config as upt

CONFIGS = (
    upt.ForwardConfig(),
    upt.ForwardConfig(error="relative"),
    upt.LatentForwardConfig(),
    upt.RolloutConfig(horizon=3),
    upt.LatentRolloutConfig(horizon=3),
    upt.RelativeConfig(),
    upt.SpectralConfig(),
    upt.MeanPreservationConfig(),
    upt.TotalVariationConfig(),
    upt.TotalVariationConfig(of="latent"),
    upt.InverseEncodingConfig(),
    upt.InverseEncodingConfig(sampler=UniformConfig(ratio=0.5)),
    upt.InverseDecodingConfig(),
    upt.InverseDecodingConfig(step=1),
)


def reached(model):
    return tuple(
        name
        for name, part in model.parts.items()
        if any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{type(config).__name__}")
def test_the_gradient_reaches_the_declared_parts_and_no_others(model, batch, fields, compute, config):
    made = model()
    compute(made, batch(), config).total.backward()
    assert set(reached(made)) == set(config.build(fields()).reaches)


def test_the_target_of_latent_forward_carries_no_gradient(model, batch, compute):
    """The encoder's gradient is that of a fixed target: computed by hand with the target cut off."""
    made, frames = model(), batch()
    compute(made, frames, upt.LatentForwardConfig(relative=False)).total.backward()
    got = made.encoder.linear.weight.grad.clone()
    made.zero_grad()
    target = made.encode(made.advance(frames.inputs, frames.states[:, 1])).tokens.detach()
    latent = made.rollout(made.encode(frames.inputs), frames.condition, 1)[0].tokens
    (latent - target).square().mean().backward()
    torch.testing.assert_close(got, made.encoder.linear.weight.grad)


def test_the_target_of_inverse_decoding_carries_no_gradient(model, batch, compute):
    from ups_kit import Queries

    made, frames = model(), batch()
    compute(made, frames, upt.InverseDecodingConfig()).total.backward()
    got = made.encoder.linear.weight.grad.clone()
    made.zero_grad()
    latent = made.encode(frames.inputs)
    values = made.decode(latent, Queries(frames.positions, frames.grid))
    again = made.encode(made.replace_newest(frames.inputs, values))
    (again.tokens - latent.tokens.detach()).square().mean().backward()
    torch.testing.assert_close(got, made.encoder.linear.weight.grad)


@pytest.mark.parametrize("error", ["mse", "relative"])
def test_sampled_gradients_are_unbiased(model, batch, compute, error):
    made, frames = model(), batch(size=2)

    def gradient(sampler, seed=0):
        made.zero_grad()
        config = upt.ForwardConfig(error=error, sampler=sampler)
        compute(made, frames, config, seed=seed).total.backward()
        return torch.cat([parameter.grad.flatten() for parameter in made.parameters()])

    dense = gradient(None)
    draws = torch.stack([gradient(UniformConfig(queries=4), seed) for seed in range(400)])
    noise = draws.std(0) / 20  # the standard error of the mean of 400 draws
    away = (draws.mean(0) - dense).abs() / noise.clamp_min(1e-12)
    assert draws.std(0).norm() > 0.1 * dense.norm()
    assert (away < 3).float().mean() > 0.98
    assert (draws.mean(0) - dense).norm() < 0.1 * dense.norm()
