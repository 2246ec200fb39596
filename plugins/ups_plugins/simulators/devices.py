"""Where a simulator computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from ups_kit import DataError


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
