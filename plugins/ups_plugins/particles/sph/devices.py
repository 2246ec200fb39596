"""Where the particles are computed, and what is drawn for a trajectory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from ups_kit import DataError

from .keys import Range


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


def generator_of(seed: int, trajectory: int) -> np.random.Generator:
    """The generator of one trajectory."""
    return np.random.default_rng([seed, trajectory])


def uniform(bounds: Range, generator: np.random.Generator) -> float:
    """The number, or one between the two; one draw from the generator in any case."""
    share = generator.random()
    return bounds[0] + (bounds[1] - bounds[0]) * share if isinstance(bounds, tuple) else float(bounds)


def log_uniform(bounds: Range, generator: np.random.Generator) -> float:
    """The number, or one between the two, uniform in its logarithm; one draw from the generator in any case."""
    share = generator.random()
    return float(bounds[0] * (bounds[1] / bounds[0]) ** share) if isinstance(bounds, tuple) else float(bounds)
