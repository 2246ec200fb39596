"""The flow solver against exact flows, its orders, what it conserves, and the drag of a cylinder."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ups_plugins.mesh.flow.meshing import Mesh, Spacing, mesh_of, spacing_for
from ups_plugins.mesh.flow.obstacles import Obstacle
from ups_plugins.mesh.flow.simulation import carry
from ups_plugins.mesh.flow.spaces import Space, space_on
from ups_plugins.mesh.flow.starting import inflow
from ups_plugins.mesh.flow.stepping import Flow

pytest.importorskip("skfem")

Values = NDArray[np.float64]
ANY = (1, 10_000)


def square(pieces: int, length: float = 1.0) -> Mesh:
    spacing = Spacing((), 1 / pieces, 1 / pieces)
    return mesh_of(length, (), spacing, (1, pieces), ANY, "square")


def size(space: Space, velocity: Values) -> float:
    return math.sqrt(float((space.mass[:, None] * velocity**2).sum()))


def taylor_green(places: Values, time: float, nu: float) -> Values:
    x, y = 2 * np.pi * places.T
    waves = np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)], 1)
    return waves * np.exp(-8 * np.pi**2 * nu * time)


def kovasznay(places: Values, nu: float) -> tuple[Values, Values]:
    """Kovasznay (1948): the steady flow behind a lattice, its velocity and pressure."""
    rate = 1 / (2 * nu) - math.sqrt(1 / (4 * nu**2) + 4 * np.pi**2)
    x, y = places.T - 0.5
    grown = np.exp(rate * x)
    u, v = 1 - grown * np.cos(2 * np.pi * y), rate / (2 * np.pi) * grown * np.sin(2 * np.pi * y)
    return np.stack([u, v], 1), -0.5 * grown**2


def test_parabolic_flow_is_exact() -> None:
    """u = 4 y (1 - y), p = 8 ν (L - x) with a free outflow: quadratic and linear, so without any error in space."""
    mesh = square(5, length=1.5)
    space, nu = space_on(mesh), 0.1
    given = inflow(space.places)
    flow = Flow(space, nu, lambda time: given, 0 * given, step=math.inf)
    carry(flow, 6.0, "here")
    y = space.places[:, 1]
    assert np.abs(flow.velocity - np.stack([4 * y * (1 - y), 0 * y], 1)).max() < 1e-9
    assert np.abs(flow.pressure - 8 * nu * (1.5 - mesh.nodes[:, 0])).max() < 1e-8


def test_third_order_in_space() -> None:
    """Kovasznay's flow: L2 errors of the velocity of third order, of the pressure of second."""
    errors, pressures = [], []
    for pieces in (6, 12):
        mesh = square(pieces)
        space = space_on(mesh, closed=True)
        exact, pressure = kovasznay(space.places, 1 / 40)[0], kovasznay(mesh.nodes, 1 / 40)[1]
        flow = Flow(space, 1 / 40, lambda time, exact=exact: exact, 0.9 * exact, step=math.inf)
        carry(flow, 3.0, "here")
        errors.append(size(space, flow.velocity - exact))
        off = flow.pressure - pressure
        pressures.append(float((off - off.mean()).std()))
    assert errors[0] < 5e-3
    assert math.log2(errors[0] / errors[1]) > 2.7, errors
    assert math.log2(pressures[0] / pressures[1]) > 1.7, pressures


def test_second_order_in_time() -> None:
    """Taylor and Green's vortices with borders that change: velocity and pressure against a far shorter step."""
    space, nu = space_on(square(8), closed=True), 0.01
    velocities, pressures = [], []
    for steps in (20, 40, 80, 640):
        flow = Flow(
            space, nu, lambda t: taylor_green(space.places, t, nu), taylor_green(space.places, 0, nu), 0.3 / steps
        )
        flow.advance(steps)
        velocities.append(flow.velocity)
        pressures.append(flow.pressure - flow.pressure.mean())
    errors = [size(space, each - velocities[-1]) for each in velocities[:-1]]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (orders > 1.8).all(), (errors, orders)
    errors = [float(np.abs(each - pressures[-1]).max()) for each in pressures[:-1]]
    assert (np.log2(np.divide(errors[:-1], errors[1:])) > 1.7).all(), errors
    assert size(space, velocities[-1] - taylor_green(space.places, 0.3, nu)) < 0.08 * size(space, velocities[-1])


def test_changing_the_step_keeps_the_order() -> None:
    """A step that is halved, and one that is made longer, on the way: errors fall fourfold as all steps are halved."""
    space, nu = space_on(square(6), closed=True), 0.01

    def run(steps: int, change: float) -> Values:
        flow = Flow(
            space, nu, lambda t: taylor_green(space.places, t, nu), taylor_green(space.places, 0, nu), 0.2 / steps
        )
        flow.advance(steps // 2)
        flow.restep(flow.step * change)
        flow.advance(round(steps / 2 / change))
        assert flow.time == pytest.approx(0.2)
        return flow.velocity

    best = run(640, 1.0)
    for change in (0.5, 1.25):
        errors = [size(space, run(steps, change) - best) for steps in (20, 40, 80)]
        assert errors[0] / errors[2] > 10, (change, errors)


def test_the_transport_of_quadratic_flows() -> None:
    """(u·∇)u of a polynomial velocity free of divergence, tested with 1, x and y where these vanish on no border."""
    space = space_on(square(4), closed=True)
    x, y = space.places.T
    velocity = np.stack([x**2 + y, -2 * x * y + x], 1)
    u, v = velocity.T
    exact = np.stack([u * 2 * x + v, u * (1 - 2 * y) - v * 2 * x], 1)  # of third degree: so are tests with constants
    found = space.transport(velocity)
    wanted = space.mass[:, None] * exact  # a quadrature of third degree
    np.testing.assert_allclose(found.sum(0), wanted.sum(0), rtol=1e-10)


def test_no_energy_from_transport() -> None:
    """In a closed box the transport of a velocity that vanishes on its borders does no work, divergence or not; here of
    such functions as the quadrature is exact for, the quadratic ones without the bubbles.
    """
    mesh = square(4)
    space = space_on(mesh, closed=True)
    velocity = np.zeros_like(space.places)
    velocity[space.corners] = np.random.default_rng(3).standard_normal((len(space.corners), 2))
    velocity[space.free :] = 0
    local = space.transport.places
    velocity[local[3:6]] = (velocity[local[[0, 1, 0]]] + velocity[local[[1, 2, 2]]]) / 2  # linear along edges
    velocity[local[6]] = velocity[local[:3]].mean(0)
    work = space.transport(velocity) * velocity
    assert abs(float(work.sum())) < 1e-12 * float(np.abs(work).sum())


def test_flow_that_comes_back_brings_no_energy() -> None:
    """At an exit the work of the transport is half of the energy that leaves; nothing where the flow comes in."""
    space = space_on(square(4, length=1.5))
    x, y = space.places.T
    for sign in (1.0, -1.0):
        velocity = sign * np.stack([x * y * (1 - y), 0 * y], 1)
        velocity[space.corners[0]] = 0
        work = float((space.transport(velocity) * velocity).sum())
        leaving = 0.5 * 1.5**3 / 140  # ∫ (y (1 - y))³ dy = 1/140
        assert work == pytest.approx(leaving if sign > 0 else 0.0, abs=0.02 * leaving)


def test_divergence_borders_and_fluxes() -> None:
    """Past an obstacle: no divergence for any test function, no slip, and what flows in flows out."""
    obstacles = (Obstacle((0.5, 0.45), (0.13, 0.1), 0.4),)
    mesh = mesh_of(1.5, obstacles, spacing_for(350, 1.6, 1.5, obstacles), (5,), ANY, "here")
    space = space_on(mesh)
    given = inflow(space.places)
    flow = Flow(space, 2e-3, lambda time: given, 0 * given, step=math.inf)
    carry(flow, 0.5, "here")
    assert np.abs(space.flux(flow.velocity)).max() < 1e-14
    np.testing.assert_array_equal(flow.velocity[space.free :], given[space.free :])
    # the sum of the exit's weights times u is the flux through it; 2/3 flows in
    out = float((space.transport.exit * flow.velocity).sum())
    assert out == pytest.approx(2 / 3, abs=1e-3)  # corners' elements take part in the divergence, too
    assert np.isfinite(flow.pressure).all()


def test_drag_of_a_cylinder() -> None:
    """The steady benchmark 2D-1 of Schäfer and Turek (1996) at Re = 20, in units of its channel's height 0.41:
    c_D = 5.5795, and a pressure difference of 0.1175.
    """
    drag, difference = benchmark(600, 3.0)
    assert drag == pytest.approx(5.5795, rel=0.012)
    assert difference == pytest.approx(0.11752, rel=0.01)


@pytest.mark.slow
def test_the_drag_converges() -> None:
    drags = [benchmark(points, refinement)[0] for points, refinement in ((600, 3.0), (1200, 4.0), (2400, 5.0))]
    errors = np.abs(np.array(drags) - 5.57954)
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors
    assert errors[2] < 0.001 * 5.58, errors


def benchmark(points: int, refinement: float) -> tuple[float, float]:
    """Drag coefficient, and the pressure before less that behind the cylinder in the benchmark's units."""
    length, radius, speed = 2.2 / 0.41, 0.05 / 0.41, 2 / 3
    cylinder = Obstacle((0.2 / 0.41, 0.2 / 0.41), (radius, radius))
    mesh = mesh_of(length, (cylinder,), spacing_for(points, refinement, length, (cylinder,)), (1,), ANY, "benchmark")
    space, nu = space_on(mesh), speed * 2 * radius / 20
    given = inflow(space.places)
    flow = Flow(space, nu, lambda time: given, 0 * given, step=math.inf)
    carry(flow, 5.0, "benchmark")
    given_places = np.arange(space.free, len(space.mass))
    on = given_places[cylinder.distance(space.places[given_places]) < 0.1 * radius]
    force = space.force(flow.velocity, flow.pressure, nu, on)

    def at(x: float) -> float:
        return float(flow.pressure[np.argmin(np.hypot(*(mesh.nodes - [x / 0.41, 0.2 / 0.41]).T))])

    return float(force[0]) * 2 / (speed**2 * 2 * radius), (at(0.15) - at(0.25)) / speed**2 * 0.04
