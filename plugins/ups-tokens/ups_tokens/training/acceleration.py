"""What a GPU can do faster, set up by one call and put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def accelerated(device: torch.device, tf32: bool = True) -> Iterator[str]:
    """TF32 matrix products, and flash and memory-efficient attention, within a `with` block; yields what was set.

    On a CPU nothing is changed. Attention that a GPU's fast kernels cannot compute still goes the plain way.
    """
    if device.type != "cuda":
        yield f"{device.type}: nothing to set up"
        return
    before = [(setting, read()) for _, setting, read, _ in _settings(tf32)]
    for _, setting, _, value in _settings(tf32):
        setting(value)
    try:
        yield ", ".join(name for name, *_ in _settings(tf32))
    finally:
        for setting, value in before:
            setting(value)


def _settings(tf32: bool) -> list[tuple[str, Callable[[Any], Any], Callable[[], Any], Any]]:
    """What is set up: its name, how it is set and read, and the value that it gets."""
    cuda = torch.backends.cuda
    attention: list[tuple[str, Callable[[Any], Any], Callable[[], Any], Any]] = [
        ("flash attention", cuda.enable_flash_sdp, cuda.flash_sdp_enabled, True),
        ("memory-efficient attention", cuda.enable_mem_efficient_sdp, cuda.mem_efficient_sdp_enabled, True),
    ]
    products = ("TF32", torch.set_float32_matmul_precision, torch.get_float32_matmul_precision, "high")
    return [products, *attention] if tf32 else attention
