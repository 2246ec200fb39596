"""Losses at points that count unequally: the same expectation as at all points, and refused where it cannot be."""

from __future__ import annotations

import pytest
import torch

from ups_kit import LatentSpec, Needs, PluginError, Progress
from ups_kit.fit.checks import check_losses
from ups_kit.fit.forward import LossTerm, compute_losses, states_of
from ups_kit.weighting import Weighted
from ups_plugins.sampling.config import ImportanceConfig, UniformConfig
from ups_plugins.upt import config as upt

START = Progress(step=0, epoch=0.0, fraction=0.0)
GRADIENT = ImportanceConfig(queries=4, epsilon=0.3)
ERROR = ImportanceConfig(queries=4, epsilon=0.3, score="error", cells=4)
WEIGHED = [
    upt.ForwardConfig(),
    upt.ForwardConfig(error="relative"),
    upt.RolloutConfig(horizon=3, error="relative"),
    upt.InverseEncodingConfig(),
]


def with_sampler(config, sampler):
    import attrs

    return attrs.evolve(config, sampler=sampler)


def terms_of(fields, *configs):
    return [LossTerm(f"loss{place}", config, config.build(fields())) for place, config in enumerate(configs)]


@pytest.mark.parametrize("sampler", [GRADIENT, ERROR], ids=lambda sampler: sampler.score)
@pytest.mark.parametrize("config", WEIGHED, ids=lambda config: type(config).__name__)
def test_weighted_losses_and_their_gradients_are_unbiased(model, batch, fields, config, sampler):
    made, frames = model(), batch(size=2)
    terms = terms_of(fields, with_sampler(config, sampler))
    for state in states_of(terms).values():  # errors that differ from cell to cell
        state.observe(frames.positions, torch.tensor([[1.0, 9.0, 0.1, 4.0]]).repeat(2, 4), None, None)
        state.advance(True)

    def gradient(terms, seed=0):
        made.zero_grad()
        total = compute_losses(made, frames, terms, START, torch.Generator().manual_seed(seed)).total
        total.backward()
        gradients = [parameter.grad.flatten() for parameter in made.parameters() if parameter.grad is not None]
        return torch.cat([total.detach()[None], *gradients])

    dense = gradient(terms_of(fields, config))
    draws = torch.stack([gradient(terms, seed) for seed in range(400)])
    noise = draws.std(0) / 20  # the standard error of the mean of 400 draws
    away = (draws.mean(0) - dense).abs() / noise.clamp_min(1e-12)
    assert draws.std(0).norm() > 0.1 * dense.norm()
    assert away[0] < 3.5
    assert (away < 3).float().mean() > 0.97
    assert (draws.mean(0) - dense).norm() < 0.12 * dense.norm()


@pytest.mark.parametrize("sampler", [GRADIENT, ERROR], ids=lambda sampler: sampler.score)
def test_a_weighted_loss_is_the_weighted_sum(model, batch, fields, sampler):
    made, frames = model(), batch()
    (term,) = terms_of(fields, upt.ForwardConfig(sampler=sampler))
    seen = []

    def spy(forward):
        seen.append(forward.decoded(1))
        return type(term.loss).__call__(term.loss, forward)

    class Watched:
        sampler, horizon, reaches, takes_weights = term.loss.sampler, 1, (), True
        needs = term.loss.needs

        def __call__(self, forward):
            return spy(forward)

    found = compute_losses(made, frames, [LossTerm("a", Weighted(), Watched())], START, torch.Generator())
    (decoded,) = seen
    expected = ((decoded.values - decoded.truth).square().mean(-1) * decoded.weights).sum(1).mean()
    torch.testing.assert_close(found.total, expected)
    assert decoded.weights.shape == (3, 4)


def test_equal_weighing_samplers_share_points_weights_and_decodes(model, batch, fields):
    made, frames = model(), batch()
    terms = terms_of(fields, upt.ForwardConfig(sampler=ERROR), upt.InverseEncodingConfig(sampler=ERROR))
    compute_losses(made, frames, terms, START, torch.Generator())
    assert made.decoder.calls == [6]


@pytest.mark.parametrize("score", ["gradient", "error"])
def test_a_ratio_of_1_is_the_dense_loss_bit_for_bit(model, batch, fields, score):
    made, frames = model(), batch()
    totals = []
    for sampler in (None, ImportanceConfig(ratio=1.0, score=score)):
        made.zero_grad()
        terms = terms_of(fields, upt.ForwardConfig(sampler=sampler), upt.InverseEncodingConfig(error="relative"))
        total = compute_losses(made, frames, terms, START, torch.Generator().manual_seed(0)).total
        total.backward()
        totals.append([total.detach(), *(parameter.grad.clone() for parameter in made.parameters())])
    assert all(torch.equal(*pair) for pair in zip(*totals))


# -- who is told of errors --------------------------------------------------------------------------------------------
def test_errors_are_told_of_every_step_once_whatever_the_losses(model, batch, fields, monkeypatch):
    made, frames = model(), batch()
    configs = (upt.ForwardConfig(sampler=ERROR), upt.RolloutConfig(horizon=3, sampler=ERROR))
    terms = terms_of(fields, *configs)
    told = []
    monkeypatch.setattr(type(terms[0].loss.sampler), "observe", lambda sampler, *given: told.append(given))
    compute_losses(made, frames, terms, START, torch.Generator())
    assert len(told) == 3
    assert all(squared.shape == (3, 4) and weights is not None for _, squared, weights, _ in told)


def test_what_one_loss_has_seen_counts_for_all_with_an_equal_sampler(model, batch, fields):
    """Also in steps in which the first of them does not apply."""
    made, frames = model(), batch()
    first = upt.ForwardConfig(sampler=ERROR, every=2)
    terms = terms_of(fields, first, upt.InverseEncodingConfig(sampler=ERROR))
    assert list(states_of(terms)) == ["losses.loss0.sampler"]
    compute_losses(made, frames, terms, Progress(1, 0.0, 0.0), torch.Generator())
    state = states_of(terms)["losses.loss0.sampler"]
    state.advance(True)
    assert state.state_dict()["sums"].sum() > 0


def test_errors_seen_at_all_points_count_too(model, batch, fields):
    config = ImportanceConfig(
        ratio=1.0, end_ratio=0.5, schedule="linear", end_epoch=1.0, score="error", cells=4, epsilon=0.1
    )
    made, frames = model(), batch()
    terms = terms_of(fields, upt.ForwardConfig(sampler=config))
    compute_losses(made, frames, terms, START, torch.Generator())
    states_of(terms)["losses.loss0.sampler"].advance(True)
    drawn = terms[0].loss.sampler.weighed(frames, Progress(0, 1.0, 0.0), torch.Generator())
    assert drawn.weights.std() > 0


def test_samplers_without_a_state_have_none_to_keep(fields):
    samplers = (GRADIENT, UniformConfig(queries=4), None)
    assert states_of(terms_of(fields, *(upt.ForwardConfig(sampler=sampler) for sampler in samplers))) == {}


# -- refused ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [upt.RelativeConfig, upt.MeanPreservationConfig])
@pytest.mark.parametrize("sampler", [GRADIENT, ERROR], ids=lambda sampler: sampler.score)
def test_losses_that_are_no_plain_means_refuse_weights_when_the_recipe_is_read(fields, config, sampler):
    problems = dict(check_losses({"mean": config(sampler=sampler)}, fields(), LatentSpec(width=8)))
    assert "cannot weigh" in problems["losses.mean.sampler"]
    assert "'uniform'" in problems["losses.mean.sampler"]
    assert not list(check_losses({"mean": config(sampler=UniformConfig(ratio=0.5))}, fields(), LatentSpec(width=8)))


def test_errors_kept_by_place_are_refused_where_every_sample_is_shifted(fields):
    import attrs

    def problems(sampler, shifts, **keys):
        losses = {"a": upt.ForwardConfig(sampler=sampler)}
        return dict(check_losses(losses, attrs.evolve(fields(), **keys), LatentSpec(width=8), shifts))

    assert "periodic_shifts = false" in problems(ERROR, shifts=True)["losses.a.sampler"]
    assert not problems(ERROR, shifts=False)
    assert not problems(GRADIENT, shifts=True)
    assert not problems(ERROR, shifts=True, periodic=(False,))


@pytest.mark.parametrize("config", WEIGHED, ids=lambda config: type(config).__name__)
def test_losses_that_are_plain_means_take_weights(fields, config):
    assert not list(check_losses({"a": with_sampler(config, GRADIENT)}, fields(), LatentSpec(width=8)))


def test_a_loss_that_does_not_say_so_gets_no_weighted_points(model, batch, fields):
    class Careless:
        sampler, horizon, reaches = GRADIENT.build(fields()), 1, ()

        def needs(self, progress):
            return Needs(steps=1, decodes=(1,))

        def __call__(self, forward):
            return forward.decoded(1).values.square().mean()

    with pytest.raises(PluginError, match="'careless' does not say that it takes weights"):
        compute_losses(model(), batch(), [LossTerm("careless", Weighted(), Careless())], START, torch.Generator())


def test_points_that_are_read_at_random_are_drawn_from_without_bias(model, batch, fields):
    """`dataset.points`: batches hold a uniform sample of the points, of which the sampler draws in turn."""
    made, frames = model(), batch(size=1)
    points = frames.states.shape[2]
    (term,) = terms_of(fields, upt.ForwardConfig(sampler=GRADIENT))
    dense = compute_losses(made, frames, terms_of(fields, upt.ForwardConfig()), START, torch.Generator()).total
    random, found = torch.Generator().manual_seed(1), []
    for _ in range(600):
        some = torch.randperm(points, generator=random)[:10]
        read = frames._replace(states=frames.states[:, :, some], positions=frames.positions[:, some], grid=None)
        with torch.no_grad():
            found.append(compute_losses(made, read, [term], START, random).total)
    draws = torch.stack(found)
    assert abs(draws.mean() - dense) < 3.5 * draws.std() / 600**0.5
