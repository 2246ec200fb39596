"""The Darcy solver: exact solutions, order two, and the balance of flow."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray

from ups_plugins.simulators.config import Darcy2DConfig
from ups_plugins.simulators.darcy import darcy_matrix, outflow, unit_pressure


def centres(points: int) -> NDArray[np.float64]:
    return (np.arange(points) + 0.5) / points


def series(points: int, terms: int = 199) -> NDArray[np.float64]:
    """-∇²u = 1 on the unit square, u = 0 on its boundary: u = x (1 - x) / 2 minus a sum over odd n that corrects the
    edges at y = 0 and y = 1."""
    x, y = np.meshgrid(centres(points), centres(points), indexing="ij")
    u = x * (1 - x) / 2
    for n in range(1, terms + 1, 2):
        a = n * np.pi
        u -= 4 / a**3 * np.sin(a * x) * np.cosh(a * (y - 0.5)) / np.cosh(a / 2)
    return np.asarray(u)


def orders(errors: list[float]) -> NDArray[np.float64]:
    return np.log2(np.array(errors[:-1]) / errors[1:])


@pytest.mark.parametrize("permeability", [1.0, 0.1])
def test_second_order_against_the_series(permeability: float) -> None:
    errors = []
    for points in (16, 32, 64):
        exact = series(points) / permeability
        found = unit_pressure(np.full((points, points), permeability))
        errors.append(float(np.abs(found - exact).max() / exact.max()))
    assert errors[-1] < 5e-4
    assert (np.abs(orders(errors) - 2) < 0.2).all(), errors


def test_second_order_where_the_medium_varies() -> None:
    """u = sin πx sin πy with a = 1 + x/2 + y² gives a source of its own, which the matrix must reproduce."""
    errors = []
    for points in (16, 32, 64):
        x, y = np.meshgrid(centres(points), centres(points), indexing="ij")
        a, pi = 1 + x / 2 + y**2, np.pi
        u = np.sin(pi * x) * np.sin(pi * y)
        slopes = 0.5 * pi * np.cos(pi * x) * np.sin(pi * y) + 2 * y * pi * np.sin(pi * x) * np.cos(pi * y)
        source = (2 * pi**2 * a * u - slopes) / points**2
        found = scipy.sparse.linalg.spsolve(darcy_matrix(a), source.reshape(-1)).reshape(points, points)
        errors.append(float(np.abs(found - u).max()))
    assert errors[-1] < 1e-3
    assert (np.abs(orders(errors) - 2) < 0.2).all(), errors


def test_two_materials_in_series() -> None:
    """Through a face between 1 and 0.1 flows what two half cells in series let through: 2 · 1 · 0.1 / 1.1."""
    medium = np.ones((40, 3))
    medium[20:] = 0.1
    matrix = darcy_matrix(medium).toarray().reshape(40, 3, 40, 3)
    assert -matrix[19, 1, 20, 1] == pytest.approx(40 / 3 * 2 * 0.1 / 1.1)
    assert matrix[20].sum() == pytest.approx(2 * 2 * 3 / 40 * 0.1)  # what is left flows out at two ends of the row


def test_what_flows_in_flows_out() -> None:
    config = Darcy2DConfig(trajectories=6, points=48, beta=(0.1, 10.0), device="cpu")
    solved = config.build().solve(0, 6, lambda share: None)
    for pressure, medium, beta in zip(solved["tensor"][:, 0], solved["nu"], solved["beta"], strict=True):
        out = outflow(torch.from_numpy(pressure).double(), torch.from_numpy(medium).double())
        assert float(out) == pytest.approx(beta, rel=1e-5)
        assert pressure.min() > 0
        matrix = darcy_matrix(medium.astype(np.float64))
        assert abs(matrix - matrix.T).max() < 1e-12


def test_the_pressure_is_proportional_to_the_source() -> None:
    one, ten = (Darcy2DConfig(points=16, beta=beta, device="cpu").build() for beta in (1.0, 10.0))
    small, large = (simulator.solve(0, 3, lambda share: None)["tensor"] for simulator in (one, ten))
    np.testing.assert_allclose(large, 10 * small, rtol=1e-6)


def test_both_materials_are_common() -> None:
    solved = Darcy2DConfig(points=32, device="cpu").build().solve(0, 60, lambda share: None)
    share = (solved["nu"] == 1).mean((1, 2))
    assert 0.1 < share.min() < share.max() < 0.9
    assert abs(share.mean() - 0.5) < 0.1
