"""A simulator of particles: an equation solved for many trajectories, and the store that they are written to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.particle_store import ParticleSample, write_particles
from ups_kit.simulating.devices import chosen_device, solved

from .fluid import Fluid

MOST_STEPS = 10**6  # between two frames: these take hours
ROWS_PARTICLES = 2**11  # that a thread solves together: their pairs fit a core's cache
PART_PARTICLES = 2**15  # of a part: what is lost at most when a making is stopped
HEADER_BYTES = 2**13  # of a trajectory's arrays
VISCOUS = 0.5  # share of the viscous limit of a step, for cfl = 1
Part = Mapping[str, NDArray[np.generic]]


class Settings(Protocol):
    """The keys that are read here."""

    @property
    def trajectories(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def duration(self) -> float: ...
    @property
    def pressure(self) -> bool: ...
    @property
    def device(self) -> str: ...


class Equation(Protocol):
    """What one simulator solves."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the numbers of each trajectory that `solve` gives."""
        ...

    def solve(self, numbers: range, device: torch.device) -> Part:
        """The trajectories of these numbers as named arrays, their first axis counting trajectories."""
        ...


@frozen(eq=False)
class Store:
    """What all trajectories of a store have in common. Particles of a `kinematic` type are not predicted."""

    domain: tuple[tuple[float, float], ...]
    periodic: tuple[bool, ...]
    types: NDArray[np.int64]  # (N,)
    type_names: tuple[str, ...]
    kinematic: tuple[int, ...] = ()


@frozen
class ParticleSimulation:
    """An equation, solved for many trajectories and stored as `particle_zarr`: a `Simulator`.

    Trajectory i depends on the seed and on i alone. On a CPU a few are solved at a time, by a thread for each core; on
    a GPU all of a part at once. There sums are not taken in a fixed order, and numbers agree to rounding.
    """

    settings: Settings
    equation: Equation
    store: Store

    @property
    def trajectories(self) -> int:
        return self.settings.trajectories

    @property
    def part(self) -> int:
        return max(1, PART_PARTICLES // len(self.store.types))

    @property
    def bytes(self) -> int:
        channels = 2 * len(self.store.domain) + self.settings.pressure
        values = self.settings.frames * len(self.store.types) * channels
        return self.trajectories * (4 * values + HEADER_BYTES)

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1 as named arrays. Raises DataError where one blows up."""
        device = chosen_device(self.settings.device)
        rows = max(1, ROWS_PARTICLES // len(self.store.types)) if device.type == "cpu" else stop - start
        chunks = [range(first, min(first + rows, stop)) for first in range(start, stop, rows)]
        return solved(lambda numbers: self.equation.solve(numbers, device), chunks, report)

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the store at `path` from all parts."""
        store = self.store
        write_particles(
            path,
            self._samples(parts),
            domain=store.domain,
            periodic=store.periodic,
            type_names=store.type_names,
            kinematic=store.kinematic,
        )

    def _samples(self, parts: Iterable[Mapping[str, np.ndarray]]) -> Iterator[ParticleSample]:
        time = np.linspace(0.0, self.settings.duration, self.settings.frames)
        for part in parts:
            for place, positions in enumerate(part["positions"]):
                yield ParticleSample(
                    positions=positions,
                    time=time,
                    types=self.store.types,
                    velocities=part["velocities"][place],
                    fields={"pressure": part["pressure"][place]} if self.settings.pressure else {},
                    parameters={name: float(part[name][place]) for name in self.equation.parameters},
                )


def longest_step(spacing: float, sound: float, speed: float, viscosity: float, cfl: float) -> float:
    """The longest time step: of sound, Δt = cfl h/(c + u), and of viscosity, Δt = cfl h²/(2ν), h being the spacing
    (Morris, Fox and Zhu 1997, doi:10.1006/jcph.1997.5776).
    """
    return cfl * min(spacing / (sound + speed), VISCOUS * spacing**2 / viscosity)


def steps_of(duration: float, limit: float) -> tuple[float, int]:
    """Equal steps no longer than `limit`: how long each is, and how many. DataError where they are too many."""
    if duration > MOST_STEPS * limit:
        raise DataError(
            f"{duration:g} from one frame to the next, or to the first one, takes {duration / limit:.3g} time steps of "
            f"{limit:.3g}; expected at most {MOST_STEPS:,}: take a shorter duration, or more frames",
            key="simulate.duration",
        )
    count = max(1, math.ceil(duration / limit - 1e-9))
    return duration / count, count


def filmed(fluid: Fluid, settings: Settings, limit: float) -> dict[str, NDArray[np.generic]]:
    """Solve for all frames, with steps no longer than `limit`: positions and velocities (S, T, N, D), and the
    pressure (S, T, N, 1) where it is stored, float32. Positions in a periodic box are wrapped into it.
    """
    step, steps = steps_of(settings.duration / (settings.frames - 1), limit)
    crowd = fluid.pairs.crowd
    shape = (len(crowd.numbers), settings.frames, crowd.size)
    dims = len(fluid.positions)
    found = {name: np.empty((*shape, dims), np.float32) for name in ("positions", "velocities")}
    if settings.pressure:
        found["pressure"] = np.empty((*shape, 1), np.float32)
    for frame in range(settings.frames):
        if frame:
            fluid.advance(step, steps)
        fluid.check()
        found["positions"][:, frame] = wrapped(_by_trajectory(fluid.positions, crowd.size), crowd.box)
        found["velocities"][:, frame] = _by_trajectory(fluid.velocity, crowd.size)
        if settings.pressure:
            found["pressure"][:, frame] = _by_trajectory(fluid.pressure[None], crowd.size)
    return dict(found)


def wrapped(positions: NDArray[np.float64], box: float | None) -> NDArray[np.float32]:
    """Positions in [0, box), also as float32."""
    if box is None:
        return positions.astype(np.float32)
    inside = (positions % box).astype(np.float32)
    inside[inside >= np.float32(box)] = 0.0
    return inside


def _by_trajectory(values: torch.Tensor, size: int) -> NDArray[np.float64]:
    """(D, particles) as (S, N, D)."""
    return np.moveaxis(values.cpu().numpy().reshape(len(values), -1, size), 0, -1)


def lattice(particles: int, dims: int) -> NDArray[np.float64]:
    """Centres of `particles` cells along each axis of the unit box, (N, D)."""
    centres = (np.arange(particles) + 0.5) / particles
    return np.stack(np.meshgrid(*[centres] * dims, indexing="ij"), -1).reshape(-1, dims)
