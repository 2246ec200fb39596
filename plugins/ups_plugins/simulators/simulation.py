"""A simulator put together from an equation and a file layout: what is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit import DataError
from ups_kit.simulating.devices import chosen_device, solved, thread_pool
from ups_kit.simulating.keys import Range

from .layouts import Part

PART_BYTES = 2**26  # of stored values, about: what is lost at most when a making is stopped


class Settings(Protocol):
    """The keys that every simulator has."""

    @property
    def trajectories(self) -> int: ...

    @property
    def device(self) -> str: ...


class Equation(Protocol):
    """The mathematics of one simulator."""

    @property
    def rows(self) -> int:
        """How many trajectories one thread solves together, such that they fit a core's cache."""
        ...

    @property
    def parameters(self) -> Mapping[str, Range]:
        """The parameters that `audit` needs: a number, or the range that they were drawn from."""
        ...

    @property
    def tolerances(self) -> Mapping[str, float]: ...

    def solve(self, numbers: range, device: torch.device) -> Part:
        """The trajectories of these numbers as named arrays, their first axis counting trajectories."""
        ...

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """As `AuditsPhysics.audit`, in float64."""
        ...


class Layout(Protocol):
    """What the file looks like."""

    @property
    def bytes(self) -> int: ...

    def write(self, path: Path, parts: Iterable[Part]) -> None: ...


@frozen
class Simulation:
    """An equation, solved for many trajectories and stored in a public layout: a `Simulator` that `AuditsPhysics`.

    Trajectory i depends on the seed and on i alone. On a CPU the trajectories are solved a few at a time, by a thread
    for each core; on a GPU all of a part at once. Between kinds of devices the numbers agree to rounding.
    """

    settings: Settings
    equation: Equation
    layout: Layout

    @property
    def trajectories(self) -> int:
        return self.settings.trajectories

    @property
    def bytes(self) -> int:
        return self.layout.bytes

    @property
    def part(self) -> int:
        rows = self.equation.rows
        fitting = PART_BYTES * self.trajectories // max(self.bytes, 1)
        return max(rows, fitting // rows * rows)

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1 as named arrays."""
        device = chosen_device(self.settings.device)
        chunks = [range(start + one.start, start + one.stop) for one in self._chunks(stop - start, device)]
        return solved(lambda numbers: self.equation.solve(numbers, device), chunks, report)

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the file at `path` from all parts."""
        self.layout.write(path, parts)

    @property
    def tolerances(self) -> Mapping[str, float]:
        return self.equation.tolerances

    def audit(
        self, values: NDArray[Any], times: NDArray[Any], parameters: Mapping[str, NDArray[Any]]
    ) -> Mapping[str, np.ndarray]:
        """How well trajectories keep to the equation. Raises DataError where a parameter that it needs is missing."""
        device = chosen_device(self.settings.device)
        given = self._parameters(len(values), parameters)
        frames = np.asarray(times, np.float64)

        def judge(chunk: range) -> Mapping[str, Tensor]:
            inside = slice(chunk.start, chunk.stop)
            state = torch.from_numpy(np.asarray(values[inside], np.float64)).to(device)
            return self.equation.audit(
                state, frames, {name: torch.from_numpy(entry[inside]).to(device) for name, entry in given.items()}
            )

        with thread_pool() as pool:
            judged = list(pool.map(judge, self._chunks(len(values), device)))
        return {name: torch.cat([chunk[name] for chunk in judged]).cpu().numpy() for name in judged[0]}

    def _parameters(self, count: int, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        found = {}
        for name, value in self.equation.parameters.items():
            if name in given:
                found[name] = np.broadcast_to(np.asarray(given[name], np.float64), count).copy()
            elif isinstance(value, tuple):
                raise DataError(f"the equation needs '{name}' of every trajectory, and the data do not have it")
            else:
                found[name] = np.full(count, float(value))
        return found

    def _chunks(self, count: int, device: torch.device) -> Iterator[range]:
        rows = self.equation.rows if device.type == "cpu" else count
        return (range(start, min(start + rows, count)) for start in range(0, count, rows))
