"""Flow past random obstacles: what is drawn, meshed, solved and stored for each trajectory.

What is solved stands in `stepping`, the finite elements in `spaces`, the meshes in `meshing`, the first velocity in
`starting`. The step is chosen anew for every frame by the fastest flow; it depends on the trajectory alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.mesh_store import MeshSample, write_meshes
from ups_kit.simulating.drawing import generator_of, log_uniform
from ups_kit.simulating.keys import bounds

from .config import PRESSURE_UNIT, SPEED_UNIT, ObstacleFlow2DConfig
from .meshing import Mesh, mesh_of, spacing_for
from .obstacles import Obstacle, Room
from .spaces import scikit_fem, space_on
from .starting import Start, inflow
from .stepping import Flow

PART = 8  # trajectories: what is lost at most when a making is stopped
COURANT, HIGHEST = 0.17, 0.21  # triangles crossed in a step: as it is chosen, and where it is halved
LOOKS = 4  # steps between looks at it
MOST_STEPS = 10**6  # between two frames: these take hours
UNBOUNDED = 1e5  # triangles in a unit of time: some 100 to 1000 are usual
WASTE, SLACK = 0.75, 1.15  # steps that a time needs over those as long as the last ones: kept between these
HEADER_BYTES = 2**13  # of a trajectory's arrays
Part = Mapping[str, NDArray[np.generic]]


def obstacle_flow2d(config: ObstacleFlow2DConfig) -> ObstacleFlow:
    """The simulator of these settings. DataError where scikit-fem is not installed."""
    scikit_fem()
    return ObstacleFlow(config)


@frozen(eq=False)
class Drawn:
    """What is drawn for one trajectory."""

    obstacles: tuple[Obstacle, ...]
    viscosity: float
    start: Start
    mesh: Mesh


@frozen
class ObstacleFlow:
    """Flow past random obstacles on meshes of their own: a `Simulator`.

    Trajectory i depends on the seed and on i alone; a thread for each core solves one at a time.
    """

    config: ObstacleFlow2DConfig

    @property
    def trajectories(self) -> int:
        return self.config.trajectories

    @property
    def part(self) -> int:
        return PART

    @property
    def bytes(self) -> int:
        points = self.config.points
        return self.trajectories * (12 * self.config.frames * points + 72 * points + HEADER_BYTES)

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1, filled up at the end to as many nodes N and cells M as the largest has.

        `velocity` (S, frames, N, 2), `pressure` (S, frames, N, 1), `coords` (S, N, 2), `cells` (S, M, 3), `node_type`
        (S, N), `counts` (S, 2) of nodes and cells, `nu` (S, 1). Raises DataError where one cannot be drawn or solved.
        """
        solved = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for one in pool.map(self.trajectory, range(start, stop)):
                solved.append(one)
                report(len(solved) / (stop - start))
        return {name: _stacked([np.asarray(one[name]) for one in solved]) for name in solved[0]}

    def draw(self, number: int) -> Drawn:
        """Obstacles, viscosity, mesh and first velocity of a trajectory."""
        config, name = self.config, f"trajectory {number}"
        generator = generator_of(config.seed, number)
        low, high = bounds(config.obstacles)
        count = int(generator.integers(low, high + 1))
        reynolds = log_uniform(config.reynolds, generator)
        start = generator.spawn(1)[0]  # eddies do not depend on how often obstacles were drawn
        room = Room(config.length, config.gap, config.before, config.behind)
        obstacles = room.draw(count, config.radius, config.stretch, generator, name)
        spacing = spacing_for(config.points, config.refinement, config.length, obstacles)
        return Drawn(
            obstacles=obstacles,
            viscosity=2 * max(one.size for one in obstacles) / reynolds,
            start=Start.draw(obstacles, config.gap, config.length, config.eddies, start),
            mesh=mesh_of(config.length, obstacles, spacing, (config.seed, number), config.counts, name),
        )

    def trajectory(self, number: int) -> Part:
        """The arrays of one trajectory, by the names of `solve`."""
        config, drawn = self.config, self.draw(number)
        mesh, space = drawn.mesh, space_on(drawn.mesh)
        given = inflow(space.places)
        flow = Flow(space, drawn.viscosity, lambda time: given, drawn.start.velocity(space.places), step=math.inf)
        interval = config.duration / (config.frames - 1)
        velocity = np.empty((config.frames, len(mesh.nodes), 2), np.float32)
        pressure = np.empty((config.frames, len(mesh.nodes), 1), np.float32)
        if config.warmup:
            carry(flow, config.warmup, f"trajectory {number}")
        else:
            flow.settle(COURANT)
        for frame in range(config.frames):
            if frame:
                carry(flow, interval, f"trajectory {number}")
            velocity[frame], pressure[frame, :, 0] = flow.velocity[space.corners], flow.pressure
        return {
            "velocity": velocity,
            "pressure": pressure,
            "coords": mesh.nodes,
            "cells": mesh.cells,
            "node_type": mesh.kinds,
            "counts": np.array([len(mesh.nodes), len(mesh.cells)]),
            "nu": np.array([drawn.viscosity]),
        }

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the store at `path` from all parts."""
        units = {"velocity": SPEED_UNIT, "pressure": PRESSURE_UNIT, "coords": "length", "time": "time"}
        domain = ((0.0, self.config.length), (0.0, 1.0))
        write_meshes(path, self._samples(parts), domain=domain, periodic=(False, False), units=units)

    def _samples(self, parts: Iterable[Mapping[str, np.ndarray]]) -> Iterator[MeshSample]:
        time = np.linspace(0.0, self.config.duration, self.config.frames)
        for part in parts:
            for place, (nodes, cells) in enumerate(part["counts"]):
                yield MeshSample(
                    coords=part["coords"][place, :nodes],
                    cells=part["cells"][place, :cells],
                    fields={name: part[name][place, :, :nodes] for name in ("velocity", "pressure")},
                    time=time,
                    statics={"node_type": part["node_type"][place, :nodes]},
                    parameters={"nu": float(part["nu"][place, 0])},
                )


def carry(flow: Flow, duration: float, name: str) -> None:
    """Solve for a time, with equal steps that suit the mesh and the flow. DataError, with `name`, where none does."""
    with np.errstate(over="ignore", invalid="ignore"):  # of a flow that grows without bounds, which is told
        needed = duration * _fastest(flow, name) / COURANT
        if needed > MOST_STEPS:
            raise DataError(
                f"{name}: {duration:g} from one frame to the next, or to the first one, takes {needed:.3g} time steps; "
                f"expected at most {MOST_STEPS:,}: take a shorter duration or warm-up, or more frames",
                key="simulate.duration",
            )
        wanted = max(1, math.ceil(needed))
        held = duration / flow.step
        if not (WASTE * held <= wanted <= SLACK * held and abs(held - round(held)) < 1e-6):
            flow.restep(duration / wanted)
        left = round(duration / flow.step)
        while left:
            if flow.step * _fastest(flow, name) > HIGHEST:
                flow.restep(flow.step / 2)
                left *= 2
            taken = min(LOOKS, left)
            flow.advance(taken)
            left -= taken
        _fastest(flow, name)


def _fastest(flow: Flow, name: str) -> float:
    """How many triangles the flow crosses in a unit of time; DataError where that has no bounds."""
    fastest = flow.space.transport.fastest(flow.velocity)
    if not fastest < UNBOUNDED:
        raise DataError(
            f"{name}: its flow does not stay finite with these settings of the simulator; take a smaller Reynolds "
            "number, more points, or slower eddies",
            key="simulate.reynolds",
        )
    return fastest


def _stacked(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """One array of several, each axis as long as the longest, filled up with zeros."""
    shape = tuple(max(sizes) for sizes in zip(*(each.shape for each in arrays)))
    whole = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for filled, each in zip(whole, arrays):
        filled[tuple(slice(0, count) for count in each.shape)] = each
    return whole
