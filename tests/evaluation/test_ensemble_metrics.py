"""Metrics of ensembles against closed forms, and on ensembles that the truth is a member of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ups_kit import metrics

SHAPE = (3, 4, 2000, 2)  # samples, frames, points, channels
EVERY = range(SHAPE[1])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calibrated(members: int, deviation: float = 1.0) -> tuple[Tensor, Tensor]:
    """An ensemble and a truth from the same distribution around a centre that both know."""
    centre = 3 + normal(*SHAPE, seed=1)
    truth = centre + normal(*SHAPE, seed=2)
    return centre + deviation * normal(members, *SHAPE, seed=3), truth


def test_crps_by_its_definition() -> None:
    ensemble, truth = normal(7, 2, 3, 11, 2), normal(2, 3, 11, 2, seed=5)
    pairs = (ensemble[:, None] - ensemble[None]).abs().sum((0, 1)) / (2 * 7 * 6)
    expected = ((ensemble - truth).abs().mean(0) - pairs).mean(2) / truth.square().mean(2).sqrt()
    assert torch.allclose(metrics.crps(ensemble, truth, range(3)), expected.mean(-1))


@pytest.mark.parametrize("members", [2, 8, 64])
def test_crps_of_a_gaussian_is_known_whatever_the_number_of_members(members: int) -> None:
    """For N(μ, σ²): σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π) with z = (y − μ)/σ (Gneiting & Raftery 2007)."""
    ensemble, truth = calibrated(members, deviation=0.7)
    gauss = torch.distributions.Normal(0.0, 1.0)
    z = (truth - (3 + normal(*SHAPE, seed=1))) / 0.7
    exact = 0.7 * (z * (2 * gauss.cdf(z) - 1) + 2 * gauss.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    expected = (exact.mean(2) / truth.square().mean(2).sqrt()).mean(-1)
    assert metrics.crps(ensemble, truth, EVERY).mean().item() == pytest.approx(expected.mean().item(), rel=0.02)


def test_crps_of_one_member_is_the_normalised_absolute_error() -> None:
    ensemble, truth = calibrated(1)
    expected = ((ensemble[0] - truth).abs().mean(2) / truth.square().mean(2).sqrt()).mean(-1)
    assert torch.allclose(metrics.crps(ensemble, truth, EVERY), expected)
    assert torch.allclose(metrics.crps(ensemble.expand(5, *SHAPE), truth, EVERY), expected)


def test_crps_is_least_for_the_distribution_of_the_truth() -> None:
    scores = {factor: metrics.crps(*calibrated(16, factor), EVERY).mean().item() for factor in (0.3, 1.0, 3.0)}
    assert scores[1.0] < min(scores[0.3], scores[3.0])


def test_units_and_the_order_of_members_do_not_matter() -> None:
    ensemble, truth = calibrated(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    measures = (metrics.crps, metrics.coverage, lambda *given: metrics.spread_skill(*metrics.spread_and_error(*given)))
    for measure in measures:
        own = measure(ensemble, truth, EVERY)
        assert torch.allclose(measure(ensemble[order], truth, EVERY), own)
        assert torch.allclose(measure(-40 * ensemble, -40 * truth, EVERY), own)


@pytest.mark.parametrize("members", [2, 8, 16, 19, 64])
def test_a_calibrated_ensemble_of_any_size_is_told_to_be_one(members: int) -> None:
    ensemble, truth = calibrated(members)
    assert metrics.coverage(ensemble, truth, EVERY).mean().item() == pytest.approx(0.9, abs=0.01)
    ratio = metrics.spread_skill(*metrics.spread_and_error(ensemble, truth, EVERY))
    assert ratio.shape == (4,)
    assert ratio.numpy() == pytest.approx(1, abs=0.03)


def test_coverage_asks_nothing_of_the_distribution() -> None:
    """Two modes that are far apart."""
    modes = 5 * (normal(17, *SHAPE, seed=7) > 0.4)
    draws = modes + 0.1 * normal(17, *SHAPE, seed=8)
    assert metrics.coverage(draws[1:], draws[0], EVERY).mean().item() == pytest.approx(0.9, abs=0.01)
    half = metrics.coverage(draws[1:], draws[0], EVERY, share=0.5)
    assert half.mean().item() == pytest.approx(0.5, abs=0.015)


def test_an_ensemble_that_is_too_sure_is_told_so() -> None:
    ensemble, truth = calibrated(19, deviation=0.2)
    inside = (ensemble.amin(0) <= truth) & (truth <= ensemble.amax(0))
    assert torch.allclose(metrics.coverage(ensemble, truth, EVERY), inside.double().mean((2, 3)))
    assert metrics.coverage(ensemble, truth, EVERY).max() < 0.4
    ratio = metrics.spread_skill(*metrics.spread_and_error(ensemble, truth, EVERY))
    assert ratio.numpy() == pytest.approx(0.2, abs=0.02)
    wide = metrics.spread_skill(*metrics.spread_and_error(calibrated(19, 2.0)[0], truth, EVERY))
    assert wide.min() > 1.5


def test_coverage_between_members_in_order() -> None:
    """39 members: the ends are the second and the second but last."""
    ensemble, truth = calibrated(39, deviation=0.5)
    order = ensemble.sort(0).values
    inside = (order[1] <= truth) & (truth <= order[-2])
    assert torch.allclose(metrics.coverage(ensemble, truth, EVERY), inside.double().mean((2, 3)))
    low, high = metrics.central_interval(ensemble)
    assert torch.allclose(low, order[1])
    assert torch.allclose(high, order[-2])
    low, high = metrics.central_interval(ensemble[:8])
    assert torch.equal(low, ensemble[:8].amin(0))
    assert torch.equal(high, ensemble[:8].amax(0))


def test_members_that_equal_the_truth_share_their_ranks() -> None:
    truth = normal(1, 1, 50, 1)
    assert metrics.coverage(truth.expand(8, *truth.shape), truth, [0]).item() == pytest.approx(0.9)
    assert metrics.coverage(truth.expand(19, *truth.shape) + 1, truth, [0]).item() == 0


def test_what_is_no_number_is_seen() -> None:
    ensemble, truth = calibrated(4)
    ensemble[2, 1] = math.nan
    spread, error = metrics.spread_and_error(ensemble, truth, EVERY)
    for found in (metrics.crps(ensemble, truth, EVERY), metrics.coverage(ensemble, truth, EVERY), spread, error):
        assert torch.isnan(found[1]).all()
        assert torch.isfinite(found[[0, 2]]).all()
    assert torch.isnan(metrics.spread_skill(torch.zeros(2, 1), torch.zeros(2, 1))).all()


def test_shapes_are_checked() -> None:
    ensemble, truth = calibrated(1)
    with pytest.raises(ValueError, match="at least 2 members of the truth's shape"):
        metrics.coverage(ensemble, truth, EVERY)
    with pytest.raises(ValueError, match="at least 2 members"):
        metrics.spread_and_error(ensemble, truth, EVERY)
    with pytest.raises(ValueError, match="members, samples, frames, points, channels"):
        metrics.crps(truth, truth, EVERY)
    assert metrics.crps(*calibrated(3), scored=[1, 3]).shape == (3, 2)
