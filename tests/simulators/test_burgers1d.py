"""The file that burgers1d writes, and PDEBench's initial conditions."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from attrs import evolve

from ups_kit import DataError
from ups_plugins.simulators.config import Burgers1DConfig
from ups_plugins.simulators.initial import Waves

SMALL = Burgers1DConfig(trajectories=6, points=16, frames=5, duration=0.4, refinement=2, device="cpu")


def solved(config: Burgers1DConfig, start: int, stop: int) -> np.ndarray:
    return config.build().solve(start, stop, lambda share: None)["tensor"]


def test_layout_of_the_file(tmp_path: Path) -> None:
    shares: list[float] = []
    built = SMALL.build()
    built.write(tmp_path / "b.h5", [built.solve(0, 4, shares.append), built.solve(4, 6, lambda share: None)])
    with h5py.File(tmp_path / "b.h5") as file:
        tensor = file["tensor"]
        assert tensor.shape == (6, 5, 16)
        assert tensor.dtype == np.float32
        assert tensor.chunks is None
        assert tensor.id.get_offset() is not None
        np.testing.assert_allclose(file["x-coordinate"], (np.arange(16) + 0.5) / 16)
        np.testing.assert_allclose(file["t-coordinate"], 0.1 * np.arange(6))
        assert file["epsilon"].dtype == np.float64
        assert file["epsilon"].shape == (6,)
        assert {"equation", "seed", "solver", "units"} <= set(file.attrs)
        assert np.isfinite(tensor[()]).all()
        assert np.abs(np.diff(tensor[()].mean(2), axis=1)).max() < 1e-6
    assert shares[-1] == 1
    assert shares == sorted(shares)


def test_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        solved(SMALL, 0, 2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"simulate\.device = 'cuda', and there is no CUDA device here"):
        solved(evolve(SMALL, device="cuda"), 0, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_numbers() -> None:
    found = solved(evolve(SMALL, device="cuda"), 0, 6)
    np.testing.assert_allclose(found, solved(SMALL, 0, 6), rtol=1e-6, atol=1e-6)


def test_describes_what_it_writes() -> None:
    fields = SMALL.describe()
    assert (fields.grid, fields.dt, fields.conditions) == ((16,), pytest.approx(0.1), ("dt", "epsilon"))


def test_pure_function_of_seed_and_number() -> None:
    some = solved(SMALL, 2, 5)
    np.testing.assert_array_equal(some, solved(evolve(SMALL, trajectories=100), 0, 6)[2:5])
    assert np.abs(some - solved(evolve(SMALL, seed=1), 2, 5)).max() > 0.1


def test_viscosity_fixed_or_log_uniform() -> None:
    fixed, waves = evolve(SMALL, epsilon=0.01).build().draws(0, 3)
    np.testing.assert_array_equal(fixed, 0.01)
    drawn, same_waves = evolve(SMALL, epsilon=(0.001, 0.1)).build().draws(0, 400)
    assert drawn.min() > 0.001
    assert drawn.max() < 0.1
    logs = np.log10(drawn)
    assert abs(logs.mean() + 2) < 0.1
    assert abs(logs.std() - 2 / np.sqrt(12)) < 0.05
    positions = np.linspace(0, 1, 9)
    for one, other in zip(waves, same_waves, strict=False):
        np.testing.assert_array_equal(one.at(positions), other.at(positions))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, (0.1, 0.01), float("nan"), float("inf")])
def test_impossible_viscosity_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        Burgers1DConfig(epsilon=epsilon)


def waves(count: int = 3000) -> list[Waves]:
    return [Waves.drawn(np.random.default_rng([5, number])) for number in range(count)]


def test_two_draws_of_wave_numbers_with_replacement() -> None:
    kinds = [tuple(int(k) for k in wave.wave_numbers) for wave in waves()]
    doubled = [kind for kind in kinds if sum(k > 0 for k in kind) == 1]
    assert all(sum(k > 0 for k in kind) in (1, 2) for kind in kinds)
    assert set(doubled) == {(2, 0, 0, 0), (0, 4, 0, 0), (0, 0, 6, 0), (0, 0, 0, 8)}
    assert abs(len(doubled) / len(kinds) - 1 / 4) < 0.03  # the second draw hits the first with probability 1/4
    assert len(set(kinds)) == 10


def test_shares_and_ranges_of_the_draws() -> None:
    drawn = waves()
    assert abs(np.mean([wave.absolute for wave in drawn]) - 0.1) < 0.02
    assert abs(np.mean([wave.window is not None for wave in drawn]) - 0.1) < 0.02
    assert abs(np.mean([wave.sign for wave in drawn])) < 0.06
    edges = np.array([wave.window for wave in drawn if wave.window is not None])
    assert 0.1 <= edges[:, 0].min() <= edges[:, 0].max() <= 0.45
    assert 0.55 <= edges[:, 1].min() <= edges[:, 1].max() <= 0.9
    amplitudes = np.concatenate([wave.amplitudes for wave in drawn])
    assert 0 <= amplitudes.min() < amplitudes.max() < 1
    assert abs(amplitudes.mean() - 0.5) < 0.02


def test_undrawn_modes_are_constants() -> None:
    wave = Waves(np.array([0.0, 2, 0, 4]), np.array([0.5, 0, 0.3, 0]), np.array([1.0, 0, 2, 0]), False, -1.0, None)
    np.testing.assert_allclose(wave.at(np.linspace(0, 1, 7)), -(0.5 * np.sin(1.0) + 0.3 * np.sin(2.0)))


def test_cell_averages() -> None:
    wave = Waves(np.array([1.0]), np.array([1.0]), np.array([0.3]), False, 1.0, None)
    edges = np.arange(33) / 32
    exact = -np.diff(np.cos(2 * np.pi * edges + 0.3)) * 32 / (2 * np.pi)
    np.testing.assert_allclose(wave.averages(32, samples=16), exact, atol=1e-5)
