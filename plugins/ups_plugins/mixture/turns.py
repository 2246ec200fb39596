"""Whose turn it is: the task of every step, a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 256  # steps in which tasks come as often as their shares say, to one step


def turn(shares: Sequence[float], seed: int, step: int) -> tuple[int, int]:
    """The task of a step, and how many earlier steps were its own.

    Steps are drawn in blocks by systematic sampling (one random number for all of them), so that in each block a task
    with the share p has ⌊p·256⌋ or ⌈p·256⌉ steps, p·256 in the mean; their order within a block is random.
    """
    block, place = divmod(step, BLOCK)
    before, order = _block(tuple(shares), seed, block)
    task = int(order[place])
    return task, int(before[task] + np.count_nonzero(order[:place] == task))


@lru_cache(maxsize=16)
def _block(shares: tuple[float, ...], seed: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many steps each task had before a block, and the tasks of its steps."""
    starts = np.random.default_rng([seed, 0]).random(block + 1)  # of a block, whatever the number of blocks is
    ends = np.cumsum(shares) / np.sum(shares)
    ends[-1] = 1.0
    reached = np.ceil(BLOCK * ends - starts[:, None]).clip(0, BLOCK).astype(np.int64)  # steps of the first tasks
    counts = np.diff(reached, axis=1, prepend=0)
    order = np.random.default_rng([seed, 1, block]).permutation(np.repeat(np.arange(len(shares)), counts[-1]))
    return counts[:-1].sum(0), order
