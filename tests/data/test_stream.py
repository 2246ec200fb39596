"""Batches as pure functions of seed and step; shifts that move everything together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ups_kit import Batch, Field, FieldSpec, Latent, PointSet
from ups_kit.data.stream import shift_periodic, window_numbers


@given(total=st.integers(1, 60), batch=st.integers(1, 70), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(total: int, batch: int, seed: int) -> None:
    stream = np.concatenate([window_numbers(total, batch, seed, step) for step in range(3 * total // batch + 1)])
    for epoch in range(len(stream) // total):
        np.testing.assert_array_equal(np.sort(stream[epoch * total : (epoch + 1) * total]), np.arange(total))


def test_a_step_does_not_depend_on_those_before() -> None:
    first = [window_numbers(50, 8, 7, step) for step in range(40)]
    for step in (39, 0, 17, 6, 7):
        np.testing.assert_array_equal(window_numbers(50, 8, 7, step), first[step])
    assert not np.array_equal(window_numbers(50, 8, 8, 0), first[0])
    assert not np.array_equal(np.concatenate(first)[:50], np.concatenate(first)[50:100])


def test_no_windows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        window_numbers(0, 4, 0, 0)


def grid_batch(grid: tuple[int, ...], periodic: tuple[bool, ...]) -> tuple[Batch, FieldSpec]:
    fields = FieldSpec(
        targets=(Field("u"), Field("v")),
        domain=tuple((0.0, 1.0) for _ in grid),
        periodic=periodic,
        layout="grid",
        grid=grid,
        dt=0.1,
    )
    points = int(np.prod(grid))
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(6, 3, points, 2, generator=generator)
    positions = torch.rand(6, points, len(grid), generator=generator)
    inputs = PointSet(positions, torch.cat([states[:, 0], states[:, 0] ** 2], -1), grid=grid)
    batch = Batch(inputs, states, positions, grid, torch.zeros(6, 1), torch.arange(6), torch.zeros(6))
    return batch, fields


@pytest.mark.parametrize("grid", [(8,), (5, 4), (3, 4, 2)])
def test_shift_is_one_roll_of_inputs_and_states(grid: tuple[int, ...]) -> None:
    batch, fields = grid_batch(grid, tuple(True for _ in grid))
    shifted = shift_periodic(batch, fields, torch.Generator().manual_seed(1))
    axes = tuple(range(len(grid)))
    found = set()
    for sample in range(6):
        before = batch.states[sample].unflatten(1, grid)
        after = shifted.states[sample].unflatten(1, grid)
        rolls = [
            shift
            for shift in np.ndindex(*grid)
            if torch.equal(before.roll(shift, tuple(axis + 1 for axis in axes)), after)
        ]
        assert len(rolls) == 1
        found.add(rolls[0])
    assert len(found) > 1
    torch.testing.assert_close(shifted.inputs.values, torch.cat([shifted.states[:, 0], shifted.states[:, 0] ** 2], -1))
    assert shifted.positions is batch.positions


def test_axes_that_are_not_periodic_stay() -> None:
    batch, fields = grid_batch((6, 5), (False, True))
    shifted = shift_periodic(batch, fields, torch.Generator().manual_seed(1))
    assert not torch.equal(shifted.states, batch.states)
    sums = [states.unflatten(2, (6, 5)).sum(3) for states in (batch.states, shifted.states)]
    torch.testing.assert_close(sums[0], sums[1])
    walls, no_fields = grid_batch((6, 5), (False, False))
    assert shift_periodic(walls, no_fields, torch.Generator()) is walls


def test_shift_depends_on_the_generator_alone() -> None:
    batch, fields = grid_batch((16,), (True,))
    one, other, third = (
        shift_periodic(batch, fields, torch.Generator().manual_seed(seed)).states for seed in (1, 1, 2)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_cached_latents_are_not_left_behind() -> None:
    batch, fields = grid_batch((8,), (True,))
    with pytest.raises(ValueError, match="cached latents"):
        shift_periodic(batch._replace(latents=(Latent(torch.zeros(6, 2, 4), None),)), fields, torch.Generator())
