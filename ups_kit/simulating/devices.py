"""Where a simulator computes, and how trajectories are shared among threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import DataError


def chosen_device(name: str) -> torch.device:
    """The device of the key `device`: with "auto" a GPU where there is one. Raises DataError where it is not there."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DataError(
            f"simulate.device = '{name}', and there is no CUDA device here; nearest: 'auto' or 'cpu'", "simulate.device"
        )
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def thread_pool() -> Iterator[Executor]:
    """A thread for each core that torch may use, and torch itself on one thread for each of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            min(threads, os.cpu_count() or 1), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def solved(
    solve: Callable[[range], Mapping[str, np.ndarray]], chunks: Sequence[range], report: Callable[[float], None]
) -> dict[str, np.ndarray]:
    """Named arrays of all trajectories, their first axis, from a function that gives those of some, thread by thread.

    `report` is told which share of the chunks is done.
    """
    found = []
    with thread_pool() as pool:
        for chunk in pool.map(solve, chunks):
            found.append(chunk)
            report(len(found) / len(chunks))
    return {name: np.concatenate([chunk[name] for chunk in found]) for name in found[0]}
