"""Time, memory and tables for the benchmark scripts: alternating runs in one process, CPU time beside wall time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ups_kit.planning.measuring import saved_bytes as saved_bytes


class Timing(NamedTuple):
    """Median seconds of one call."""

    wall: float
    cpu: float


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every case once per round, in turn, after one untimed call each: other load hits all cases alike."""
    for call in cases.values():
        call()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, call in cases.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seen[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Timing(*(statistics.median(column) for column in zip(*times))) for name, times in seen.items()}


def optimised(losses: Callable[[], Tensor], model: nn.Module) -> Callable[[], None]:
    """A whole optimiser step of a model: what `losses` gives, its gradient, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        losses().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


@contextmanager
def autocast(precision: str) -> Iterator[None]:
    """Compute in "bf16" where it is safe, or in "fp32"."""
    with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        yield


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """An aligned table: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def mean_and_range(values: Sequence[float]) -> str:
    """`0.0123 (0.0119 to 0.0131)`, or one number where there is one."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4g} to {max(values):.4g})"
