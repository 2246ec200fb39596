"""The shallow water solver: rest, volume, depth, symmetry, a dam's exact solution, and the order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from attrs import evolve
from scipy.optimize import brentq

from ups_plugins.simulators.config import ShallowWater2DConfig
from ups_plugins.simulators.shallow_water import Borders, DamBreak, advance

WALLS: tuple[Borders, Borders] = (("wall", "wall"), ("wall", "wall"))
OPEN: tuple[Borders, Borders] = (("outflow", "outflow"), ("outflow", "outflow"))
SMALL = ShallowWater2DConfig(trajectories=3, points=32, frames=5, device="cpu")


def at_rest(depth: torch.Tensor) -> torch.Tensor:
    return torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)])


def dam(cells: int, radius: float = 0.6) -> torch.Tensor:
    quadrant = DamBreak(SMALL).dam(radius, cells // 2)
    half = np.concatenate([quadrant[::-1], quadrant])
    return torch.from_numpy(np.concatenate([half[:, ::-1], half], 1))[None].contiguous()


@pytest.mark.parametrize("borders", [WALLS, OPEN])
def test_water_at_rest_stays_at_rest(borders: tuple[Borders, Borders]) -> None:
    state = at_rest(torch.full((1, 16, 16), 1.7, dtype=torch.float64))
    torch.testing.assert_close(advance(state, 2.0, 40, 5 / 16, borders), state, rtol=1e-14, atol=1e-14)


def test_walls_keep_the_volume_and_the_depth_stays_positive() -> None:
    """Until long after the waves came back; and with a dam 50 times as deep as the water around it."""
    for depth, time, steps in ((dam(64), 4.0, 400), (1 + 49 * (dam(64) - 1), 0.5, 400)):
        after = advance(at_rest(depth), time, steps, 5 / 64, WALLS)
        assert abs(float(after[0].sum() / depth.sum()) - 1) < 1e-13
        assert float(after[0].min()) > 0
        assert float((after[0] - depth).abs().max()) > 0.5


def test_one_quadrant_is_the_whole() -> None:
    """What is stored, from a quadrant between walls and mirrored, is what the whole square gives."""
    cells = SMALL.points * SMALL.refinement
    solved = evolve(SMALL, radius=0.6).build().solve(0, 1, lambda share: None)["data"][0, ..., 0]
    steps = int(np.ceil(0.25 * 2 * np.sqrt(2) / (SMALL.cfl * 5 / cells)))
    state = at_rest(dam(cells))
    for frame in range(1, 5):
        state = advance(state, 0.25, steps, 5 / cells, OPEN)
        whole = state[0].reshape(SMALL.points, 2, SMALL.points, 2).mean((1, 3))
        np.testing.assert_allclose(solved[frame], whole, atol=1e-6)


def test_the_dam_stays_round_and_keeps_its_volume() -> None:
    values = evolve(SMALL, points=64).build().solve(0, 2, lambda share: None)["data"][..., 0]
    volume = values.astype(np.float64).mean((2, 3))
    np.testing.assert_allclose(volume, volume[:, :1] * np.ones(5), rtol=1e-7)  # no wave has come to the border
    np.testing.assert_allclose(values, values.transpose(0, 1, 3, 2), atol=0.02)
    centres = -2.5 + 5 * (np.arange(64) + 0.5) / 64
    radii = np.hypot(centres[:, None], centres)
    last = values[0, -1]
    for radius in (0.4, 0.8, 1.2):
        ring = last[np.abs(radii - radius) < 0.02]
        assert len(ring) > 4
        assert np.ptp(ring) < 0.08, (radius, ring)
    assert np.abs(values[:, -1] - 1)[:, radii > 2.4].max() < 1e-5


def test_a_straight_dam_breaks_as_stoker_found() -> None:
    """Between depth 2 and 1: a rarefaction, a middle state, a shock (Stoker 1957). L1 error falls with the cells."""

    def shock_speed(middle: float) -> float:
        return float(np.sqrt(0.5 * middle * (middle + 1)))

    def mismatch(middle: float) -> float:  # Riemann invariant across the rarefaction against the jump at the shock
        return float(2 * (np.sqrt(2) - np.sqrt(middle)) - (middle - 1) * np.sqrt(0.5 * (middle + 1) / middle))

    middle = float(brentq(mismatch, 1.0001, 1.9999))
    velocity, time, errors = 2 * (np.sqrt(2) - np.sqrt(middle)), 1.0, []
    for cells in (200, 400):
        x = -2.5 + (np.arange(cells) + 0.5) * 5 / cells
        fan = (2 * np.sqrt(2) - x / time) ** 2 / 9
        exact = np.where(x < -np.sqrt(2) * time, 2.0, np.where(x < (velocity - np.sqrt(middle)) * time, fan, middle))
        exact = np.where(x > shock_speed(middle) * time, 1.0, exact)
        depth = torch.from_numpy(np.where(x < 0, 2.0, 1.0))[None, None].expand(1, 4, cells).contiguous()
        turned = depth.transpose(1, 2).contiguous()
        borders: Borders = ("outflow", "outflow")
        along = advance(at_rest(depth), time, cells, 5 / cells, (borders, borders))[0, 0, 0].numpy()
        across = advance(at_rest(turned), time, cells, 5 / cells, (borders, borders))[0, 0, :, 0].numpy()
        np.testing.assert_allclose(along, across, atol=0.02)
        errors.append(np.abs(across - exact).mean())
    assert errors[1] < 4e-3
    assert errors[0] / errors[1] > 1.6, errors


def test_second_order_where_the_water_is_smooth() -> None:
    """A low hump, before it steepens; each grid against the next finer one, averaged, and against twice the steps."""
    solutions = []
    for cells in (32, 64, 128):
        x = -2.5 + 5 * (torch.arange(4 * cells, dtype=torch.float64) + 0.5) / (4 * cells)
        hump = 1 + 0.2 * torch.exp(-(x[:, None] ** 2 + (x - 0.3) ** 2))
        depth = hump.reshape(cells, 4, cells, 4).mean((1, 3))[None]
        solutions.append(advance(at_rest(depth), 0.8, cells // 2, 5 / cells, WALLS))
    errors = [
        float((fine.reshape(3, 1, len(coarse[0, 0]), 2, -1, 2).mean((3, 5)) - coarse).abs().mean())
        for coarse, fine in pairwise(solutions)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 2e-4, errors
    assert (orders > 1.75).all(), (errors, orders)


def test_small_waves_travel_at_the_root_of_g_h() -> None:
    """u = sin(kx) cos(ckt) between walls, with c = √(g h)."""
    cells = 128
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) * 5 / cells
    wave = 1e-6 * torch.cos(2 * np.pi * x / 5)
    depth = (1.44 + wave)[None, None].expand(1, 4, cells).contiguous()
    after = advance(at_rest(depth), 1.0, 60, 5 / cells, WALLS)[0, 0, 0]
    torch.testing.assert_close(after - 1.44, wave * np.cos(1.2 * 2 * np.pi / 5), rtol=0, atol=1e-8)


def test_dams_of_other_radii_differ_in_single_precision() -> None:
    """Else two trajectories would have one initial condition."""
    radii = np.linspace(0.3, 0.7, 400)
    depths = {DamBreak(SMALL).dam(radius, 32).astype(np.float32).tobytes() for radius in radii}
    assert len(depths) == len(radii)
