"""Taylor-Green vortices in a periodic unit box, by smoothed particle hydrodynamics.

    u = U (sin X cos Y cos Z, -cos X sin Y cos Z, 0),  X = 2π (x - x₀) and so on;  in two dimensions without Z

(Taylor and Green 1937). In two dimensions it is an exact solution that decays: the kinetic energy is E(0) exp(-16π² ν
t). In three the vortices break into smaller ones, and where the viscosity outweighs that the energy is E(0) exp(-24π²
ν t). x₀ is drawn for each trajectory. A random field without divergence can be added: Fourier modes of at most
`MODES` waves along each axis, each with an amplitude from N(0, 1) across its wave vector.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from ups_kit.simulating.drawing import generator_of, log_uniform, uniform
from ups_kit.simulating.keys import bounds

from .config import TaylorGreenSPH2DConfig, TaylorGreenSPH3DConfig
from .fluid import SETTLED_STEPS, Fluid, Medium
from .kernel import Kernel
from .keys import SKIN
from .neighbours import Crowd, Pairs
from .simulation import Part, ParticleSimulation, Store, filmed, lattice, longest_step

MODES = 2
Config = TaylorGreenSPH2DConfig | TaylorGreenSPH3DConfig


def taylor_green(config: Config) -> ParticleSimulation:
    """The simulator of these settings."""
    dims = config.dims
    types = np.zeros(config.particles**dims, np.int64)
    store = Store(domain=((0.0, 1.0),) * dims, periodic=(True,) * dims, types=types, type_names=("fluid",))
    return ParticleSimulation(config, TaylorGreen(config), store)


@frozen
class TaylorGreen:
    """Vortices that decay, with ν and the largest speed U of each trajectory."""

    config: Config

    @property
    def parameters(self) -> tuple[str, ...]:
        return ("nu", "speed")

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`positions` and `velocities` (trajectories, frames, particles, axes), `pressure`, `nu` and `speed`."""
        config = self.config
        drawn = [Drawn.of(config, number) for number in numbers]
        fluid = self._fluid(numbers, drawn, device)
        fluid.settle(SETTLED_STEPS if config.disorder else 0)
        places = fluid.positions.cpu().numpy().reshape(config.dims, len(numbers), -1)
        first = [one.velocity(places[:, row]) for row, one in enumerate(drawn)]
        fluid.start(torch.from_numpy(np.concatenate(first, 1)).to(device))
        speed = bounds(config.speed)[1]
        limit = longest_step(1 / config.particles, fluid.medium.sound, speed, bounds(config.nu)[1], config.cfl)
        parameters = {"nu": np.array([one.nu for one in drawn]), "speed": np.array([one.speed for one in drawn])}
        return {**filmed(fluid, config, limit), **parameters}

    def _fluid(self, numbers: range, drawn: list[Drawn], device: torch.device) -> Fluid:
        """The fluid before it has settled."""
        config = self.config
        spacing = 1 / config.particles
        places = torch.from_numpy(np.concatenate([one.places for one in drawn], 1)).to(device)
        viscosity = np.repeat([one.nu for one in drawn], config.particles**config.dims)
        medium = Medium(spacing, bounds(config.speed)[1] / config.mach, torch.from_numpy(viscosity).to(device))
        support = config.support * spacing
        crowd = Crowd(numbers, config.particles**config.dims, box=1.0)
        return Fluid(medium, Kernel(support, config.dims), Pairs(crowd, support, SKIN * spacing), places)


@frozen(eq=False)
class Drawn:
    """What is drawn for one trajectory; its draws are the same whatever the settings are."""

    config: Config
    nu: float
    speed: float
    origin: NDArray[np.float64]  # (D,), x₀
    modes: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]  # wave vectors, amplitudes, phases
    places: NDArray[np.float64]  # (D, particles), before they settle

    @classmethod
    def of(cls, config: Config, number: int) -> Drawn:
        """The draws of trajectory `number`."""
        generator = generator_of(config.seed, number)
        nu, speed = log_uniform(config.nu, generator), uniform(config.speed, generator)
        origin, modes = generator.random(config.dims), random_modes(config.dims, generator)
        points = lattice(config.particles, config.dims)
        moved = points + config.disorder / config.particles * generator.uniform(-1, 1, points.shape)
        return cls(config, nu, speed, origin, modes, np.ascontiguousarray(moved.T))

    def velocity(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first velocities (D, particles) at places (D, particles): none on average, `speed` at most."""
        field = vortices(places - self.origin[:, None])
        if self.config.perturbation:
            vectors, amplitudes, phases = self.modes
            other = amplitudes.T @ np.cos(2 * np.pi * vectors @ places + phases[:, None])
            field += self.config.perturbation * other * np.sqrt((field**2).mean() / (other**2).mean())
        field -= field.mean(1, keepdims=True)
        scaled: NDArray[np.float64] = field * (self.speed / np.sqrt((field**2).sum(0).max()))
        return scaled


def vortices(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Taylor and Green's velocity (D, points) at places (D, points), 1 at most."""
    angles = 2 * np.pi * places
    sines, cosines = np.sin(angles), np.cos(angles)
    field = np.zeros_like(places)
    field[0], field[1] = sines[0] * cosines[1], -cosines[0] * sines[1]
    return field * cosines[2] if len(places) == 3 else field


def random_modes(
    dims: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Wave vectors (M, D), amplitudes (M, D) across them, and phases (M,): one of each pair k and -k."""
    every = itertools.product(range(-MODES, MODES + 1), repeat=dims)
    vectors = np.array([vector for vector in every if vector > (0,) * dims], np.float64)
    squares = (vectors**2).sum(1, keepdims=True)
    amplitudes = generator.standard_normal(vectors.shape)
    amplitudes -= vectors * (amplitudes * vectors).sum(1, keepdims=True) / squares
    return vectors, amplitudes / squares, generator.uniform(0, 2 * np.pi, len(vectors))
