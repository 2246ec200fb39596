"""Importance sampling: exact chances, unbiased means, padding never drawn, and what the scores are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ups_kit import Batch, Field, FieldSpec, PointSet, Progress
from ups_plugins.sampling.config import ImportanceConfig, UniformConfig
from ups_plugins.sampling.drawing import UNIT, chances, systematic, weighed
from ups_plugins.sampling.importance import CellErrors
from ups_plugins.sampling.steepness import Scattered, on_grid

START = Progress(step=0, epoch=0.0, fraction=0.0)
SKEWED = torch.tensor([[100.0, 3.0, 1.0, 0.0, 2.0, 0.5, 7.0, 0.0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fields(dims: int = 1, grid: bool = True, periodic: bool = True) -> FieldSpec:
    shape = (8,) * dims if grid else None
    layout = "grid" if grid else "mesh"
    return FieldSpec((Field("u"),), ((0.0, 1.0),) * dims, (periodic,) * dims, layout, shape, 0.1)  # type: ignore[arg-type]


def batch_of(states: torch.Tensor, positions: torch.Tensor, grid: tuple[int, ...] | None, mask=None) -> Batch:
    """A batch of states (B, 1 + K, N, C)."""
    size = len(states)
    inputs = PointSet(positions, states[:, 0], mask, grid)
    zeros = torch.zeros(size)
    return Batch(inputs, states, positions, grid, torch.zeros(size, 1), zeros.long(), zeros, mask=mask)


def shocks(size: int = 1, points: int = 256) -> tuple[Batch, torch.Tensor]:
    """Periodic fields with two steep fronts, and squared errors that stand at these, (B, N)."""
    x = (torch.arange(points) + 0.5) / points
    front = torch.tanh((x - 0.25) / 0.01) - torch.tanh((x - 0.75) / 0.01)
    positions = x.view(1, -1, 1).expand(size, -1, -1).contiguous()
    states = front.view(1, 1, -1, 1).expand(size, 2, -1, 1).contiguous()
    errors = (1 / torch.cosh((x - 0.25) / 0.01) ** 2 + 1 / torch.cosh((x - 0.75) / 0.01) ** 2 + 0.01).square()
    return batch_of(states, positions, (points,)), errors.expand(size, -1)


# -- chances ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("queries", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("epsilon", [1e-6, 0.1, 0.5, 1.0])
def test_chances_sum_to_the_number_of_points_and_none_is_above_1(queries, epsilon):
    units = chances(SKEWED, queries, epsilon)
    assert units.sum().item() == queries * UNIT
    assert units.min() >= 1
    assert units.max() <= UNIT


@pytest.mark.parametrize("seed", range(20))
def test_chances_of_random_scores_hold_what_they_promise(seed):
    random = generator(seed)
    scores = torch.rand(6, 50, generator=random) ** 12
    mask = torch.arange(50) < torch.tensor([50, 40, 33, 21, 50, 47])[:, None]
    queries = int(torch.randint(1, 22, (), generator=random))
    units = chances(scores, queries, 0.2, mask)
    assert (units.sum(1) == queries * UNIT).all()
    assert ((units > 0) == mask).all()
    assert units.max() <= UNIT


def test_chances_are_shares_of_the_score_and_of_all_points():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    expected = 2 * (0.75 * torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64) + 0.25 / 4)
    assert (chances(scores, 2, 0.25).double() / UNIT - expected).abs().max() < 1e-11


def test_what_is_cut_off_at_1_goes_to_the_others_in_proportion():
    scores = torch.tensor([[100.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    found = chances(scores, 2, 1e-9).double() / UNIT
    assert (found - torch.tensor([[1.0, 1 / 6, 2 / 6, 3 / 6]], dtype=torch.float64)).abs().max() < 1e-6
    twice = chances(torch.tensor([[100.0, 50.0, 1.0, 3.0]]), 3, 1e-9).double() / UNIT
    assert (twice - torch.tensor([[1.0, 1.0, 0.25, 0.75]], dtype=torch.float64)).abs().max() < 1e-6


@pytest.mark.parametrize("scores", [SKEWED, torch.zeros(1, 8)])
def test_epsilon_1_and_no_score_at_all_are_uniform(scores):
    epsilon = 1.0 if scores.sum() > 0 else 0.3
    found = chances(scores, 3, epsilon).double() / UNIT
    assert (found - 3 / 8).abs().max() < 1e-11
    drawn = weighed(chances(scores, 3, epsilon), 3, generator())
    assert torch.allclose(drawn.weights, torch.full((1, 3), 1 / 3))


def test_as_many_queries_as_real_points_take_every_one():
    mask = torch.tensor([[True] * 5 + [False] * 3])
    drawn = weighed(chances(SKEWED, 5, 0.5, mask), 5, generator())
    assert drawn.points.sort().values.tolist() == [[0, 1, 2, 3, 4]]
    assert torch.allclose(drawn.weights, torch.full((1, 5), 0.2))


# -- draws ------------------------------------------------------------------------------------------------------------
def test_inclusion_is_exactly_the_chance_in_every_order(monkeypatch):
    """Over all starts of the comb, by counting them: with units of 1/60 there are only 60."""
    from ups_plugins.sampling import drawing

    monkeypatch.setattr(drawing, "UNIT", 60)
    units = torch.tensor([[60, 31, 7, 1, 21]])
    queries = 2
    for order in itertools.permutations(range(5)):
        ends = units[0, list(order)].cumsum(0)
        hits = torch.zeros(5, dtype=torch.long)
        for start in range(60):
            taken = torch.searchsorted(ends, start + 60 * torch.arange(queries), right=True)
            assert len(set(taken.tolist())) == queries
            hits[torch.tensor(order)[taken]] += 1
        assert hits.tolist() == units[0].tolist()
    found = torch.zeros(5)
    random = generator()
    for _ in range(3000):
        found[drawing.systematic(units, queries, random)[0]] += 1
    expected = 3000 * units[0] / 60
    spread = (expected * (1 - units[0] / 60)).clamp_min(1).sqrt()
    assert ((found - expected).abs() < 4.5 * spread).all()
    assert found[0] == 3000


def test_draws_are_distinct_in_range_and_differ_between_samples():
    scores = torch.rand(5, 200, generator=generator()) ** 8
    index = systematic(chances(scores, 60, 0.1), 60, generator())
    assert index.shape == (5, 60)
    assert all(len(row.unique()) == 60 for row in index)
    assert not torch.equal(index[0].sort().values, index[1].sort().values)


@pytest.mark.parametrize("queries", [1, 3, 6])
def test_weighted_indicators_have_the_mean_of_one_over_n(queries):
    """So that the weighted sum of any values has their mean as its expectation: chi², with the exact variances."""
    draws = 40_000
    units = chances(SKEWED, queries, 0.3)
    drawn = weighed(units.expand(draws, -1), queries, generator(1))
    sums = torch.zeros(8, dtype=torch.float64).scatter_add_(0, drawn.points.flatten(), drawn.weights.flatten().double())
    chance = units[0].double() / UNIT
    variance = (1 / chance - 1) / 64 / draws
    uncertain = chance < 1
    scores = (sums / draws - 1 / 8)[uncertain] / variance[uncertain].sqrt()
    assert scores.abs().max() < 4
    assert (sums / draws - 1 / 8)[~uncertain].abs().sum() < 1e-6


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_no_weight_is_above_the_bound(epsilon):
    scores = torch.rand(20, 100, generator=generator(2)) ** 20
    drawn = weighed(chances(scores, 10, epsilon), 10, generator(3))
    assert drawn.weights.max() <= 1 / (epsilon * 10) * (1 + 1e-6)


# -- scores -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("periodic", [True, False])
def test_steepness_on_a_grid_is_the_gradient(dims, periodic):
    size = 64
    axes = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * dims, indexing="ij")
    positions = torch.stack(axes, -1).view(1, -1, dims)
    u = torch.sin(2 * math.pi * positions[..., 0]) + (torch.cos(2 * math.pi * positions[..., 1]) if dims == 2 else 0)
    squared = (2 * math.pi * torch.cos(2 * math.pi * positions[..., 0])) ** 2
    if dims == 2:
        squared = squared + (2 * math.pi * torch.sin(2 * math.pi * positions[..., 1])) ** 2
    found = on_grid(u[:, None, :, None], positions, (size,) * dims, (periodic,) * dims)
    assert (found[0] - squared[0].sqrt()).abs().max() < 0.03


def test_steepness_is_the_root_mean_square_over_frames_and_channels():
    x = torch.arange(8.0).view(1, 8, 1)
    frames = torch.stack([torch.cat([x, 2 * x], -1), torch.cat([3 * x, 0 * x], -1)], 1)
    found = on_grid(frames, x, (8,), (False,))
    assert torch.allclose(found, torch.full((1, 8), math.sqrt((1 + 4 + 9) / 4), dtype=torch.float64))


def test_an_axis_of_one_point_has_no_gradient():
    x = torch.stack([torch.arange(8.0), torch.zeros(8)], -1)[None]
    found = on_grid(x[:, None, :, :1], x, (8, 1), (False, False))
    assert torch.allclose(found, torch.ones(1, 8, dtype=torch.float64))


def test_steepness_of_scattered_points_follows_the_gradient_around_the_box():
    positions = torch.rand(1, 4000, 2, generator=generator())
    u = torch.sin(2 * math.pi * positions[..., 0])
    found = Scattered(((0.0, 1.0),) * 2, (True, True))(u[:, None, :, None], positions, None)
    true = (2 * math.pi * torch.cos(2 * math.pi * positions[..., 0])).abs() / math.sqrt(2)
    both = torch.stack([found[0], true[0].double()])
    assert torch.corrcoef(both)[0, 1] > 0.9
    assert found.mean() == pytest.approx(float(true.mean()), rel=0.1)
    seam = (positions[0, :, 0] < 0.02) | (positions[0, :, 0] > 0.98)
    assert found[0, seam].max() < 2 * math.pi * 1.2  # differences across the seam are small, as the field is periodic


def test_what_padding_holds_is_not_seen_by_the_steepness_of_scattered_points():
    positions = torch.rand(2, 30, 2, generator=generator())
    frames = torch.rand(2, 1, 30, 1, generator=generator(1))
    mask = torch.arange(30) < torch.tensor([[30], [20]])
    scattered = Scattered(((0.0, 1.0),) * 2, (False, False))
    whole = scattered(frames, positions, mask)
    alone = scattered(frames[1:, :, :20], positions[1:, :20], None)
    assert torch.equal(whole[1, :20], alone[0])
    assert len(scattered.cache) == 2
    again = scattered(frames, positions, mask)
    assert torch.equal(whole, again)
    assert scattered.cache.hits == 3


def test_points_at_one_place_are_alike():
    frames = torch.rand(1, 1, 10, 1, generator=generator())
    found = Scattered(((0.0, 1.0),) * 2, (False, False))(frames, torch.zeros(1, 10, 2), None)
    assert found.tolist() == [[0.0] * 10]


# -- the sampler ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("score", ["gradient", "error"])
@pytest.mark.parametrize("keys", [{"ratio": 1.0}, {"queries": 256}, {"queries": 1000}])
def test_all_points_are_none(score, keys):
    batch, _ = shocks()
    assert ImportanceConfig(score=score, **keys).build(fields()).weighed(batch, START, generator()) is None


@pytest.mark.parametrize("score", ["gradient", "error"])
def test_the_same_generator_gives_the_same_points_and_another_gives_others(score):
    batch, _ = shocks(2)
    sampler = ImportanceConfig(score=score, ratio=0.3).build(fields())
    first, again, other = (sampler.weighed(batch, START, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.points, again.points)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.points, other.points)


def test_the_number_follows_the_schedule():
    batch, _ = shocks()
    config = ImportanceConfig(ratio=1.0, end_ratio=0.25, schedule="cosine", start_epoch=1.0, end_epoch=3.0)
    sampler = config.build(fields())
    drawn = [sampler.weighed(batch, Progress(0, epoch, 0.0), generator()) for epoch in (0.5, 1.0, 2.0, 3.0, 9.0)]
    assert drawn[:2] == [None, None]
    assert [found.points.shape[1] for found in drawn[2:]] == [160, 64, 64]


def test_fronts_are_drawn_more_often():
    batch, _ = shocks(50)
    drawn = ImportanceConfig(queries=32, epsilon=0.5).build(fields()).weighed(batch, START, generator())
    near = (((batch.positions[0, drawn.points, 0] - 0.5).abs() - 0.25).abs() < 0.03).float().mean()
    assert near > 0.4  # 12 % of all points
    assert drawn.weights.sum(1).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("layout", ["grid", "scattered", "padded"])
def test_means_over_points_are_unbiased(layout):
    points, draws = 40, 20_000
    positions = torch.rand(2, points, 2, generator=generator(1))
    states = torch.rand(2, 2, points, 3, generator=generator(2)) ** 4
    mask = torch.arange(points) < torch.tensor([[points], [25]]) if layout == "padded" else None
    batch = batch_of(states, positions, (8, 5) if layout == "grid" else None, mask)
    errors = torch.rand(2, points, generator=generator(3)).double()
    sampler = ImportanceConfig(queries=9, epsilon=0.2).build(fields(2, layout == "grid"))
    units = chances(sampler.scores(batch), 9, 0.2, mask)
    for sample, size in enumerate((points, 25 if layout == "padded" else points)):
        drawn = weighed(units[sample : sample + 1].expand(draws, -1), 9, generator(4))
        assert drawn.points.max() < size
        found = (drawn.weights * errors[sample, drawn.points]).sum(1)
        assert abs(found.mean() - errors[sample, :size].mean()) < 3.5 * found.std() / math.sqrt(draws)


def test_errors_at_a_front_are_estimated_with_a_fraction_of_the_variance():
    """Against uniform draws of as many points: the number that would be 1 if nothing was gained."""
    batch, errors = shocks(4000)
    uniform = UniformConfig(queries=32).build(fields())(batch.positions, batch.grid, START, generator())
    plain = errors.gather(1, uniform).mean(1)
    drawn = ImportanceConfig(queries=32, epsilon=0.3).build(fields()).weighed(batch, START, generator())
    better = (errors.gather(1, drawn.points) * drawn.weights).sum(1)
    assert better.mean() == pytest.approx(float(errors[0].mean()), rel=0.02)
    assert better.var() < 0.15 * plain.var()


def test_called_without_fields_it_draws_as_uniform_does():
    positions = torch.rand(3, 50, 2, generator=generator())
    keys = {"ratio": 0.3}
    found = ImportanceConfig(**keys).build(fields(2))(positions, None, START, generator(2))
    assert torch.equal(found, UniformConfig(**keys).build(fields(2))(positions, None, START, generator(2)))


def test_equal_keys_are_equal_samplers():
    build = lambda **keys: ImportanceConfig(ratio=0.5, **keys).build(fields())  # noqa: E731
    assert build() == build()
    assert build(score="error") == build(score="error")
    assert build(score="error") != build()
    assert build(epsilon=0.2) != build()
    seen = build(score="error")
    seen.observe(torch.rand(1, 4, 1), torch.ones(1, 4), None, None)
    seen.advance(True)
    assert seen == build(score="error")


# -- errors of cells --------------------------------------------------------------------------------------------------
def test_a_cell_has_the_mean_error_seen_in_it_whatever_the_chances_were():
    errors = CellErrors(((0.0, 1.0),), 2, decay=0.9)
    positions = torch.tensor([[[0.1], [0.2], [0.6]]])
    errors.observe(positions, torch.tensor([[1.0, 4.0, 9.0]]), torch.tensor([[0.75, 0.25, 0.1]]), None)
    assert errors.at(positions).tolist() == [[0.0] * 3]  # draws of this step are not changed
    errors.advance(True)
    assert errors.at(positions)[0, 0] == pytest.approx(math.sqrt(1.75))
    assert errors.at(positions)[0, 2] == pytest.approx(3.0)


def test_old_errors_fade_and_cells_without_news_keep_theirs():
    errors = CellErrors(((0.0, 1.0),), 2, decay=0.5)
    both, first = torch.tensor([[[0.1], [0.9]]]), torch.tensor([[[0.1]]])
    errors.observe(both, torch.tensor([[4.0, 4.0]]), None, None)
    errors.advance(True)
    errors.observe(first, torch.tensor([[1.0]]), torch.tensor([[0.5]]), None)
    errors.advance(True)
    assert errors.at(both)[0].tolist() == pytest.approx([math.sqrt((0.25 * 4 + 0.5) / 0.75), 2.0])


def test_cells_without_any_news_have_the_mean_of_all():
    errors = CellErrors(((0.0, 1.0),), 4, decay=0.5)
    errors.observe(torch.tensor([[[0.1], [0.3]]]), torch.tensor([[1.0, 3.0]]), None, None)
    errors.advance(True)
    assert errors.at(torch.tensor([[[0.9]]])).item() == pytest.approx(math.sqrt(2))


def test_a_step_that_was_not_taken_and_errors_that_are_not_finite_leave_no_trace():
    errors = CellErrors(((0.0, 1.0),), 2, decay=0.5)
    places = torch.tensor([[[0.1], [0.9]]])
    errors.observe(places, torch.tensor([[4.0, 4.0]]), None, None)
    errors.advance(False)
    errors.observe(places, torch.tensor([[math.inf, 1.0]]), None, None)
    errors.advance(True)
    assert errors.at(places).tolist() == [[1.0, 1.0]]


def test_parts_of_a_batch_are_seen_as_the_whole():
    positions, squared = torch.rand(6, 20, 2, generator=generator()), torch.rand(6, 20, generator=generator(1))
    weights = torch.rand(6, 20, generator=generator(2))
    whole, parts = (CellErrors(((0.0, 1.0),) * 2, 4, decay=0.9) for _ in range(2))
    whole.observe(positions, squared, weights, None)
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        parts.observe(positions[part], squared[part], weights[part], None)
    whole.advance(True)
    parts.advance(True)
    assert torch.allclose(whole.at(positions), parts.at(positions), rtol=1e-12, atol=0)


def test_padding_is_not_seen():
    errors = CellErrors(((0.0, 1.0),), 1, decay=0.5)
    mask = torch.tensor([[True, False]])
    errors.observe(torch.tensor([[[0.1], [0.1]]]), torch.tensor([[1.0, 100.0]]), None, mask)
    errors.advance(True)
    assert errors.at(torch.tensor([[[0.1]]])).item() == 1.0


def test_positions_outside_belong_to_the_nearest_cell():
    errors = CellErrors(((0.0, 2.0), (-1.0, 1.0)), 4, decay=0.5)
    places = torch.tensor([[[-1.0, -5.0], [9.0, 9.0], [0.6, 0.1], [2.0, 1.0]]])
    assert errors.cells(places).tolist() == [[0, 15, 6, 15]]


def test_what_is_kept_comes_back_and_another_lattice_is_refused():
    config = ImportanceConfig(ratio=0.5, score="error", cells=8)
    seen, other = config.build(fields()), config.build(fields())
    positions = torch.rand(3, 40, 1, generator=generator())
    seen.observe(positions, torch.rand(3, 40, generator=generator(1)), None, None)
    seen.advance(True)
    other.load_state_dict(seen.state_dict())
    batch = batch_of(torch.zeros(3, 2, 40, 1), positions, None)
    first, again = (sampler.weighed(batch, START, generator()) for sampler in (seen, other))
    assert torch.equal(first.points, again.points)
    assert first.weights.std() > 0
    coarse = ImportanceConfig(ratio=0.5, score="error", cells=4).build(fields())
    with pytest.raises(ValueError, match="errors of 8 cells, expected 4"):
        coarse.load_state_dict(seen.state_dict())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": 1.5}, "epsilon"),
        ({"score": "gradiant"}, "score"),
        ({"cells": 8}, "cells goes with score = 'error'"),
        ({"memory": 50.0}, "memory goes with score = 'error'"),
        ({"score": "error", "cells": 0}, "cells"),
        ({"score": "error", "memory": 0.5}, "memory"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        ImportanceConfig(ratio=0.5, **keys)


@pytest.mark.parametrize(("dims", "cells"), [(1, 256), (2, 16), (3, 6)])
def test_by_default_there_are_about_256_cells(dims, cells):
    assert ImportanceConfig(ratio=0.5, score="error").cells_along(dims) == cells
