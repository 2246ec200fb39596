"""Lattices of tokens: windows that can be joined again and hear whom they should, and coarser lattices."""

from __future__ import annotations

import math

import pytest
import torch

from ups_kit.lattices import Merge, Spread, Windows, evened, halved, levels_of
from ups_kit.layers import Attention

LATTICES = [(16,), (11,), (8, 12), (5, 7), (4, 6, 9), (1, 3)]


def numbered(lattice: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(float(math.prod(lattice)))[None, :, None].repeat(2, 1, 3)


def heard(windows: Windows) -> torch.Tensor:
    """Which tokens hear each other, (tokens, tokens): followed through windows and their mask."""
    count = math.prod(windows.lattice)
    places = windows.split(torch.arange(1.0, count + 1)[None, :, None])[..., 0].long()
    mask = windows.mask(torch.zeros(1, count, 1))
    hears = torch.zeros(count + 1, count + 1, dtype=torch.bool)
    for number, window in enumerate(places):
        own = torch.ones(len(window), len(window), dtype=torch.bool) if mask is None else mask[number, 0]
        for row, col in own.nonzero().tolist():
            hears[window[row], window[col]] = True
    assert not hears[0, 1:].any(), "places without a token hear none"
    assert not hears[1:, 0].any(), "and are not heard"
    return hears[1:, 1:]


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("window", [1, 2, 4, 100])
@pytest.mark.parametrize("shifted", [False, True])
def test_windows_are_joined_to_what_was_split(lattice: tuple[int, ...], window: int, shifted: bool) -> None:
    windows = Windows.of(lattice, window, (True,) * len(lattice), shifted)
    tokens = numbered(lattice)
    split = windows.split(tokens)
    assert split.shape[1] <= window ** len(lattice)
    assert torch.equal(windows.join(split), tokens)


@pytest.mark.parametrize("size", [8, 10, 11])
@pytest.mark.parametrize("shifted", [False, True])
def test_tokens_hear_those_of_their_window_and_no_others(size: int, shifted: bool) -> None:
    windows = Windows.of((size,), 4, (False,), shifted)
    own = windows.sizes[0]
    starts = [0, *range(own // 2 if shifted else own, size, own)]
    expected = torch.zeros(size, size, dtype=torch.bool)
    for start, end in zip(starts, [*starts[1:], size]):
        expected[start:end, start:end] = True
    assert torch.equal(heard(windows), expected)


def test_only_a_periodic_axis_hears_over_the_seam() -> None:
    both = heard(Windows.of((8, 8), 4, (True, False), shifted=True)).view(8, 8, 8, 8)
    assert both[0, 3, 7, 3]
    assert both[0, 3, 7, 5]
    assert not both[3, 0, 3, 7]
    assert both[3, 0, 4, 1], "and inside, windows reach over the middle"


def test_a_lattice_within_one_window_is_not_shifted() -> None:
    windows = Windows.of((6, 4), 8, (True, False), shifted=True)
    assert windows == Windows.of((6, 4), 8, (True, False))
    assert windows.mask(numbered((6, 4))) is None
    assert heard(windows).all()


def test_places_in_a_window_are_those_in_the_domain() -> None:
    places = Windows.of((8, 4), 4, (True, True)).places(((0, 2), (-1, 1)), torch.zeros(1))
    assert places.shape == (16, 2)
    assert places[5].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("lattice", LATTICES)
def test_a_merge_is_undone_by_a_spread_on_what_is_alike(lattice: tuple[int, ...]) -> None:
    """Sums of 2 × … × 2 alike tokens, spread again, are these tokens; odd sizes lose and gain nothing."""
    merge, spread = Merge(3, 3, (True,) * len(lattice)), Spread(3, 3, len(lattice))
    tokens = torch.ones(2, math.prod(lattice), 3) * torch.tensor([1.0, -2.0, 0.5])
    coarse = merge(tokens, lattice)
    assert coarse.shape == (2, math.prod(halved(lattice)), 3)
    torch.testing.assert_close(coarse, tokens[:, :1] * 2 ** (len(lattice) / 2) * torch.ones(coarse.shape[1], 1))
    torch.testing.assert_close(spread(coarse, lattice), tokens)


def test_a_merge_to_all_of_haars_transform_loses_nothing() -> None:
    tokens = torch.randn(2, 8, 3)
    merge, spread = Merge(3, 6, (True,)), Spread(3, 6, 1)
    torch.testing.assert_close(spread(merge(tokens, (8,)), (8,)), tokens)


def test_each_token_of_a_coarser_lattice_is_made_of_its_own_cell() -> None:
    merge = Merge(1, 1, (False, False))
    tokens = torch.zeros(1, 24, 1)
    tokens[0, 2 * 6 + 5] = 1.0  # row 2, column 5 of 4 × 6
    assert merge(tokens, (4, 6)).flatten().nonzero().tolist() == [[1 * 3 + 2]]


def test_odd_sizes_are_filled_up_by_the_first_place_or_the_last() -> None:
    values = torch.arange(15.0).view(1, 3, 5, 1)
    filled = evened(values, (True, False))[0, ..., 0]
    assert filled.shape == (4, 6)
    assert torch.equal(filled[3, :5], filled[0, :5])
    assert torch.equal(filled[:, 5], filled[:, 4])


def test_lattices_are_halved_until_one_token_is_left() -> None:
    for lattice in LATTICES:
        smaller, halvings = lattice, 0
        while max(smaller) > 1:
            smaller, halvings = halved(smaller), halvings + 1
        assert levels_of(lattice) == 1 + halvings


def test_groups_of_channels_do_not_hear_each_other() -> None:
    torch.manual_seed(0)
    attention = Attention(12, 2, groups=3)
    for weight in attention.parameters():
        torch.nn.init.normal_(weight)
    tokens = torch.randn(2, 5, 12)
    other = tokens.clone()
    other[..., 4:8] = torch.randn(2, 5, 4)
    changed = (attention(other, None) - attention(tokens, None)).abs().amax((0, 1)).view(3, 4).amax(1)
    assert (changed > 0).tolist() == [False, True, False]
    alone = Attention(4, 2)
    alone.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention(tokens, None)[..., 4:8], alone(tokens[..., 4:8], None))
