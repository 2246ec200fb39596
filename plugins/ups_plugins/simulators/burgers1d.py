"""Writes a file of Burgers trajectories in PDEBench's public HDF5 layout."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError, StorageError

from .burgers import advance
from .config import Burgers1DConfig
from .initial import Waves

BLOCK = 2048  # trajectories that are in memory at a time
SOLVER = (
    "finite volumes: MUSCL-Hancock, van Leer slopes, Godunov flux; Strang splitting with the lattice heat semigroup"
)


@frozen
class Burgers1D:
    """Solves and stores trajectories; a pure function of its config.

    Trajectory i depends on the seed and on i alone: not on how many there are, nor on threads. On one CPU the bits are
    the same; between kinds of devices they agree to rounding. The file holds `tensor` [trajectory, time, x] float32,
    contiguous; `x-coordinate` (cell centres); `t-coordinate` with one entry more than there are frames, as PDEBench
    writes it; and `epsilon` of each trajectory (the viscosity is epsilon / π).
    """

    config: Burgers1DConfig

    def write(self, path: Path, report: Callable[[int, int], None]) -> None:
        """Write the file at `path`; `report(done, total)` counts trajectories. Raises StorageError on a full disk."""
        config = self.config
        shape = (config.trajectories, config.frames, config.points)
        _check_space(path, 4 * math.prod(shape))
        viscosities, _ = self.draws(0, config.trajectories)
        with h5py.File(path, "w") as file, _threads() as pool:
            file.attrs.update(self._attributes())
            tensor = file.create_dataset("tensor", shape, np.float32)
            interval = config.duration / (config.frames - 1)
            file["x-coordinate"] = (np.arange(config.points) + 0.5) / config.points
            file["t-coordinate"] = np.arange(config.frames + 1) * interval
            file["epsilon"] = viscosities
            file["epsilon"].attrs["meaning"] = "the viscosity is epsilon / pi"
            for start in range(0, config.trajectories, BLOCK):
                stop = min(start + BLOCK, config.trajectories)

                def progress(frame: int, start: int = start, stop: int = stop) -> None:
                    report(start + (stop - start) * frame // (config.frames - 1), config.trajectories)

                tensor[start:stop] = self.solve(start, stop, pool, progress)

    def draws(self, start: int, stop: int) -> tuple[NDArray[np.float64], list[Waves]]:
        """ε and the initial condition of trajectories start … stop - 1."""
        viscosities, waves = [], []
        drawn = isinstance(self.config.epsilon, tuple)
        low, high = self.config.epsilon if isinstance(self.config.epsilon, tuple) else (self.config.epsilon,) * 2
        for trajectory in range(start, stop):
            generator = np.random.default_rng([self.config.seed, trajectory])
            waves.append(Waves.drawn(generator))
            share = generator.random()
            viscosities.append(low * (high / low) ** share if drawn else low)
        return np.array(viscosities), waves

    def solve(
        self, start: int, stop: int, pool: Executor | None = None, report: Callable[[int], None] = lambda frame: None
    ) -> NDArray[np.float32]:
        """Trajectories start … stop - 1 as stored, (trajectories, frames, points); `report` is told each frame."""
        config = self.config
        device = _device(config.device)
        epsilons, waves = self.draws(start, stop)
        cells = config.points * config.refinement
        state = torch.from_numpy(np.stack([wave.averages(cells) for wave in waves])).to(device)
        viscosity = torch.from_numpy(epsilons / np.pi).to(device)
        stored = np.empty((stop - start, config.frames, config.points), np.float32)
        for frame in range(config.frames):
            if frame:
                interval = config.duration / (config.frames - 1)
                state = advance(state, viscosity, interval, cfl=config.cfl, pool=pool)
            stored[:, frame] = state.view(-1, config.points, config.refinement).mean(2).cpu().numpy()
            report(frame)
        return stored

    def _attributes(self) -> dict[str, str | int | float]:
        return {
            "equation": "u_t + (u^2/2)_x = (epsilon/pi) u_xx on [0, 1], periodic",
            "solver": SOLVER,
            "values": "cell averages",
            "units": "dimensionless",
            "seed": self.config.seed,
            "refinement": self.config.refinement,
            "cfl": self.config.cfl,
            "written_by": "ups_kit simulator burgers1d",
        }


def _device(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DataError(f"simulate.device = '{name}', and there is no CUDA device here; nearest: 'auto' or 'cpu'")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


@contextmanager
def _threads() -> Iterator[Executor | None]:
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


def _check_space(path: Path, needed: int) -> None:
    """HDF5 can end the process when the disk fills up, so there is a look before."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageError(f"{path}: needs {needed / 2**20:.0f} MiB, and {path.parent} has {free / 2**20:.0f} MiB free")
