"""Incompressible flow in a periodic square, by its vorticity.

    ω_t + u·∇ω = ν ∇²ω - α ω + ∇×f,  ∇·u = 0,  ω = ∇×u  on [0, 1)² periodic

u is the velocity, ω the vorticity, ν the viscosity, α the drag, f the force per mass: none (turbulence that decays) or
Kolmogorov's, A sin(2πn y + φ) along x or A sin(2πn x + φ) along y, which of them and φ drawn for each trajectory
(Meshalkin and Sinai 1961; with drag as in Kochkov et al., PNAS 118:21, 2021). The initial velocity is a random field
with the energy spectrum k⁴ exp(-2 (k/k₀)²), scaled to one speed.

Scheme: Fourier modes, products without aliasing by the 2/3 rule (Orszag 1971) in the form
u·∇ω = (∂xx - ∂yy)(uv) + ∂xy(v² - u²) (Basdevant 1983), four transforms each; viscosity and drag exactly by an
integrating factor, and the classical fourth-order Runge-Kutta method (Canuto et al., Spectral Methods, 2007, §D).
The velocity is free of divergence by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ups_kit import DataError
from ups_kit.simulating.drawing import generator_of, log_uniform
from ups_kit.simulating.keys import Range

from .auditing import drift, size, step_residual
from .config import NavierStokes2DConfig
from .layouts import FlowLayout, Part, cell_centres
from .simulation import Simulation

LARGEST_MODE = 12  # of the initial velocity
CACHED_VALUES = 2**14  # of one field, that a thread works on
COURANT = 0.25  # of a flow of the initial speed: its fastest parts are about four times as fast


def navier_stokes2d(config: NavierStokes2DConfig) -> Simulation:
    """The simulator of these settings."""
    attributes = {
        "equation": "w_t + u.grad w = nu lap w - drag w + curl f on [0, 1]^2, periodic",
        "solver": "Fourier, 2/3 rule, integrating factor, Runge-Kutta 4",
        "values": "at cell centres",
        "periodic": [True, True],
        "seed": config.seed,
        "drag": config.drag,
        "forcing": config.forcing,
        "written_by": "ups_kit simulator navier_stokes2d",
    }
    axes = (cell_centres(config.points),) * 2
    forced = config.forcing != "none"
    layout = FlowLayout(config.store, config.trajectories, axes, config.frames, config.duration, forced, attributes)
    return Simulation(config, Flow(config), layout)


@frozen
class Flow:
    """ω_t + u·∇ω = ν ∇²ω - α ω + ∇×f."""

    config: NavierStokes2DConfig

    @property
    def rows(self) -> int:
        return max(1, CACHED_VALUES // self.config.points**2)

    @property
    def parameters(self) -> Mapping[str, Range]:
        return {"nu": self.config.nu}

    @property
    def tolerances(self) -> Mapping[str, float]:
        if self.config.store == "vorticity":
            return {"residual": 0.02, "circulation drift": 1e-4}
        return {"residual": 0.02, "divergence": 1e-4, "momentum drift": 1e-4}

    def solve(self, numbers: range, device: torch.device) -> Part:
        """`velocity` (trajectories, frames, x, y, 2) or `tensor` (trajectories, frames, x, y), `nu`, and `force`
        (trajectories, x, y, 2) where there is one.
        """
        config = self.config
        viscosities, fields, forces = [], [], []
        for number in numbers:
            generator = generator_of(config.seed, number)
            viscosities.append(log_uniform(config.nu, generator))
            fields.append(self._initial(generator))
            forces.append(self._force(generator))
        force = torch.from_numpy(np.stack(forces)).to(device)
        modes = Modes.of(config.points, device)
        spectrum = torch.fft.rfft2(torch.from_numpy(np.stack(fields)).to(device)) * modes.kept
        viscosity = torch.tensor(viscosities, dtype=torch.float64, device=device)
        channels = () if config.store == "vorticity" else (2,)
        stored = np.empty((len(numbers), config.frames, config.points, config.points, *channels), np.float32)
        for frame in range(config.frames):
            if frame:
                spectrum = self.advance(spectrum, viscosity, force, config.duration / (config.frames - 1), modes)
            shown = torch.fft.irfft2(spectrum) if config.store == "vorticity" else modes.velocity(spectrum)
            stored[:, frame] = (shown if config.store == "vorticity" else shown.movedim(0, -1)).cpu().numpy()
        solved = {"tensor" if config.store == "vorticity" else "velocity": stored, "nu": np.array(viscosities)}
        return solved if config.forcing == "none" else {**solved, "force": np.stack(forces).astype(np.float32)}

    def _force(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """The force at the stored points, (x, y, 2)."""
        config = self.config
        force = np.zeros((config.points, config.points, 2))
        if config.forcing == "kolmogorov":
            angle, across = 2 * np.pi * generator.random(), generator.random() < 0.5
            wave = config.amplitude * np.sin(2 * np.pi * config.waves * cell_centres(config.points) + angle)
            force[..., int(across)] = wave[:, None] if across else wave
        return force

    def _initial(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """The initial vorticity at the cell centres; the draws, and the field, do not depend on the grid."""
        config = self.config
        largest = min(LARGEST_MODE, (config.points - 1) // 3)
        draws = generator.standard_normal((2, 2 * LARGEST_MODE + 1, LARGEST_MODE + 1))
        along, across = np.arange(-LARGEST_MODE, LARGEST_MODE + 1)[:, None], np.arange(LARGEST_MODE + 1)
        number = np.hypot(along, across)
        weight = np.where(number > 0, number**2.5 * np.exp(-((number / config.peak) ** 2)), 0.0)
        modes = (draws[0] + 1j * draws[1]) * weight * np.exp(1j * np.pi * (along + across) / config.points)
        inside = (np.abs(along) <= largest) & (across <= largest)
        spectrum = np.zeros((config.points, config.points // 2 + 1), np.complex128)
        rows, columns = np.nonzero(inside)
        spectrum[rows - LARGEST_MODE, columns] = modes[inside]
        vorticity = np.fft.irfft2(spectrum, s=(config.points,) * 2)
        known = Modes.of(config.points, torch.device("cpu"))
        velocity = known.velocity(torch.fft.rfft2(torch.from_numpy(vorticity))[None]).numpy()
        scaled: NDArray[np.float64] = vorticity * (config.speed / np.sqrt((velocity**2).sum(0).mean()))
        return scaled

    def advance(self, spectrum: Tensor, viscosity: Tensor, force: Tensor, duration: float, modes: Modes) -> Tensor:
        """Solve (trajectories, modes of x, modes of y) of the vorticity for a time; `force` (trajectories, x, y, 2)."""
        config = self.config
        largest = config.step or COURANT / (config.points * config.speed)
        steps = max(1, math.ceil(duration / largest - 1e-9))
        step = duration / steps
        half = torch.exp((-0.5 * step) * (viscosity[:, None, None] * modes.squared + config.drag))
        full = half * half
        curl = modes.curl(force)

        def rate(w: Tensor) -> Tensor:
            return modes.transport(w).add_(curl)

        for _ in range(steps):
            first = rate(spectrum)
            decayed = half * spectrum
            second = rate(torch.addcmul(decayed, half, first, value=step / 2))
            third = rate(torch.add(decayed, second, alpha=step / 2))
            whole = full * spectrum
            fourth = rate(torch.addcmul(whole, half, third, value=step))
            whole.addcmul_(full, first, value=step / 6).addcmul_(half, second.add_(third), value=step / 3)
            spectrum = whole.add_(fourth, alpha=step / 6)
        return spectrum

    def audit(
        self, values: Tensor, times: NDArray[np.float64], parameters: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        """What the solver makes of each frame, against the next one; divergence and mean of what is stored."""
        modes = Modes.of(values.shape[2], values.device)
        fields, force = self._separated(values)
        vorticity = fields[..., 0] if self.config.store == "vorticity" else torch.fft.irfft2(modes.curl(fields))

        def onward(frame: Tensor, number: int) -> Tensor:
            spectrum = torch.fft.rfft2(frame) * modes.kept
            interval = float(times[number + 1] - times[number])
            after: Tensor = torch.fft.irfft2(self.advance(spectrum, parameters["nu"], force, interval, modes))
            return after

        found = {"residual": step_residual(vorticity, onward)}
        if self.config.store == "vorticity":
            return {**found, "circulation drift": drift(vorticity.mean((2, 3)), size(vorticity))}
        divergence = torch.fft.irfft2(modes.divergence(fields))
        momentum = [drift(fields[..., part].mean((2, 3)), size(fields)) for part in (0, 1)]
        return {
            **found,
            "divergence": size(divergence) / size(vorticity).clamp_min(1e-300),
            "momentum drift": torch.maximum(*momentum),
        }

    def _separated(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The stored fields, and the force (trajectories, x, y, 2)."""
        targets = 1 if self.config.store == "vorticity" else 2
        fields, force = values[..., :targets], values[:, 0, ..., targets:]
        if self.config.forcing == "none":
            return fields, torch.zeros_like(values[:, 0, ..., :1]).expand(*values[:, 0, ..., 0].shape, 2)
        if force.shape[-1] != 2:
            raise DataError("the equation needs the static field 'force', of two components, and the data lack it")
        return fields, force


@frozen
class Modes:
    """The Fourier modes of a square grid of the unit square, as `rfft2` orders them."""

    x: Tensor  # 2π times the wave number along x, (points, 1)
    y: Tensor  # along y, (points / 2 + 1,)
    squared: Tensor
    kept: Tensor  # 1 where the 2/3 rule keeps a mode, else 0
    to_velocity: Tensor  # (2, …): what a mode of the vorticity is multiplied with
    from_products: Tensor  # (2, …): what the modes of uv and v² - u² are multiplied with

    @classmethod
    def of(cls, points: int, device: torch.device) -> Modes:
        numbers = torch.fft.fftfreq(points, 1 / points, dtype=torch.float64, device=device)[:, None]
        halves = torch.arange(points // 2 + 1, dtype=torch.float64, device=device)
        x, y = 2 * math.pi * numbers, 2 * math.pi * halves
        squared = x**2 + y**2
        kept = ((3 * numbers.abs() < points) & (3 * halves < points)).double()
        potential = torch.where(squared > 0, kept / squared.clamp_min(1e-300), 0.0)
        to_velocity = torch.stack([1j * y * potential, -1j * x * potential])
        from_products = torch.stack([(x**2 - y**2) * kept, x * y * kept])
        return cls(x, y, squared, kept, to_velocity, from_products)

    def velocity(self, spectrum: Tensor) -> Tensor:
        """(2, trajectories, x, y) from the vorticity's modes."""
        points = spectrum.shape[-2]
        velocity: Tensor = torch.fft.irfft2(self.to_velocity[:, None] * spectrum, s=(points, points))
        return velocity

    def curl(self, field: Tensor) -> Tensor:
        """∇×field as modes, for (…, x, y, 2)."""
        along, across = torch.fft.rfft2(field.movedim(-1, 0))
        curl: Tensor = (1j * (self.x * across - self.y * along)) * self.kept
        return curl

    def divergence(self, field: Tensor) -> Tensor:
        """∇·field as modes, for (…, x, y, 2)."""
        along, across = torch.fft.rfft2(field.movedim(-1, 0))
        divergence: Tensor = 1j * (self.x * along + self.y * across)
        return divergence

    def transport(self, spectrum: Tensor) -> Tensor:
        """-u·∇ω, as modes."""
        u, v = self.velocity(spectrum)
        products = torch.fft.rfft2(torch.stack([u * v, v * v - u * u]))
        transport: Tensor = self.from_products[0] * products[0] + self.from_products[1] * products[1]
        return transport
