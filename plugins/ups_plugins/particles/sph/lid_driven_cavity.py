"""Flow in a square box whose lid slides, by smoothed particle hydrodynamics.

The fluid in [0, 1]² is at rest before its lid, at y = 1, moves along x with a speed U to one side or the other; the
other walls stand still. For ν = U/100 what becomes of it is a benchmark (Ghia, Ghia and Shin 1982,
doi:10.1016/0021-9991(82)90058-4). The walls are layers of particles around, which continue the lattice that the fluid
starts from; those above the fluid are the lid's.
"""

from __future__ import annotations

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit.simulating.drawing import generator_of, log_uniform, uniform
from ups_kit.simulating.keys import bounds

from .config import LidDrivenCavitySPH2DConfig
from .fluid import SETTLED_STEPS, Fluid, Medium, Walls
from .kernel import Kernel
from .keys import SKIN
from .neighbours import Crowd, Pairs
from .simulation import Part, ParticleSimulation, Store, filmed, longest_step, steps_of

FLUID, WALL, LID = range(3)


def lid_driven_cavity(config: LidDrivenCavitySPH2DConfig) -> ParticleSimulation:
    """The simulator of these settings."""
    store = Store(
        domain=config.describe().domain,
        periodic=(False, False),
        types=types_of(sites(config)),
        type_names=("fluid", "wall", "lid"),
        kinematic=(WALL, LID),
    )
    return ParticleSimulation(config, Cavity(config), store)


@frozen
class Cavity:
    """Flow driven by a lid, with ν and the lid's velocity of each trajectory."""

    config: LidDrivenCavitySPH2DConfig

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("nu", "lid_velocity")

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`positions` and `velocities` (trajectories, frames, particles, axes), `pressure`, `nu`, `lid_velocity`."""
        config = self.config
        rest, types = sites(config), types_of(sites(config))
        nus, lids, places = [], [], []
        for number in numbers:
            generator = generator_of(config.seed, number)
            nus.append(log_uniform(config.nu, generator))
            side = 1.0 if generator.random() < 0.5 else -1.0
            lids.append(side * uniform(config.speed, generator))
            moved = rest + config.disorder / config.particles * generator.uniform(-1, 1, rest.shape)
            inside = np.clip(moved, 0.5 / config.particles, 1 - 0.5 / config.particles)
            places.append(np.where(types[:, None] == FLUID, inside, rest).T)
        medium = self._medium(nus, lids, types, device)
        support = config.support * medium.spacing
        crowd = Crowd(numbers, len(types), box=None, fixed=types != FLUID)
        pairs = Pairs(crowd, support, SKIN * medium.spacing)
        fluid = Fluid(medium, Kernel(support, 2), pairs, torch.from_numpy(np.concatenate(places, 1)).to(device))
        fluid.settle(SETTLED_STEPS if config.disorder else 0)
        fluid.start(torch.zeros_like(fluid.positions))
        limit = longest_step(medium.spacing, medium.sound, bounds(config.speed)[1], bounds(config.nu)[1], config.cfl)
        if config.start:
            fluid.advance(*steps_of(config.start, limit))
        found = filmed(fluid, config, limit)
        found["velocities"][:, :, types == LID, 0] = np.array(lids, np.float32)[:, None, None]  # at rest, but sliding
        return {**found, "nu": np.array(nus), "lid_velocity": np.array(lids)}

    def _medium(self, nus: list[float], lids: list[float], types: NDArray[np.int64], device: torch.device) -> Medium:
        """The fluid and its walls, of trajectories with these viscosities and velocities of the lid."""
        along = np.concatenate([np.where(types == LID, lid, 0.0) for lid in lids])
        velocity = torch.from_numpy(np.stack([along, np.zeros_like(along)])).to(device)
        here = torch.from_numpy(np.tile(types != FLUID, len(nus))).to(device)
        viscosity = torch.from_numpy(np.repeat(nus, len(types))).to(device)
        sound = bounds(self.config.speed)[1] / self.config.mach
        return Medium(1 / self.config.particles, sound, viscosity, Walls(here, velocity))


def sites(config: LidDrivenCavitySPH2DConfig) -> NDArray[np.float64]:
    """The lattice of fluid and walls, (N, 2)."""
    along = (np.arange(-config.layers, config.particles + config.layers) + 0.5) / config.particles
    return np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)


def types_of(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """What the particles at places (N, 2) are: fluid inside of [0, 1]², the lid above it, or another wall."""
    beside = (places[:, 0] < 0) | (places[:, 0] > 1)
    return np.where(beside | (places[:, 1] < 0), WALL, np.where(places[:, 1] > 1, LID, FLUID)).astype(np.int64)
