"""Simulated particles: energy against theory, the cavity against a benchmark, and the stores that are written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.cli import main
from ups_kit.data.making import make
from ups_plugins.particles.formats import ParticleZarrConfig
from ups_plugins.particles.sph.config import (
    LidDrivenCavitySPH2DConfig,
    TaylorGreenSPH2DConfig,
    TaylorGreenSPH3DConfig,
)

FEW: dict[str, Any] = {"trajectories": 6, "frames": 3, "duration": 0.04, "device": "cpu"}
SMALL: dict[str, Any] = {
    "taylor_green_sph2d": TaylorGreenSPH2DConfig(particles=10, pressure=True, **FEW),
    "taylor_green_sph3d": TaylorGreenSPH3DConfig(particles=6, support=2.0, **FEW),
    "lid_driven_cavity_sph2d": LidDrivenCavitySPH2DConfig(particles=8, start=0.1, **FEW),
}
PURE: dict[str, Any] = {"perturbation": 0.0, "speed": 1.0, "trajectories": 1, "device": "cpu"}


def solved(config: Any, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
    stop = config.trajectories if stop is None else stop
    return dict(config.build().solve(start, stop, lambda share: None))


def energies(config: Any) -> NDArray[np.float64]:
    """Kinetic energy of each frame over that of the first, (frames,)."""
    energy = (solved(config)["velocities"][0].astype(float) ** 2).sum((1, 2))
    return np.asarray(energy / energy[0])


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_pure_function_of_seed_and_number(config: Any) -> None:
    some, more = solved(config, 2, 5), solved(evolve(config, trajectories=100), 0, 6)
    other = solved(evolve(config, seed=1), 2, 5)
    for name, values in some.items():
        np.testing.assert_array_equal(values, more[name][2:5], err_msg=name)
        assert (values != other[name]).any()
    for name in ("positions", "velocities"):
        assert np.abs(some[name][0] - some[name][1]).max() > 0.01


def test_the_number_of_threads_changes_nothing() -> None:
    config, threads = SMALL["taylor_green_sph2d"], torch.get_num_threads()
    config = evolve(config, particles=34)  # one trajectory for a thread at a time
    try:
        torch.set_num_threads(1)
        alone = solved(config, 0, 3)
        torch.set_num_threads(3)
        together = solved(config, 0, 3)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(alone["positions"], together["positions"])


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_describes_what_it_writes(config: Any, tmp_path: Path) -> None:
    path, counts = tmp_path / "made.zarr", {"train": 4, "validation": 1, "test": 1}
    fields = ("velocities", "pressure") if config.pressure else ("velocities",)
    dataset = ParticleZarrConfig(path=path, simulate=config, fields=fields, **counts)
    before = dataset.describe()
    assert not path.exists()
    make(path, config)
    assert dataset.describe() == before
    built = dataset.build(0)
    assert built.fields == before
    assert before.moves_with == "velocity"
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    record = json.loads(root["simulated_by"])
    assert record["simulator"] == type(config).__name__
    assert "device" not in record
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert stored < 1.5 * config.build().bytes


@pytest.mark.parametrize("config", list(SMALL.values())[:2], ids=list(SMALL)[:2])
def test_particles_stay_in_their_box(config: Any) -> None:
    positions = solved(config)["positions"]
    assert (positions >= 0).all()
    assert (positions < 1).all()


@pytest.mark.parametrize("config", list(SMALL.values())[:2], ids=list(SMALL)[:2])
def test_first_velocities_have_no_mean_and_the_speed_that_is_stored(config: Any) -> None:
    found = solved(evolve(config, speed=(0.5, 2.0), frames=2, duration=0.001))
    first = found["velocities"][:, 0].astype(float)
    np.testing.assert_allclose(first.mean(1), 0, atol=1e-7)
    np.testing.assert_allclose(np.sqrt((first**2).sum(-1)).max(1), found["speed"], rtol=1e-6)
    assert found["speed"].std() > 0.1


def test_energy_of_vortices_decays_as_theory_says() -> None:
    """E = exp(-16π² ν t); without the sums' transport velocity or with a wrong viscous term it would not."""
    config = TaylorGreenSPH2DConfig(particles=24, nu=0.01, frames=6, duration=0.6, **PURE)
    theory = np.exp(-16 * math.pi**2 * config.nu * np.linspace(0, config.duration, config.frames))
    np.testing.assert_allclose(energies(config), theory, rtol=0.03)


def decay(config: Any, rate: float) -> float:
    """The measured decay rate of the energy over `rate` times nu."""
    return float(-np.log(energies(config)[-1]) / (rate * config.nu * config.duration))


def test_error_of_the_decay_falls_with_the_square_of_the_resolution() -> None:
    config = TaylorGreenSPH2DConfig(nu=0.1, frames=2, duration=0.15, **PURE)
    coarse, fine = (1 - decay(evolve(config, particles=particles), 16 * math.pi**2) for particles in (12, 24))
    assert 0.02 < fine < 0.045
    assert 2.5 < coarse / fine < 5


def test_error_of_the_decay_in_three_dimensions() -> None:
    """Where the viscosity outweighs what breaks the vortices up: E = exp(-24π² ν t)."""
    config = TaylorGreenSPH3DConfig(nu=0.2, support=2.5, frames=2, duration=0.03, **PURE)
    coarse, fine = (1 - decay(evolve(config, particles=particles), 24 * math.pi**2) for particles in (8, 12))
    assert 0.05 < fine < 0.11
    assert fine < 0.75 * coarse


def test_vortices_of_three_dimensions_never_gain_energy() -> None:
    energy = energies(TaylorGreenSPH3DConfig(particles=10, nu=0.01, frames=9, duration=0.4, **PURE))
    assert (np.diff(energy) < 0).all()
    assert 0.3 < energy[-1] < 0.6


def test_constant_velocities_are_no_forecast() -> None:
    config = TaylorGreenSPH2DConfig(particles=12, trajectories=2, frames=26, duration=0.8)
    moved = np.diff(solved(config)["positions"].astype(float), axis=1)
    moved -= np.round(moved)
    places = np.cumsum(moved, 1)
    went = places[:, 20] - places[:, 0]
    missed = went - 20 * moved[:, 0]
    assert (missed**2).mean() > 0.3 * (went**2).mean()
    assert (went**2).mean() > (1 / config.particles) ** 2


def test_walls_of_the_cavity_hold() -> None:
    config = LidDrivenCavitySPH2DConfig(particles=12, trajectories=2, frames=4, duration=0.3, start=0.3, device="cpu")
    found, simulation = solved(config), config.build()
    types, positions = simulation.store.types, found["positions"]
    (low, high), _ = simulation.store.domain
    assert (types == 0).sum() == 12**2
    assert (types == 2).sum() == 12 * config.layers
    assert len(types) == config.describe().counts[0]
    assert (positions[:, :, types == 0] > 0).all()
    assert (positions[:, :, types == 0] < 1).all()
    assert (positions[:, :, types != 0] == positions[:1, :1, types != 0]).all()
    assert low < positions.min()
    assert positions.max() < high
    lids = found["velocities"][:, :, types == 2]
    assert (lids[..., 0] == found["lid_velocity"].astype(np.float32)[:, None, None]).all()
    near = types.copy() == 0
    for row, lid in enumerate(found["lid_velocity"]):
        below = positions[row, -1, near, 1] > 0.9
        assert (found["velocities"][row, -1, near][below, 0] * np.sign(lid)).mean() > 0.2
    assert (found["velocities"][:, :, types == 1] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("particles=7", "support = 3.5 spacings reach further than half the periodic box of particles = 7"),
        ("particles=7", "nearest: particles = 8, or support = 3.1 at most"),
        ("mach=0.5", "mach (--set 'mach=0.5'): expected a number of at least 0.01 and of at most 0.3, got 0.5"),
        ("cfl=2", "cfl (--set 'cfl=2'): expected a number of at least 0.01 and of at most 0.6, got 2"),
        ("nu=-1", "nu = -1.0: expected a number above 0, or two of them, the lower one first"),
        ("speed=[2, 1]", "speed = (2.0, 1.0): expected a number above 0, or two of them, the lower one first"),
        ("frames=1", "frames (--set 'frames=1'): expected a whole number of at least 2, got 1"),
        ("perturbation=-0.1", "perturbation (--set 'perturbation=-0.1'): expected a number of at least 0, got -0.1"),
    ],
)
def test_settings_that_cannot_be(
    settings: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(SystemExit) as left:
        main(["data", "make", "taylor_green_sph2d", "--out", str(path), "--set", settings])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.slow
def test_energy_of_many_particles() -> None:
    """Reynolds numbers 10 and 100, 50² particles; 20³ where the viscosity outweighs the rest."""
    square = TaylorGreenSPH2DConfig(particles=50, frames=2, duration=0.15, nu=0.1, **PURE)
    assert decay(square, 16 * math.pi**2) == pytest.approx(1, abs=0.02)
    assert decay(evolve(square, nu=0.01, duration=1.0), 16 * math.pi**2) == pytest.approx(1, abs=0.02)
    cube = TaylorGreenSPH3DConfig(particles=20, support=2.5, nu=0.2, frames=2, duration=0.03, **PURE)
    assert decay(cube, 24 * math.pi**2) == pytest.approx(1, abs=0.05)


def test_durations_and_numbers_that_no_machine_can_do() -> None:
    config = TaylorGreenSPH2DConfig(particles=10, trajectories=1, frames=2, duration=1e300, device="cpu")
    with pytest.raises(
        DataError, match=r"1e\+300 from one frame .* expected at most 1,000,000: take a shorter"
    ) as told:
        solved(config)
    assert told.value.key == "simulate.duration"
    with pytest.raises(ValueError, match="particles"):
        TaylorGreenSPH2DConfig(particles=10**9)


GHIA_Y = (0.0547, 0.0625, 0.0703, 0.1016, 0.1719, 0.2813, 0.4531, 0.5, 0.6172, 0.7344, 0.8516, 0.9531)
GHIA_U = (
    -0.03717,
    -0.04192,
    -0.04775,
    -0.06434,
    -0.1015,
    -0.15662,
    -0.2109,
    -0.20581,
    -0.13641,
    0.00332,
    0.23151,
    0.68717,
)
GHIA_X = (0.0625, 0.0703, 0.0781, 0.0938, 0.1563, 0.2266, 0.2344, 0.5, 0.8047, 0.8594, 0.9063, 0.9453, 0.9531)
GHIA_V = (
    0.09233,
    0.10091,
    0.1089,
    0.12317,
    0.16077,
    0.17507,
    0.17527,
    0.05454,
    -0.24533,
    -0.22445,
    -0.16914,
    -0.10313,
    -0.08864,
)


@pytest.mark.slow
def test_cavity_against_ghia() -> None:
    """Velocities on the centre lines at Reynolds number 100 (Ghia, Ghia and Shin 1982, tables I and II)."""
    config = LidDrivenCavitySPH2DConfig(
        trajectories=1, particles=36, frames=9, duration=0.8, start=7.0, nu=0.01, speed=1.0, device="cpu"
    )
    found, fluid = solved(config), config.build().store.types == 0
    side = float(found["lid_velocity"][0])
    places, velocity = found["positions"][0, :, fluid].reshape(-1, 2), found["velocities"][0, :, fluid].reshape(-1, 2)
    places = places if side > 0 else np.stack([1 - places[:, 0], places[:, 1]], 1)

    def read(points: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = np.linalg.norm(places[None] - points[:, None], axis=-1) * config.particles / 1.5
        weight = np.clip(1 - apart, 0, None) ** 4 * (4 * apart + 1)
        return np.asarray(weight @ (velocity * [side, 1]) / weight.sum(1, keepdims=True))

    half = np.full(len(GHIA_Y), 0.5)
    u = read(np.stack([half, GHIA_Y], 1))[:, 0]
    v = read(np.stack([GHIA_X, np.full(len(GHIA_X), 0.5)], 1))[:, 1]
    np.testing.assert_allclose(u, GHIA_U, atol=0.03)
    np.testing.assert_allclose(v, GHIA_V, atol=0.03)
