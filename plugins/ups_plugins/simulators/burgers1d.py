"""Writes a file of Burgers trajectories in PDEBench's public HDF5 layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.simulating.devices import chosen_device, thread_pool
from ups_kit.simulating.drawing import generator_of, log_uniform

from .auditing import drift, size, step_residual
from .burgers import advance
from .config import Burgers1DConfig
from .initial import Waves
from .layouts import TensorLayout, cell_centres

PART = 512
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

    @property
    def trajectories(self) -> int:
        return self.config.trajectories

    @property
    def part(self) -> int:
        return PART

    @property
    def bytes(self) -> int:
        return self._layout.bytes

    @property
    def _layout(self) -> TensorLayout:
        config = self.config
        return TensorLayout(
            config.trajectories,
            (cell_centres(config.points),),
            config.frames,
            config.duration,
            ("epsilon",),
            self._attributes(),
        )

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the file at `path` from all parts."""
        self._layout.write(path, parts)
        with h5py.File(path, "r+") as file:
            file["epsilon"].attrs["meaning"] = "the viscosity is epsilon / pi"

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.2, "mass drift": 1e-4}

    def audit(
        self, values: np.ndarray, times: np.ndarray, parameters: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """What the solver, on the stored cells, makes of each frame against the next one; and the drift of the mean."""
        if "epsilon" not in parameters:
            raise DataError("the equation needs 'epsilon' of every trajectory, and the data do not have it")
        state = torch.from_numpy(np.asarray(values[..., 0], np.float64))
        viscosity = torch.from_numpy(np.asarray(parameters["epsilon"], np.float64) / np.pi)
        with thread_pool() as pool:

            def onward(frame: torch.Tensor, number: int) -> torch.Tensor:
                interval = float(times[number + 1] - times[number])
                return advance(frame, viscosity, interval, cfl=self.config.cfl, pool=pool)

            residual = step_residual(state, onward)
        return {"residual": residual.numpy(), "mass drift": drift(state.mean(2), size(state)).numpy()}

    def draws(self, start: int, stop: int) -> tuple[NDArray[np.float64], list[Waves]]:
        """ε and the initial condition of trajectories start … stop - 1."""
        viscosities, waves = [], []
        for trajectory in range(start, stop):
            generator = generator_of(self.config.seed, trajectory)
            waves.append(Waves.drawn(generator))
            viscosities.append(log_uniform(self.config.epsilon, generator))
        return np.array(viscosities), waves

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Trajectories start … stop - 1: `tensor` (trajectories, frames, points) as stored, and `epsilon`."""
        config = self.config
        device = chosen_device(config.device)
        epsilons, waves = self.draws(start, stop)
        cells = config.points * config.refinement
        state = torch.from_numpy(np.stack([wave.averages(cells) for wave in waves])).to(device)
        viscosity = torch.from_numpy(epsilons / np.pi).to(device)
        stored = np.empty((stop - start, config.frames, config.points), np.float32)
        interval = config.duration / (config.frames - 1)
        with thread_pool() as pool:
            for frame in range(config.frames):
                if frame:
                    state = advance(state, viscosity, interval, cfl=config.cfl, pool=pool)
                stored[:, frame] = state.view(-1, config.points, config.refinement).mean(2).cpu().numpy()
                report(frame / (config.frames - 1))
        return {"tensor": stored, "epsilon": epsilons}

    def _attributes(self) -> dict[str, str | int | float | list[bool]]:
        return {
            "equation": "u_t + (u^2/2)_x = (epsilon/pi) u_xx on [0, 1], periodic",
            "solver": SOLVER,
            "values": "cell averages",
            "units": "dimensionless",
            "periodic": [True],
            "seed": self.config.seed,
            "refinement": self.config.refinement,
            "cfl": self.config.cfl,
            "written_by": "ups_kit simulator burgers1d",
        }
