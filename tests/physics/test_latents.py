"""What keeps latents in shape, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ups_kit import LatentSpec, Progress
from ups_plugins.physics.config import LatentDiversityConfig, LatentNormConfig

from .seeing import look, spec, value

FIELDS = spec((4,))
START = Progress(step=0, epoch=0.0, fraction=0.0)


def of(config: Any, tokens: Sequence[Sequence[Sequence[float]]]) -> float:
    """The loss of tokens (B, T, d)."""
    seen = look(FIELDS, torch.zeros(len(tokens), 2, 4, 2))
    seen.tokens = torch.tensor(tokens)
    return value(config, FIELDS, seen)


def test_norms() -> None:
    tokens = [[[3.0, 4.0], [0.0, 0.0]], [[0.6, 0.8], [0.0, 1.0]]]
    assert of(LatentNormConfig(), tokens) == pytest.approx(((2.5 - 1) ** 2 + 0) / 2)
    assert of(LatentNormConfig(target=2.5), tokens) == pytest.approx((0 + 1.5**2) / 2)
    relative = ((2.5 / math.sqrt(2) - 1) ** 2 + (1 / math.sqrt(2) - 1) ** 2) / 2
    assert of(LatentNormConfig(relative=True), tokens) == pytest.approx(relative)


def test_cosines() -> None:
    assert of(LatentDiversityConfig(), [[[1.0, 0.0], [0.0, 5.0]]]) == pytest.approx(0, abs=1e-7)
    assert of(LatentDiversityConfig(), [[[1.0, 2.0], [-3.0, -6.0]]]) == pytest.approx(1)
    slanted = [[[1.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]]]
    assert of(LatentDiversityConfig(), slanted) == pytest.approx(0.5 / 2)
    assert of(LatentDiversityConfig(), [[[1.0, 2.0]]]) == 0  # one token, no pair


@pytest.mark.parametrize("count", [3, 8, 20])
def test_more_tokens_than_width_and_fewer_give_the_mean_over_pairs(count: int) -> None:
    tokens = torch.randn(2, count, 8, generator=torch.Generator().manual_seed(0))
    tokens[0, 0] = 0  # has no direction, and is at right angles to all
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1)
    cosines = (unit @ unit.mT).square()
    pairs = cosines[:, ~torch.eye(count, dtype=torch.bool)]
    assert of(LatentDiversityConfig(), tokens.tolist()) == pytest.approx(float(pairs.mean()), rel=1e-4)


@pytest.mark.parametrize("config", [LatentNormConfig(), LatentDiversityConfig()])
def test_tokens_that_are_zero_have_a_finite_gradient(config: Any) -> None:
    tokens = torch.zeros(1, 3, 4, requires_grad=True)
    seen = look(FIELDS, torch.zeros(1, 2, 4, 2))
    seen.tokens = tokens
    config.build(FIELDS)(seen).backward()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("kind", [LatentNormConfig, LatentDiversityConfig])
def test_they_look_at_latents_alone(kind: Any) -> None:
    for step, reaches in ((0, ("encoder",)), (2, ("encoder", "operator"))):
        loss = kind(step=step).build(FIELDS)
        needs = loss.needs(START)
        assert loss.latents_only
        assert (needs.steps, needs.decodes, needs.encodes, loss.horizon) == (step, (), (), 0)
        assert loss.reaches == reaches


def test_what_they_refuse() -> None:
    steady, latent = spec(history=0), LatentSpec(8)
    assert dict(LatentNormConfig(step=2).check(steady, latent)).keys() == {"step"}
    assert not dict(LatentNormConfig(step=0).check(steady, latent))
    assert dict(LatentDiversityConfig().check(spec(), LatentSpec(8, tokens=1))).keys() == {"use"}
    assert not dict(LatentDiversityConfig().check(spec(), latent))
