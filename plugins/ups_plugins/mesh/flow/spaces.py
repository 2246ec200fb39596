"""Finite elements for incompressible flow on triangles, assembled with scikit-fem.

Velocity: quadratic with a bubble in each triangle, by its values at corners, middles of edges and centres; a quadrature
at these makes the mass matrix diagonal and keeps the third order (Cohen, Joly, Roberts and Tordjman, SIAM J. Numer.
Anal. 38:2047, 2001). Pressure: linear and continuous. The pair is stable, as Taylor and Hood's, which it contains.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError

from .config import NEEDED
from .meshing import OUTFLOW, Mesh
from .obstacles import Places

Values = NDArray[np.float64]
CORNER, MIDDLE, CENTRE = 1 / 20, 2 / 15, 9 / 20  # weights of the quadrature at the places, over the triangle's area
ORDER = 5  # of the quadrature of the transport; the other forms are exact with it


@frozen(eq=False)
class Transport:
    """(u·∇u + ½ u ∇·u, v) for all v, less ½ ∫ min(u·n, 0) u·v over the border that the flow leaves through.

    With these two halves the transport makes no energy, also where the mesh is too coarse and where flow comes back in
    (Bruneau and Fabrie 1994).
    """

    places: NDArray[np.int64]  # (7, M) velocity's places of each triangle
    values: Values  # (points, 7) of the basis functions
    functions: Values  # (3 · points, 7) these, and their derivatives by the two reference coordinates
    inverse: Values  # (2, 2, M) derivatives of the reference coordinates by the space's
    areas: Values  # (M,) of the triangles
    tests: Values  # (7, points) the basis functions times the quadrature's weights
    exit: Values  # (V, 2) weights of the border that the flow leaves through, times its normal

    def __call__(self, velocity: Values) -> Values:
        """(V, 2) for the velocity (V, 2)."""
        (u, u_r, u_s), (v, v_r, v_s) = self._at_points(velocity)
        r, s = self._crossing(u, v)
        (r_x, r_y), (s_x, s_y) = self.inverse
        half = 0.5 * (u_r * r_x + u_s * s_x + v_r * r_y + v_s * s_y)
        found: Values = np.minimum((velocity * self.exit).sum(1), 0.0)[:, None] * (-0.5 * velocity)
        for axis, (own, own_r, own_s) in enumerate(((u, u_r, u_s), (v, v_r, v_s))):
            own_r *= r
            own_s *= s
            own *= half
            own_r += own_s
            own_r += own
            tested = (self.tests @ own_r) * self.areas
            found[:, axis] += np.bincount(self.places.ravel(), tested.ravel(), minlength=len(velocity))
        return found

    def _crossing(self, u: Values, v: Values) -> tuple[Values, Values]:
        """A velocity in reference coordinates."""
        (r_x, r_y), (s_x, s_y) = self.inverse
        along: Values = u * r_x + v * r_y
        across: Values = u * s_x + v * s_y
        return along, across

    def _at_points(self, velocity: Values) -> Values:
        """Each component's value and two reference derivatives at the quadrature's points, (2, 3, points, M)."""
        local = np.take(np.ascontiguousarray(velocity.T), self.places, axis=1)  # (2, 7, M)
        found: Values = (self.functions @ local).reshape(2, 3, len(self.values), -1)
        return found

    def fastest(self, velocity: Values) -> float:
        """How many triangles the flow crosses in a unit of time, at most: its speed in reference coordinates."""
        u, v = self.values @ np.take(np.ascontiguousarray(velocity.T), self.places, axis=1)
        r, s = self._crossing(u, v)
        return float(np.max([np.abs(r).max(), np.abs(s).max(), np.abs(r + s).max()]))


@frozen(eq=False)
class Space:
    """Velocities and pressures on a mesh: V places of velocities, N nodes of pressures.

    Of the matrices, `mass` is diagonal, `stiffness` is (V, V), `divergence` (N, V) twice: ∫ q ∂u/∂x and ∫ q ∂v/∂y.
    """

    places: Places  # (V, 2)
    corners: NDArray[np.int64]  # (N,) which places are the mesh's nodes
    free: int  # the velocity is given at all places but the first so many
    mass: Values  # (V,)
    stiffness: Any
    divergence: tuple[Any, Any]
    transport: Transport
    closed: bool  # whether the velocity is given on the whole border: the pressure is known up to a constant

    def flux(self, velocity: Values) -> Values:
        """∫ q ∇·u for each pressure function q, (N,)."""
        along, across = self.divergence
        flux: Values = along @ velocity[:, 0] + across @ velocity[:, 1]
        return flux

    def push(self, pressure: Values) -> Values:
        """∫ p ∇·v for each velocity function v, (V, 2)."""
        along, across = self.divergence
        return np.stack([along.T @ pressure, across.T @ pressure], 1)

    def energy(self, velocity: Values) -> float:
        """∫ ½ u²."""
        return 0.5 * float((self.mass[:, None] * velocity**2).sum())

    def force(self, velocity: Values, pressure: Values, viscosity: float, on: NDArray[np.int64]) -> Values:
        """The force of a steady flow on the border that these places lie on, over the density, (2,)."""
        rest = self.transport(velocity) + viscosity * (self.stiffness @ velocity) - self.push(pressure)
        force: Values = -rest[on].sum(0)
        return force


def scikit_fem() -> Any:
    """The package `skfem`. DataError where it is not installed."""
    try:
        import skfem  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError(NEEDED, key="simulate") from error
    return skfem


def space_on(mesh: Mesh, closed: bool = False) -> Space:
    """The space on a mesh. The velocity is given on the border but at nodes OUTFLOW; with `closed`, there too."""
    skfem = scikit_fem()
    grid = skfem.MeshTri(np.ascontiguousarray(mesh.nodes.T), np.ascontiguousarray(mesh.cells.T))
    basis = skfem.Basis(grid, _element(), intorder=ORDER)
    linear = basis.with_element(skfem.ElementTriP1())
    stiffness = skfem.BilinearForm(lambda u, v, w: u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]).assemble(basis)
    divergence = tuple(
        skfem.BilinearForm(lambda u, q, w, a=axis: u.grad[a] * q).assemble(basis, linear).tocsr() for axis in (0, 1)
    )
    rim = grid.boundary_facets()
    leaves = (mesh.kinds[grid.facets[:, rim]] == OUTFLOW).any(0) & (not closed)
    fixed = basis.get_dofs(rim[~leaves]).all()
    free = np.setdiff1d(np.arange(basis.N), fixed)
    order = np.concatenate([free, fixed])
    number = np.empty_like(order)
    number[order] = np.arange(basis.N)
    local = number[basis.element_dofs]
    sides = grid.p[:, grid.t[1:]] - grid.p[:, grid.t[:1]]  # (space, reference, M)
    doubled = sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0]
    weights = np.repeat([CORNER, MIDDLE, CENTRE], [3, 3, 1])[:, None] * (np.abs(doubled) / 2)
    return Space(
        places=np.ascontiguousarray(basis.doflocs.T[order]),
        corners=number[basis.nodal_dofs[0]],
        free=len(free),
        mass=np.bincount(local.ravel(), weights.ravel(), minlength=basis.N).astype(np.float64),
        stiffness=stiffness.tocsr()[order][:, order],
        divergence=(divergence[0][:, order], divergence[1][:, order]),
        transport=_transport(basis, grid, (sides, doubled), rim[leaves], order),
        closed=closed,
    )


def _transport(
    basis: Any, grid: Any, triangles: tuple[Values, Values], exits: NDArray[np.int64], order: NDArray[np.int64]
) -> Transport:
    """Of triangles' sides (2, 2, M) [space, reference] and twice their signed areas (M,), the facets that the flow
    leaves by, and scikit-fem's numbers of all places in the order that they have here.
    """
    scaled, areas = triangles[0] / triangles[1], np.abs(triangles[1]) / 2
    functions = [basis.elem.lbasis(basis.X, number) for number in range(7)]
    values = np.stack([value for value, _ in functions], 1)
    slopes = [np.stack([slope[axis] for _, slope in functions], 1) for axis in (0, 1)]
    inverse = np.array([[scaled[1, 1], -scaled[0, 1]], [-scaled[1, 0], scaled[0, 0]]])
    ends = grid.p[:, grid.facets[:, exits]]
    along = ends[:, 1] - ends[:, 0]  # (space, facets)
    normal = np.stack([along[1], -along[0]]) * np.where(along[1] < 0, -1.0, 1.0)  # along the channel
    ways_out = np.zeros((basis.N, 2))
    ends_of = [(basis.nodal_dofs[0][end], 1 / 6) for end in grid.facets[:, exits]]
    for places, share in (*ends_of, (basis.facet_dofs[0][exits], 2 / 3)):  # Simpson's rule
        np.add.at(ways_out, places, share * normal.T)
    return Transport(
        places=np.argsort(order)[basis.element_dofs],
        values=values,
        functions=np.concatenate([values, *slopes]),
        inverse=inverse,
        areas=areas,
        tests=values.T * (basis.W / basis.W.sum()),
        exit=ways_out[order],
    )


@cache
def _element() -> Any:
    """Quadratic functions and a bubble, each 1 at one place and 0 at the other six."""
    skfem = scikit_fem()
    quadratic = skfem.ElementTriP2()

    class Nodal(skfem.ElementTriP2B):  # type: ignore[misc, name-defined]
        doflocs = np.concatenate([quadratic.doflocs, [[1 / 3, 1 / 3]]])

        def lbasis(self, X: Any, i: int) -> tuple[Any, Any]:
            bubble, slope = super().lbasis(X, 6)
            if i == 6:
                return bubble, slope
            value, own = quadratic.lbasis(X, i)
            centre = -1 / 9 if i < 3 else 4 / 9
            return value - centre * bubble, own - centre * slope

    return Nodal()
