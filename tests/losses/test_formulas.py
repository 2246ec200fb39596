"""Every loss against its formula in docs/method.md §2, written out with numpy or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ups_kit import Progress, Queries
from ups_plugins.sampling.config import UniformConfig
from ups_plugins.upt import config as upt
from ups_plugins.upt.losses import RolloutLoss, latent_error, total_variation

GRID = (16,)


def decode(model, latent, batch):
    return model.decode(latent, Queries(batch.positions, GRID)).detach().numpy()


def numbers(model, batch, steps=4):
    """Predictions D(A^k z) for k = 0 … steps, and the truth."""
    latent = model.encode(batch.inputs)
    latents = [latent, *model.rollout(latent, batch.condition, steps)]
    return np.stack([decode(model, latent, batch) for latent in latents], 1), batch.states.numpy()


def value(bundle):
    (term,) = bundle.terms.values()
    return float(term)


def test_forward(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    expected = np.mean((prediction[:, 1] - truth[:, 1]) ** 2)
    assert value(compute(model(), batch(), upt.ForwardConfig())) == pytest.approx(expected, rel=1e-5)


def test_forward_relative(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    squared = ((prediction - truth)[:, 1] ** 2).mean(1)
    expected = (squared / ((truth[:, 1] ** 2).mean(1) + 0.01)).mean()
    assert value(compute(model(), batch(), upt.ForwardConfig(error="relative"))) == pytest.approx(expected, rel=1e-5)


def test_inverse_encoding(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    expected = np.mean((prediction[:, 0] - truth[:, 0]) ** 2)
    assert value(compute(model(), batch(), upt.InverseEncodingConfig())) == pytest.approx(expected, rel=1e-5)


def test_relative_is_an_error_norm_over_a_norm(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    error = np.linalg.norm((prediction - truth)[:, 1], axis=1) / np.linalg.norm(truth[:, 1], axis=1)
    assert value(compute(model(), batch(), upt.RelativeConfig())) == pytest.approx(error.mean(), rel=1e-5)


def test_relative_has_a_gradient_where_the_prediction_is_exact(model, batch, compute):
    made, exact = model(), batch()
    prediction = torch.as_tensor(numbers(made, exact)[0])
    bundle = compute(made, exact._replace(states=prediction), upt.RelativeConfig())
    bundle.total.backward()
    assert value(bundle) == pytest.approx(0, abs=1e-6)
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_rollout_is_the_mean_over_the_horizon(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    errors = ((prediction - truth) ** 2).mean((0, 2, 3))
    assert value(compute(model(), batch(), upt.RolloutConfig(horizon=3))) == pytest.approx(errors[1:4].mean(), rel=1e-5)
    later = upt.RolloutConfig(horizon=3, from_step=2)
    assert value(compute(model(), batch(), later)) == pytest.approx(errors[2:4].mean(), rel=1e-5)


@pytest.mark.parametrize("relative", [False, True])
def test_latent_rollout_is_the_mean_over_the_horizon(model, batch, compute, relative):
    made, frames = model(), batch()
    inputs, errors = frames.inputs, []
    for step, latent in enumerate(made.rollout(made.encode(frames.inputs), frames.condition, 3), start=1):
        inputs = made.advance(inputs, frames.states[:, step])
        target = made.encode(inputs).tokens.detach()
        squared = (latent.tokens - target).square().mean()
        errors.append((squared / target.var(correction=0) if relative else squared).item())
    for first in (1, 2):
        config = upt.LatentRolloutConfig(horizon=3, from_step=first, relative=relative)
        assert value(compute(made, frames, config)) == pytest.approx(np.mean(errors[first - 1 :]), rel=1e-5)
    one = upt.LatentRolloutConfig(horizon=1, relative=relative)
    assert value(compute(made, frames, one)) == value(compute(made, frames, upt.LatentForwardConfig(relative=relative)))


def test_latent_rollout_follows_the_curriculum_of_rollout(fields):
    keys = {"horizon": 4, "start": 0.6, "full": 0.9}
    losses = upt.RolloutConfig(**keys).build(fields()), upt.LatentRolloutConfig(**keys).build(fields())
    for fraction in (0.0, 0.6, 0.71, 0.9):
        needs = [loss.needs(Progress(step=7, epoch=0.0, fraction=fraction)) for loss in losses]
        assert (needs[0] and needs[0].decodes) == (needs[1] and needs[1].encodes)
    assert losses[1].horizon == 4


def test_latent_forward(model, batch, compute):
    made, frames = model(), batch()
    latent = made.rollout(made.encode(frames.inputs), frames.condition, 1)[0].tokens
    target = made.encode(made.advance(frames.inputs, frames.states[:, 1])).tokens
    squared = (latent - target).square().mean()
    raw = value(compute(made, frames, upt.LatentForwardConfig(relative=False)))
    assert raw == pytest.approx(squared.item(), rel=1e-5)
    variance = np.var(target.detach().numpy())
    relative = value(compute(made, frames, upt.LatentForwardConfig()))
    assert relative == pytest.approx(squared.item() / variance, rel=1e-5)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_inverse_decoding(model, batch, compute, step):
    made, frames = model(), batch()
    latent = [made.encode(frames.inputs), *made.rollout(made.encode(frames.inputs), frames.condition, 2)][step]
    values = made.decode(latent, Queries(frames.positions, GRID))
    again = made.encode(made.replace_newest(frames.inputs, values)).tokens
    expected = (again - latent.tokens).square().mean().item()
    assert value(compute(made, frames, upt.InverseDecodingConfig(step=step))) == pytest.approx(expected, rel=1e-5)
    relative = value(compute(made, frames, upt.InverseDecodingConfig(step=step, relative=True)))
    assert relative == pytest.approx(expected / latent.tokens.var(correction=0).item(), rel=1e-4)


def test_inverse_decoding_of_a_share_is_that_of_the_first_samples(model, batch, compute):
    frames = batch(size=5)
    share = compute(model(), frames, upt.InverseDecodingConfig(share=0.4))
    first = batch(size=5)
    cut = first._replace(
        inputs=first.inputs._replace(positions=first.inputs.positions[:2], values=first.inputs.values[:2]),
        states=first.states[:2],
        positions=first.positions[:2],
        condition=first.condition[:2],
    )
    assert value(share) == pytest.approx(value(compute(model(), cut, upt.InverseDecodingConfig())), rel=1e-5)


def test_mean_preservation(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    expected = ((prediction[:, 1].mean(1) - truth[:, 1].mean(1)) ** 2).mean()
    assert value(compute(model(), batch(), upt.MeanPreservationConfig())) == pytest.approx(expected, rel=1e-5)


def test_spectral_compares_magnitudes(model, batch, compute):
    prediction, truth = numbers(model(), batch())
    magnitudes = [np.abs(np.fft.rfft(field[:, 1], axis=1)) / math.sqrt(16) for field in (prediction, truth)]
    expected = ((magnitudes[0] - magnitudes[1]) ** 2).mean()
    assert value(compute(model(), batch(), upt.SpectralConfig())) == pytest.approx(expected, rel=1e-4)


def test_spectral_does_not_see_a_shift(model, batch, compute):
    made, frames = model(), batch()
    prediction = torch.as_tensor(numbers(made, frames)[0])
    shifted = frames._replace(states=prediction.roll(3, 2))
    assert value(compute(made, shifted, upt.SpectralConfig())) == pytest.approx(0, abs=1e-10)
    assert value(compute(made, shifted, upt.ForwardConfig())) > 1e-3


def test_total_variation_of_a_field_and_of_tokens(model, batch, compute):
    made, frames = model(), batch()
    prediction, _ = numbers(made, frames)
    expected = np.abs(prediction[:, 1] - np.roll(prediction[:, 1], -1, axis=1)).mean((0, 2)).sum() / 16
    assert value(compute(made, frames, upt.TotalVariationConfig())) == pytest.approx(expected, rel=1e-5)
    tokens = made.rollout(made.encode(frames.inputs), frames.condition, 1)[0].tokens
    expected = (tokens - tokens.roll(-1, 1)).abs().mean().item()
    assert value(compute(made, frames, upt.TotalVariationConfig(of="latent"))) == pytest.approx(expected, rel=1e-5)


def test_total_variation_by_hand():
    field = torch.tensor([[0.0, 1.0, 4.0], [2.0, 2.0, 2.0]]).view(1, 6, 1)
    # first axis, open: |2-0|, |2-1|, |2-4|; second axis, closed: 1, 3, 4, 0, 0, 0
    assert float(total_variation(field, (2, 3), (False, True))) == pytest.approx((2 + 1 + 2 + 1 + 3 + 4) / 9)


def test_the_variance_of_a_collapsed_target_does_not_divide_by_zero():
    assert latent_error(torch.ones(1, 2, 3), torch.zeros(1, 2, 3), relative=True).isfinite()


@pytest.mark.parametrize(
    ("fraction", "steps"),
    [
        (0.0, []),
        (0.59, []),
        (0.6, [1]),
        (0.69, [1]),
        (0.71, [1, 2]),
        (0.79, [1, 2]),
        (0.9, [1, 2, 3, 4]),
        (1.0, [1, 2, 3, 4]),
    ],
)
def test_the_horizon_is_a_curriculum(fields, fraction, steps):
    loss = upt.RolloutConfig(horizon=4, start=0.6, full=0.9).build(fields())
    assert isinstance(loss, RolloutLoss)
    progress = Progress(step=7, epoch=0.0, fraction=fraction)
    assert list(loss.steps(progress)) == steps
    needs = loss.needs(progress)
    if steps:
        assert needs.decodes == tuple(steps)
    else:
        assert needs is None
    assert loss.horizon == 4


def test_the_curriculum_runs_on_epochs_too(fields):
    loss = upt.RolloutConfig(horizon=5, from_step=2, start=10, full=20, clock="epochs").build(fields())
    assert [list(loss.steps(Progress(0, epoch, 0.5))) for epoch in (9, 10, 15, 20, 99)] == [
        [],
        [2],
        [2, 3],
        [2, 3, 4, 5],
        [2, 3, 4, 5],
    ]


def test_without_a_ramp_the_horizon_is_whole_at_the_start(fields):
    loss = upt.RolloutConfig(horizon=3, start=0.5).build(fields())
    assert [len(loss.steps(Progress(0, 0.0, fraction))) for fraction in (0.0, 0.5, 1.0)] == [0, 3, 3]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"horizon": 2, "from_step": 3}, "beyond horizon"),
        ({"start": 3.0}, "shares of the stage's budget"),
        ({"start": 0.5, "full": 0.2}, "before start"),
        ({"clock": "minutes"}, "clock"),
    ],
)
def test_curricula_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        upt.RolloutConfig(**keys)


@pytest.mark.parametrize("config", [upt.SpectralConfig(), upt.TotalVariationConfig()])
def test_grid_losses_refuse_other_layouts(fields, config):
    from ups_kit import LatentSpec

    assert list(config.check(fields(), LatentSpec(8))) == []
    ((key, message),) = config.check(fields(layout="mesh"), LatentSpec(8))
    assert key == "use"
    assert "regular grid" in message


def test_sampled_losses_compare_at_sampled_points(model, batch, compute):
    """With Q of N points the loss is the mean over those points only: checked through a truth that differs at one."""
    made, frames = model(), batch()
    exact = torch.as_tensor(numbers(made, frames)[0])
    exact[:, 1, 5] += 1.0
    values = [
        value(
            compute(made, frames._replace(states=exact), upt.ForwardConfig(sampler=UniformConfig(queries=4)), seed=seed)
        )
        for seed in range(40)
    ]
    hits = {round(12 * v) for v in values}  # 3 samples of 4 points: each hit is 1/12
    assert hits <= {0, 1, 2, 3}
    assert len(hits) > 1
