"""Incompressible flow: Taylor and Green's vortices, the order in time, divergence, energy, and the force."""

from __future__ import annotations

import numpy as np
import torch
from attrs import evolve

from ups_plugins.simulators.config import NavierStokes2DConfig
from ups_plugins.simulators.navier_stokes import Flow, Modes

SMALL = NavierStokes2DConfig(trajectories=3, points=32, frames=4, duration=0.3, device="cpu")
CPU = torch.device("cpu")


def grid(points: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return torch.meshgrid(x, x, indexing="ij")  # type: ignore[no-any-return]


def solve(flow: Flow, vorticity: torch.Tensor, nu: float, force: torch.Tensor | None, time: float) -> torch.Tensor:
    modes = Modes.of(vorticity.shape[-1], CPU)
    viscosity = torch.full((len(vorticity),), nu, dtype=torch.float64)
    force = torch.zeros(*vorticity.shape, 2, dtype=torch.float64) if force is None else force
    return torch.fft.irfft2(flow.advance(torch.fft.rfft2(vorticity) * modes.kept, viscosity, force, time, modes))


def test_the_velocity_of_a_vorticity() -> None:
    """u = ψ_y, v = -ψ_x, ω = -∇²ψ."""
    x, y = (2 * np.pi * each for each in grid(32))
    vorticity = 20 * np.pi**2 * torch.sin(x) * torch.cos(2 * y)  # ψ = sin x cos 2y
    u, v = Modes.of(32, CPU).velocity(torch.fft.rfft2(vorticity[None]))
    torch.testing.assert_close(u[0], -4 * np.pi * torch.sin(x) * torch.sin(2 * y))
    torch.testing.assert_close(v[0], -2 * np.pi * torch.cos(x) * torch.cos(2 * y))


def test_taylor_green_vortices_decay_exactly() -> None:
    """ω = cos(2πn x) + cos(2πn y) transports itself nowhere, and decays with ν (2πn)² + α."""
    x, y = grid(32)
    vorticity = (10 * (torch.cos(6 * np.pi * x) + torch.cos(6 * np.pi * y)))[None]
    found = solve(Flow(evolve(SMALL, drag=0.3)), vorticity, 0.002, None, 1.0)
    torch.testing.assert_close(found, vorticity * np.exp(-0.002 * (6 * np.pi) ** 2 - 0.3), rtol=1e-11, atol=1e-11)


def test_the_transport_of_a_known_vorticity() -> None:
    """Of ψ = sin x cos y + ½ cos(2x + y), whose waves carry each other; x and y in units of the square / 2π."""
    x, y = (2 * np.pi * each for each in grid(64))
    w = 4 * np.pi**2 * (2 * torch.sin(x) * torch.cos(y) + 2.5 * torch.cos(2 * x + y))
    u = 2 * np.pi * (-torch.sin(x) * torch.sin(y) - 0.5 * torch.sin(2 * x + y))
    v = -2 * np.pi * (torch.cos(x) * torch.cos(y) - torch.sin(2 * x + y))
    w_x = 8 * np.pi**3 * (2 * torch.cos(x) * torch.cos(y) - 5 * torch.sin(2 * x + y))
    w_y = 8 * np.pi**3 * (-2 * torch.sin(x) * torch.sin(y) - 2.5 * torch.sin(2 * x + y))
    modes = Modes.of(64, CPU)
    found = torch.fft.irfft2(modes.transport(torch.fft.rfft2(w[None])))[0]
    torch.testing.assert_close(found, -(u * w_x + v * w_y), rtol=1e-10, atol=1e-8)


def first_vorticity(config: NavierStokes2DConfig) -> torch.Tensor:
    first = evolve(config, store="vorticity", frames=2, duration=0.001).build()
    return torch.from_numpy(first.solve(0, 2, lambda share: None)["tensor"][:, 0]).double()


def test_fourth_order_in_time() -> None:
    vorticity = first_vorticity(SMALL)
    solutions = [
        solve(Flow(evolve(SMALL, step=step)), vorticity, 2e-3, None, 0.2) for step in (0.02, 0.01, 0.005, 0.000625)
    ]
    errors = [float((solution - solutions[-1]).abs().max()) for solution in solutions[:-1]]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.5).all(), (errors, orders)
    assert errors[-1] < 1e-3 * float(vorticity.abs().max())


def test_energy_balance() -> None:
    """The energy that a forced flow gains is what the force gives, less what viscosity and drag take, over a time."""
    config = evolve(SMALL, forcing="kolmogorov", drag=0.5, step=0.002)
    flow, modes, nu = Flow(config), Modes.of(32, CPU), 5e-3
    vorticity = first_vorticity(config)
    force = torch.from_numpy(evolve(config, frames=2).build().solve(0, 2, lambda share: None)["force"]).double()

    def velocity(w: torch.Tensor) -> torch.Tensor:
        return modes.velocity(torch.fft.rfft2(w)).movedim(0, -1)

    energies, powers = [], []
    for _ in range(41):
        flow_now = velocity(vorticity)
        energies.append(0.5 * flow_now.square().sum(-1).mean((1, 2)))
        given = (force * flow_now).sum(-1).mean((1, 2))
        powers.append(given - nu * vorticity.square().mean((1, 2)) - 2 * config.drag * energies[-1])
        vorticity = solve(flow, vorticity, nu, force, 0.005)
    weights = torch.tensor([1.0, *[4.0, 2.0] * 19, 4.0, 1.0], dtype=torch.float64) * 0.005 / 3  # Simpson's rule
    gained = energies[-1] - energies[0]
    torch.testing.assert_close((torch.stack(powers) * weights[:, None]).sum(0), gained, rtol=1e-5, atol=1e-7)
    assert float(gained.abs().min()) > 1e-3


def test_a_decaying_flow_loses_energy_and_enstrophy() -> None:
    velocity = SMALL.build().solve(0, 3, lambda share: None)["velocity"].astype(np.float64)
    energy = (velocity**2).sum(-1).mean((2, 3))
    np.testing.assert_allclose(energy[:, 0], 1.0, rtol=1e-6)  # the root mean square speed is 1 at first
    assert (np.diff(energy, axis=1) < 0).all()
    stored = evolve(SMALL, store="vorticity").build().solve(0, 3, lambda share: None)["tensor"].astype(np.float64)
    assert (np.diff((stored**2).mean((2, 3)), axis=1) < 0).all()


def test_the_stored_velocity_is_free_of_divergence() -> None:
    solved = evolve(SMALL, forcing="kolmogorov", points=64).build().solve(0, 2, lambda share: None)
    velocity = torch.from_numpy(solved["velocity"]).double()
    modes = Modes.of(64, CPU)
    divergence = torch.fft.irfft2(modes.divergence(velocity))
    vorticity = torch.fft.irfft2(modes.curl(velocity))
    assert float(divergence.square().mean().sqrt() / vorticity.square().mean().sqrt()) < 1e-6
    assert float(velocity.mean((2, 3)).abs().max()) < 1e-7


def test_the_force_alone_makes_kolmogorovs_flow() -> None:
    """From rest, with drag and viscosity: u = f (1 - e^{-rt}) / r, r = ν (2πn)² + α; it transports nothing."""
    config = evolve(SMALL, forcing="kolmogorov", waves=3, drag=0.2)
    force = torch.from_numpy(config.build().solve(0, 3, lambda share: None)["force"]).double()
    found = solve(Flow(config), torch.zeros(3, 32, 32, dtype=torch.float64), 0.01, force, 0.5)
    rate = 0.01 * (6 * np.pi) ** 2 + 0.2
    velocity = Modes.of(32, CPU).velocity(torch.fft.rfft2(found)).movedim(0, -1)
    torch.testing.assert_close(velocity, force * (1 - np.exp(-rate * 0.5)) / rate, rtol=1e-7, atol=1e-7)


def test_the_initial_flow_does_not_depend_on_the_grid() -> None:
    """The cells of the coarse grid lie between those of the fine one: compared in Fourier modes."""
    coarse, fine = (first_vorticity(evolve(SMALL, points=points)).numpy() for points in (48, 96))
    shift = [np.exp(-1j * np.pi * np.fft.fftfreq(n, 1 / n) / n) for n in (48, 96)]
    one, other = (np.fft.fft2(w) / w[0].size for w in (coarse, fine))
    for k in (1, 2, 5):
        for m in (0, 1, 3):
            np.testing.assert_allclose(
                one[:, k, m] * shift[0][k] * shift[0][m], other[:, k, m] * shift[1][k] * shift[1][m], atol=1e-6
            )
    assert np.abs(one[:, 2, 1]).min() > 0


def test_spectrum_of_the_initial_flow() -> None:
    """Its energy lies around `peak`."""
    config = evolve(SMALL, points=64, peak=5.0, frames=2, duration=0.001)
    velocity = config.build().solve(0, 24, lambda share: None)["velocity"][:, 0]
    energy = (np.abs(np.fft.fft2(velocity, axes=(1, 2))) ** 2).sum(-1).mean(0)
    numbers = np.fft.fftfreq(64, 1 / 64)
    shells = np.rint(np.hypot(numbers[:, None], numbers)).astype(int)
    spectrum = np.bincount(shells.reshape(-1), energy.reshape(-1))
    assert spectrum.argmax() in (4, 5, 6)
    assert spectrum[12:].sum() < 0.01 * spectrum.sum()
