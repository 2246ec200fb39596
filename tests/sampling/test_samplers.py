"""Samplers: distinct points, exact shares, the same draw from the same generator, and all points as None."""

from __future__ import annotations

import math

import pytest
import torch

from ups_kit import Field, FieldSpec, Progress
from ups_plugins.sampling.config import StratifiedConfig, UniformConfig
from ups_plugins.sampling.samplers import box_cells, grid_blocks, proportional_shares

START = Progress(step=0, epoch=0.0, fraction=0.0)
GRIDS = [(37,), (256,), (12, 10), (7, 5), (6, 5, 4)]


def fields(dims: int = 1) -> FieldSpec:
    return FieldSpec((Field("u"),), ((0.0, 1.0),) * dims, (True,) * dims, "grid", (8,) * dims, 0.1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(
    config: UniformConfig | StratifiedConfig, positions: torch.Tensor, grid: tuple[int, ...] | None, seed: int = 0
):
    return config.build(fields())(positions, grid, START, generator(seed))


@pytest.mark.parametrize("config", [UniformConfig, StratifiedConfig])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scattered", [False, True])
def test_draws_are_distinct_in_range_and_differ_between_samples(config, grid, scattered):
    points = math.prod(grid)
    queries = points // 3
    positions = torch.rand(4, points, len(grid), generator=generator())
    index = draw(config(queries=queries), positions, None if scattered else grid)
    assert index.shape == (4, queries)
    assert index.min() >= 0
    assert index.max() < points
    assert all(len(row.unique()) == queries for row in index)
    assert not torch.equal(index[0].sort().values, index[1].sort().values)


@pytest.mark.parametrize("config", [UniformConfig, StratifiedConfig])
def test_the_same_generator_gives_the_same_points_and_another_gives_others(config):
    positions = torch.rand(2, 100, 2, generator=generator())
    first, again, other = (draw(config(ratio=0.4), positions, (10, 10), seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("config", [UniformConfig, StratifiedConfig])
@pytest.mark.parametrize("keys", [{"ratio": 1.0}, {"queries": 64}, {"queries": 1000}])
def test_all_points_are_none(config, keys):
    assert draw(config(**keys), torch.rand(2, 64, 1), (64,)) is None


def test_uniform_takes_every_point_equally_often():
    positions = torch.zeros(4000, 20, 1)
    index = draw(UniformConfig(queries=5), positions, (20,))
    share = torch.bincount(index.flatten(), minlength=20) / 4000
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 4000)


def test_stratified_takes_every_point_equally_often_where_blocks_are_equal():
    positions = torch.zeros(4000, 24, 1)
    index = draw(StratifiedConfig(queries=10, blocks=4), positions, (24,))  # quotas 2.5: ties are broken at random
    share = torch.bincount(index.flatten(), minlength=24) / 4000
    assert (share - 10 / 24).abs().max() < 5 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize("grid", GRIDS)
def test_grid_blocks_are_boxes_whose_sides_differ_by_one_at_most(grid):
    block = grid_blocks(grid, 3)
    assert block.unique().tolist() == list(range(3 ** len(grid)))
    places = torch.cartesian_prod(*[torch.arange(size) for size in grid]).view(-1, len(grid))
    for number in range(3 ** len(grid)):
        inside = places[block == number]
        sides = inside.amax(0) - inside.amin(0) + 1
        assert sides.prod() == len(inside)
        assert all(size // 3 <= side <= -(-size // 3) for side, size in zip(sides.tolist(), grid))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_block_of_a_grid_gives_its_share(grid):
    queries = math.prod(grid) // 2
    config = StratifiedConfig(queries=queries, blocks=3)
    along = config.blocks_along(len(grid), queries)
    blocks = grid_blocks(grid, along)
    index = draw(config, torch.zeros(3, math.prod(grid), len(grid)), grid)
    for row in index:
        drawn = torch.bincount(blocks[row], minlength=along ** len(grid))
        quota = torch.bincount(blocks) * queries / math.prod(grid)
        assert (drawn - quota).abs().max() < 1


def test_scattered_points_give_their_cells_shares():
    positions = torch.rand(3, 500, 2, generator=generator()) ** 2  # crowded near the origin
    config = StratifiedConfig(queries=100, blocks=4)
    index = draw(config, positions, None)
    cells = box_cells(positions, 4)
    for row, cell in zip(index, cells):
        sizes = torch.bincount(cell, minlength=16)
        drawn = torch.bincount(cell[row], minlength=16)
        assert (drawn[sizes > 0] >= 1).all()
        assert (drawn - sizes / 5).abs().max() < 1.5


@pytest.mark.parametrize(
    ("sizes", "queries", "shares"),
    [
        ([50, 30, 20], 10, [5, 3, 2]),
        ([50, 33, 17], 10, [5, 3, 2]),  # quotas 5, 3.3, 1.7: the largest remainder gets the last one
        ([1, 1, 98], 10, [1, 1, 8]),  # quotas 0.1, 0.1, 9.8: one of each block, taken from the largest
        ([3, 0, 7], 5, [2, 0, 3]),  # quotas 1.5, 3.5: rounded either way; an empty block gives nothing
        ([90, 6, 4], 2, [2, 0, 0]),  # fewer queries than blocks
    ],
)
def test_shares_by_largest_remainders(sizes, queries, shares):
    ties = torch.tensor([[0.5, 0.2, 0.1]])
    assert proportional_shares(torch.tensor([sizes]), queries, ties).tolist() == [shares]


def test_shares_of_random_blocks_hold_what_they_promise():
    random = generator(5)
    for _ in range(30):
        sizes = (torch.rand(8, 12, generator=random) ** 6 * 40).long() + torch.tensor([5] + [0] * 11)
        queries = int(torch.randint(1, int(sizes.sum(1).min()), (), generator=random))
        shares = proportional_shares(sizes, queries, torch.rand(8, 12, generator=random))
        held = (sizes > 0).sum(1)
        assert (shares.sum(1) == queries).all()
        assert (shares <= sizes).all()
        assert ((shares >= 1) | (sizes == 0))[held <= queries].all()


def test_points_at_one_place_are_one_cell():
    index = draw(StratifiedConfig(queries=3), torch.zeros(2, 10, 2), None)
    assert index.shape == (2, 3)


@pytest.mark.parametrize(
    ("schedule", "epoch", "count"),
    [
        ("linear", 0.0, 100),
        ("linear", 2.0, 100),
        ("linear", 4.0, 75),
        ("linear", 6.0, 50),
        ("linear", 99.0, 50),
        ("cosine", 3.0, 93),  # 100 - 50·(1 - cos π/4)/2
        ("cosine", 4.0, 75),
        ("cosine", 6.0, 50),
    ],
)
@pytest.mark.parametrize("ratio", [False, True])
def test_schedules(schedule, epoch, count, ratio):
    ends = {"ratio": 0.5, "end_ratio": 0.25} if ratio else {"queries": 100, "end_queries": 50}
    config = UniformConfig(**ends, schedule=schedule, start_epoch=2.0, end_epoch=6.0)
    assert config.count(200, Progress(0, epoch, 0.0)) == count


def test_at_least_one_point_is_drawn():
    assert UniformConfig(ratio=0.001).count(10, START) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "one of queries"),
        ({"queries": 5, "ratio": 0.5}, "one of queries"),
        ({"ratio": 1.5}, "ratio"),
        ({"ratio": 0.0}, "ratio"),
        ({"queries": 0}, "queries"),
        ({"ratio": 0.5, "end_queries": 5, "schedule": "linear", "end_epoch": 3.0}, "use end_ratio"),
        ({"ratio": 0.5, "end_ratio": 0.2}, "schedule = 'constant' has no end_ratio"),
        ({"ratio": 0.5, "schedule": "linear"}, "needs end_ratio and end_epoch"),
        ({"ratio": 0.5, "end_ratio": 0.2, "schedule": "cosine", "start_epoch": 3.0, "end_epoch": 2.0}, "is not after"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        UniformConfig(**keys)


def test_equal_keys_are_equal_samplers():
    assert UniformConfig(ratio=0.5).build(fields()) == UniformConfig(ratio=0.5).build(fields())
    assert UniformConfig(ratio=0.5).build(fields()) != UniformConfig(ratio=0.25).build(fields())
    assert UniformConfig(ratio=0.5).build(fields()) != StratifiedConfig(ratio=0.5).build(fields())


# -- samples of different sizes, filled up with padding ---------------------------------------------------------------
SIZES = (40, 25, 31)


def padded(repeats: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Scattered points of three sizes, repeated, and their mask; padding repeats the sample's first point."""
    positions = torch.rand(len(SIZES), max(SIZES), 2, generator=generator(5))
    mask = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    positions = torch.where(mask[..., None], positions, positions[:, :1])
    return positions.repeat(repeats, 1, 1), mask.repeat(repeats, 1)


def masked_draw(config, positions, mask, seed=0):
    return config.build(fields(2))(positions, None, START, generator(seed), mask)


@pytest.mark.parametrize("config", [UniformConfig, StratifiedConfig])
@pytest.mark.parametrize(
    ("keys", "count"), [({"queries": 9}, 9), ({"ratio": 0.5}, 12), ({"ratio": 1.0}, 25), ({"queries": 1000}, 25)]
)
def test_padding_is_never_drawn_and_the_fewest_points_set_the_number(config, keys, count):
    positions, mask = padded(50)
    index = masked_draw(config(**keys), positions, mask)
    assert index.shape == (150, count)
    assert mask.gather(1, index).all()
    assert all(len(row.unique()) == index.shape[1] for row in index)


@pytest.mark.parametrize("config", [UniformConfig, StratifiedConfig])
def test_a_mask_without_padding_draws_as_none_does(config):
    positions, mask = torch.rand(3, 50, 2, generator=generator()), torch.ones(3, 50, dtype=torch.bool)
    assert torch.equal(
        masked_draw(config(queries=20), positions, mask), masked_draw(config(queries=20), positions, None)
    )
    assert masked_draw(config(ratio=1.0), positions, mask) is None


@pytest.mark.parametrize("keys", [{}, {"blocks": 2}])
def test_what_padding_holds_does_not_change_a_stratified_draw(keys):
    positions, mask = padded()
    elsewhere = torch.where(mask[..., None], positions, torch.full_like(positions, 7.0))
    first, second = (
        masked_draw(StratifiedConfig(queries=12, **keys), places, mask) for places in (positions, elsewhere)
    )
    assert torch.equal(first, second)


def test_real_points_are_drawn_equally_often_beside_padding():
    draws, queries = 3000, 9
    positions, mask = padded(draws)
    index = masked_draw(UniformConfig(queries=queries), positions, mask)
    for place, size in enumerate(SIZES):
        counts = torch.bincount(index[place :: len(SIZES)].flatten(), minlength=size).double()
        expected = draws * queries / size
        chi2 = float(((counts - expected).square() / expected).sum()) / (1 - queries / size)  # without replacement
        assert abs(chi2 - (size - 1)) < 5 * math.sqrt(2 * (size - 1))


def test_stratified_shares_are_those_of_each_samples_own_real_points():
    positions, mask = padded(400)
    index = masked_draw(StratifiedConfig(queries=12, blocks=2), positions, mask)
    cells = box_cells(positions, 2, mask)
    for place, size in enumerate(SIZES):
        rows = slice(place, None, len(SIZES))
        held = torch.bincount(cells[place][mask[place]], minlength=4)
        drawn = torch.stack([torch.bincount(row, minlength=4) for row in cells[rows].gather(1, index[rows])])
        assert (drawn - held * 12 / size).abs().max() < 1
