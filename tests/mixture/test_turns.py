"""Which task a step trains: as often as the weights say, every window once in its task's epoch, from any step on."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from ups_plugins.mixture.dataset import Mixture
from ups_plugins.mixture.turns import BLOCK, _block, turn


@pytest.mark.parametrize("shares", [(2.0, 1.0), (0.001, 5.0, 3.0), (1.0, 1.0, 1.0, 1.0, 1.0), (7.0,)])
def test_tasks_come_as_often_as_their_shares_say(shares: tuple[float, ...]) -> None:
    blocks = 40
    tasks = np.array([turn(shares, 5, step)[0] for step in range(blocks * BLOCK)]).reshape(blocks, BLOCK)
    wanted = np.array(shares) / sum(shares)
    counts = np.stack([(tasks == task).sum(1) for task in range(len(shares))], 1)
    assert (np.abs(counts - BLOCK * wanted) < 1 + 1e-9).all(), "in every block, to a step"
    assert np.abs(counts.sum(0) / tasks.size - wanted).max() < 0.4 / BLOCK, "and more closely over many"


def test_a_turn_counts_the_task_s_own_steps_and_needs_no_past() -> None:
    shares = (3.0, 1.0, 2.0)
    seen = [0, 0, 0]
    turns = [turn(shares, 11, step) for step in range(3 * BLOCK + 17)]
    for task, own in turns:
        assert own == seen[task]
        seen[task] += 1
    for step in (0, 5, BLOCK - 1, BLOCK, 3 * BLOCK + 16):
        _block.cache_clear()
        assert turn(shares, 11, step) == turns[step]
    assert [turn(shares, 12, step)[0] for step in range(50)] != [task for task, _ in turns[:50]]


def test_the_order_within_a_block_is_random() -> None:
    tasks = np.array([turn((1.0, 1.0), 0, step)[0] for step in range(8 * BLOCK)])
    changes = np.count_nonzero(np.diff(tasks)) / len(tasks)
    assert 0.45 < changes < 0.55


@pytest.mark.parametrize("batch", [3, 7])
def test_every_window_of_a_task_comes_once_in_its_epoch(mixture: Mixture, batch: int) -> None:
    steps = 2
    counts = [task.windows("train", steps) for task in mixture.tasks.values()]
    seen: list[list[int]] = [[], []]
    for step in range(150):
        windows = mixture.draw("train", steps, batch, seed=4, step=step)
        assert windows.shape == (batch,)
        assert np.array_equal(windows, mixture.draw("train", steps, batch, seed=4, step=step))
        task = int(windows[0] >= counts[0])
        assert ((windows >= counts[0]) == task).all(), "a batch is of one task"
        seen[task].extend(int(window) - task * counts[0] for window in windows)
    for task, own in enumerate(seen):
        whole = len(own) // counts[task]
        assert whole >= 2
        epochs = [own[start * counts[task] : (start + 1) * counts[task]] for start in range(whole)]
        assert all(sorted(epoch) == list(range(counts[task])) for epoch in epochs)
        assert epochs[0] != epochs[1]
    assert 0.6 < len(seen[0]) / (len(seen[0]) + len(seen[1])) < 0.73


def test_without_weights_tasks_come_as_their_windows_do(mixture: Mixture) -> None:
    plain = evolve(mixture, weights=None)
    counts = [task.windows("train", 1) for task in plain.tasks.values()]
    tasks = [int(plain.draw("train", 1, 1, 0, step)[0] >= counts[0]) for step in range(4 * BLOCK)]
    assert abs(np.mean(tasks) - counts[1] / sum(counts)) < 1 / BLOCK
