"""Darcy flow through a medium of two materials: a steady problem, one answer to one coefficient field.

    -∇·(a ∇u) = β on the unit square,  u = 0 on its boundary

u is the pressure, a the permeability (the field `nu` of PDEBench's files), β the strength of the source. The equation,
its layout and the values 1 and 0.1 of a are PDEBench's (Takamoto et al., arXiv:2210.07182, §D); where a is 0.1 is
decided by the sign of a random sum of Gaussian bumps.

Scheme: five-point finite volumes with harmonic means of a at the faces (Patankar, Numerical Heat Transfer and Fluid
Flow, 1980, §4.2) and half a cell between the outermost centres and the boundary; the sparse system is solved directly.
The flux through every face is one number for both cells, so the flow out of the square is exactly β. Second order
where a is smooth.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.simulating.drawing import generator_of, log_uniform
from ups_kit.simulating.keys import Range

from .config import Darcy2DConfig
from .layouts import DarcyLayout, Part, cell_centres
from .simulation import Simulation

BUMPS = 8
SMALLEST, LARGEST = 0.08, 0.25  # widths of the bumps


def darcy2d(config: Darcy2DConfig) -> Simulation:
    """The simulator of these settings."""
    layout = DarcyLayout(
        config.trajectories,
        (cell_centres(config.points),) * 2,
        config.beta,
        {
            "equation": "-div(nu grad(tensor)) = beta on [0, 1]^2, 0 on the boundary",
            "solver": "five-point finite volumes, harmonic means at faces, sparse direct solution",
            "values": "at cell centres",
            "units": "dimensionless",
            "periodic": [False, False],
            "seed": config.seed,
            "written_by": "ups_kit simulator darcy2d",
        },
    )
    return Simulation(config, Darcy(config), layout)


@frozen
class Darcy:
    """-∇·(a ∇u) = β."""

    config: Darcy2DConfig
    rows: int = 8

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {"beta": self.config.beta}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"residual": 0.02, "flux balance": 1e-3}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`tensor` (trajectories, 1, x, y), `nu` (trajectories, x, y) and `beta`. Always on the CPU."""
        points = self.config.points
        pressures = np.empty((len(numbers), 1, points, points), np.float32)
        permeabilities = np.empty((len(numbers), points, points), np.float32)
        strengths = np.empty(len(numbers))
        for row, number in enumerate(numbers):
            generator = generator_of(self.config.seed, number)
            permeabilities[row] = self._medium(generator)
            strengths[row] = log_uniform(self.config.beta, generator)
            pressures[row, 0] = strengths[row] * unit_pressure(permeabilities[row].astype(np.float64))
        return {"tensor": pressures, "nu": permeabilities, "beta": strengths}

    def _medium(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """1 or `contrast` by the sign of a sum of Gaussian bumps without mean."""
        centres = generator.random((2, BUMPS, 1))
        widths = generator.uniform(SMALLEST, LARGEST, (BUMPS, 1))
        heights = generator.uniform(-1, 1, BUMPS)
        across = np.exp(-0.5 * ((cell_centres(self.config.points) - centres) / widths) ** 2)
        bumps = np.einsum("b,bx,by->xy", heights, across[0], across[1])
        return np.where(bumps > bumps.mean(), 1.0, self.config.contrast)

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """The pressure against the solution, and the flow out of the square against the source, both relative.

        The residual is that of the solved equation: what the operator's inverse makes of it, relative to u.
        """
        pressure, permeability = values[:, -1, ..., 0], values[:, -1, ..., 1]
        residual, balance = [], []
        for u, a, beta in zip(pressure, permeability, parameters["beta"], strict=True):
            exact = float(beta) * torch.from_numpy(unit_pressure(a.cpu().numpy())).to(u.device)
            residual.append((u - exact).norm() / exact.norm())
            balance.append((outflow(u, a) - beta).abs() / beta)
        return {"residual": torch.stack(residual), "flux balance": torch.stack(balance)}


def unit_pressure(permeability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve -∇·(a ∇u) = 1 for a at the centres of square cells, (x, y)."""
    system = darcy_matrix(permeability)
    source = np.full(permeability.size, 1.0 / permeability.shape[0] / permeability.shape[1])
    factors = scipy.sparse.linalg.splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solution: NDArray[np.float64] = factors.solve(source).reshape(permeability.shape)
    return solution


def darcy_matrix(permeability: NDArray[np.float64]) -> scipy.sparse.csc_matrix:
    """The flow out of each cell for pressures at the centres, on the unit square; cells may be oblong."""
    columns, rows = permeability.shape
    numbers = np.arange(permeability.size).reshape(permeability.shape)
    stretch = (columns / rows, rows / columns)  # a face's length over the distance of the centres at its sides
    diagonal = np.zeros(permeability.shape)
    entries: list[NDArray[np.float64]] = []
    places: list[NDArray[np.int64]] = []
    for axis in (0, 1):
        along = np.moveaxis(permeability, axis, 0)
        faces = stretch[axis] * 2 * along[:-1] * along[1:] / (along[:-1] + along[1:])
        total = np.moveaxis(diagonal, axis, 0)
        total[:-1] += faces
        total[1:] += faces
        total[0] += 2 * stretch[axis] * along[0]
        total[-1] += 2 * stretch[axis] * along[-1]
        ids = np.moveaxis(numbers, axis, 0)
        entries.append(-faces.reshape(-1))
        places.append(np.stack([ids[:-1].reshape(-1), ids[1:].reshape(-1)]))
    off, (low, high) = np.concatenate(entries), np.concatenate(places, 1)
    values = np.concatenate([diagonal.reshape(-1), off, off])
    row = np.concatenate([numbers.reshape(-1), low, high])
    column = np.concatenate([numbers.reshape(-1), high, low])
    return scipy.sparse.csc_matrix((values, (row, column)), shape=(permeability.size,) * 2)


def outflow(pressure: Tensor, permeability: Tensor) -> Tensor:
    """The flow out of the unit square, through faces half a cell from the outermost centres."""
    columns, rows = pressure.shape
    out = 2 * permeability * pressure
    return (out[0] + out[-1]).sum() * columns / rows + (out[:, 0] + out[:, -1]).sum() * rows / columns
