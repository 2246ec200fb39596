"""Triangular meshes of a channel with obstacles: finer near them, their border points on the obstacles.

Points on all borders are laid out by the wanted spacing and stay. Points inside are a hexagonal lattice, thinned out at
random to that spacing, whose edges then push like springs that are too short (Persson and Strang, SIAM Review 46:329,
2004), Delaunay's triangulation being made anew as they move; at last each point moves to the middle of its neighbours.
A mesh with thin triangles, or one that is not the channel, is given up, and the next draw of the lattice is tried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial import Delaunay, QhullError

from ups_kit import DataError

from .config import FEWEST_AROUND
from .obstacles import Obstacle, Places, distance_to

INTERIOR, INFLOW, WALL, OBSTACLE, OUTFLOW = range(5)  # kinds of nodes; a corner is a wall's
KINDS = ("interior", "inflow", "wall", "obstacle", "outflow")
ATTEMPTS = 12
PUSHES, SMOOTHINGS = 60, 6
STRETCH = 1.2  # how much longer than the wanted spacing the springs want to be
STEP = 0.2
MOVED = 0.1  # of the spacing, after which there is a new triangulation
CLEAR = 0.6  # of the spacing: no inner point starts, or ends up, nearer to a border
SHARPEST = 20.0  # the least angle of a triangle, in degrees
SLOPE = 0.25  # how fast the spacing grows with the distance to an obstacle
FINE = 400  # pieces of a border that its length is measured by
COARSE = 100  # cells along the channel that the number of nodes is foreseen by


@frozen(eq=False)
class Mesh:
    """Triangles: `nodes` (N, 2), `cells` (M, 3) counterclockwise, `kinds` (N,)."""

    nodes: Places
    cells: NDArray[np.int64]
    kinds: NDArray[np.int64]

    @property
    def angles(self) -> NDArray[np.float64]:
        """The least angle of each triangle in degrees, (M,)."""
        return least_angles(self.nodes, self.cells)


@frozen
class Spacing:
    """The wanted length of edges: `near` at an obstacle, growing with the distance to it up to `far`."""

    obstacles: tuple[Obstacle, ...]
    near: float
    far: float

    def __call__(self, places: Places) -> NDArray[np.float64]:
        if not self.obstacles:
            return np.full(places.shape[:-1], self.far)
        away = np.maximum(distance_to(self.obstacles, places), 0.0)
        return np.minimum(self.near + SLOPE * away, self.far)


def spacing_for(points: int, refinement: float, length: float, obstacles: tuple[Obstacle, ...]) -> Spacing:
    """The spacing that makes about so many nodes; `refinement` is far over near."""
    across = max(round(COARSE / length), 1)
    x, y = length * (np.arange(COARSE) + 0.5) / COARSE, (np.arange(across) + 0.5) / across
    places = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    free = distance_to(obstacles, places) > 0 if obstacles else np.ones(places.shape[:-1], bool)
    places = places[free]
    area = length / (COARSE * across)

    def surplus(logarithm: float) -> float:
        far = float(np.exp(logarithm))
        spacing = Spacing(obstacles, far / refinement, far)
        inner = 2 / np.sqrt(3) * area * float((1 / spacing(places) ** 2).sum())
        border = (length + 1) / far + sum(np.pi * one.size for one in obstacles) * refinement / far
        return float(inner + border - points)  # half a cell of each border node lies outside

    far = float(np.exp(brentq(surplus, np.log(1e-4), np.log(10.0), xtol=1e-6)))
    return Spacing(obstacles, far / refinement, far)


@frozen(eq=False)
class Border:
    """The nodes that stay: `nodes` (N, 2), their `kinds` (N,), and the edges between them that a mesh must have."""

    nodes: Places
    kinds: NDArray[np.int64]
    edges: NDArray[np.int64]


def border_of(length: float, obstacles: tuple[Obstacle, ...], spacing: Spacing, name: str) -> Border:
    """Nodes on the channel's four sides and on the obstacles. DataError where an obstacle gets too few."""
    corners = np.array([[0.0, 0.0], [length, 0.0], [length, 1.0], [0.0, 1.0]])
    loops, kinds = [], []
    sides = []
    for start, stop, kind in zip(corners, np.roll(corners, -1, 0), (WALL, OUTFLOW, WALL, INFLOW), strict=True):
        side = _divided(_straight(start, stop), spacing, closed=False)
        sides.append(side)
        kinds.append(np.where(np.arange(len(side)) == 0, WALL, kind))
    loops.append(np.concatenate(sides))
    for obstacle in obstacles:
        loop = _divided(_around(obstacle), spacing, closed=True)
        if len(loop) < FEWEST_AROUND:
            raise DataError(
                f"{name}: an obstacle of radius {obstacle.size:.3g} would get {len(loop)} nodes on its border, and "
                f"{FEWEST_AROUND} are needed; take more points, a larger refinement, or a larger radius",
                key="simulate.points",
            )
        loops.append(loop)
        kinds.append(np.full(len(loop), OBSTACLE))
    edges, first = [], 0
    for loop in loops:
        own = first + np.arange(len(loop))
        edges.append(np.stack([own, np.roll(own, -1)], 1))
        first += len(loop)
    return Border(np.concatenate(loops), np.concatenate(kinds).astype(np.int64), np.concatenate(edges))


Curve = Callable[[NDArray[np.float64]], Places]


def _straight(start: Places, stop: Places) -> Curve:
    return lambda share: start + (stop - start) * share[:, None]


def _around(obstacle: Obstacle) -> Curve:
    return lambda share: obstacle.border(2 * np.pi * share)


def _divided(curve: Curve, spacing: Spacing, closed: bool) -> Places:
    """Points on a curve over [0, 1] at the wanted spacing, the first included and the last not."""
    share = np.linspace(0, 1, FINE + 1)
    lengths = np.linalg.norm(np.diff(curve(share), axis=0), axis=1)
    counted = np.concatenate([[0.0], np.cumsum(lengths / spacing(curve((share[1:] + share[:-1]) / 2)))])
    pieces = max(round(counted[-1]), 3 if closed else 1)
    found: Places = curve(np.interp(np.arange(pieces) * (counted[-1] / pieces), counted, share))
    return found


def mesh_of(
    length: float,
    obstacles: tuple[Obstacle, ...],
    spacing: Spacing,
    seed: tuple[int, ...],
    counts: tuple[int, int],
    name: str,
) -> Mesh:
    """A mesh of the channel [0, length] × [0, 1] around the obstacles; a pure function of its arguments.

    `counts` are the fewest and the most nodes that it may have.

    Raises DataError, with `name` in front, where no draw gives a mesh without thin triangles.
    """
    border = border_of(length, obstacles, spacing, name)
    reason = ""
    for attempt in range(ATTEMPTS):
        generator = np.random.default_rng([*seed, attempt])
        try:
            inner = _lattice(length, obstacles, spacing, generator)
            nodes = _relaxed(inner, border, length, obstacles, spacing)
            cells = _flipped(_triangles(nodes, obstacles, len(border.nodes)), border)
        except QhullError as error:
            reason = str(error).splitlines()[0]
            continue
        kinds = np.concatenate([border.kinds, np.zeros(len(nodes) - len(border.nodes), np.int64)])
        reason = fault_of(nodes, cells, border, len(obstacles))
        if not reason and not counts[0] <= len(nodes) <= counts[1]:
            reason = f"{len(nodes)} nodes, which is not between {counts[0]} and {counts[1]}"
        if not reason:
            return Mesh(nodes, cells, kinds)
    raise DataError(
        f"{name}: no mesh without fault in {ATTEMPTS} tries, the last: {reason}; take more points, a larger gap, or "
        "less refinement",
        key="simulate.points",
    )


def _lattice(
    length: float, obstacles: tuple[Obstacle, ...], spacing: Spacing, generator: np.random.Generator
) -> Places:
    """Inner points at about the wanted spacing."""
    least = spacing.near if obstacles else spacing.far
    shift = generator.random(2) * least
    rows = int(1 / (least * np.sqrt(0.75))) + 2
    x, row = np.meshgrid(np.arange(-1, int(length / least) + 2), np.arange(rows), indexing="ij")
    places = np.stack([(x + 0.5 * (row % 2)) * least + shift[0], row * least * np.sqrt(0.75) + shift[1]], -1)
    places = places.reshape(-1, 2)
    kept = generator.random(len(places)) < (least / spacing(places)) ** 2
    places = places[kept]
    return places[_clearance(places, length, obstacles) > CLEAR * spacing(places)]


def _clearance(places: Places, length: float, obstacles: tuple[Obstacle, ...]) -> NDArray[np.float64]:
    """Distance to the nearest border, negative outside the fluid."""
    x, y = places[:, 0], places[:, 1]
    walls = np.minimum(np.minimum(x, length - x), np.minimum(y, 1 - y))
    return np.minimum(walls, distance_to(obstacles, places)) if obstacles else walls


def _relaxed(inner: Places, border: Border, length: float, obstacles: tuple[Obstacle, ...], spacing: Spacing) -> Places:
    """All nodes, the inner ones moved until their edges have about the wanted length."""
    fixed = len(border.nodes)
    nodes = np.concatenate([border.nodes, inner])
    wanted, last = spacing(nodes), np.full_like(nodes, np.inf)
    for turn in range(PUSHES + SMOOTHINGS):
        if turn >= PUSHES or (np.linalg.norm(nodes - last, axis=1) > MOVED * wanted).any():
            edges = _edges(_triangles(nodes, obstacles, fixed))
            last = nodes.copy()
        moved = _pushes(nodes, edges, spacing) if turn < PUSHES else _middles(nodes, edges) - nodes
        moved[:fixed] = 0
        tried = nodes + moved
        clear = _clearance(tried[fixed:], length, obstacles) > 0.5 * CLEAR * wanted[fixed:]
        nodes[fixed:][clear] = tried[fixed:][clear]
        wanted = spacing(nodes)
    return nodes


def _pushes(nodes: Places, edges: NDArray[np.int64], spacing: Spacing) -> Places:
    """How far each node is pushed by edges that are shorter than they want to be."""
    along = nodes[edges[:, 0]] - nodes[edges[:, 1]]
    lengths = np.linalg.norm(along, axis=1)
    wanted = spacing((nodes[edges[:, 0]] + nodes[edges[:, 1]]) / 2)
    wanted *= STRETCH * np.sqrt((lengths**2).sum() / (wanted**2).sum())
    force = (np.maximum(wanted - lengths, 0) / np.maximum(lengths, 1e-300))[:, None] * along
    return STEP * (_summed(edges[:, 0], force, len(nodes)) - _summed(edges[:, 1], force, len(nodes)))


def _middles(nodes: Places, edges: NDArray[np.int64]) -> Places:
    """The mean of each node's neighbours."""
    both, others = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    count = np.maximum(np.bincount(both, minlength=len(nodes)), 1)
    return _summed(both, nodes[others], len(nodes)) / count[:, None]


def _summed(places: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.stack([np.bincount(places, values[:, axis], minlength=count) for axis in (0, 1)], 1)


def _triangles(nodes: Places, obstacles: tuple[Obstacle, ...], fixed: int) -> NDArray[np.int64]:
    """Delaunay's triangles outside the obstacles, counterclockwise."""
    cells: NDArray[np.int64] = Delaunay(nodes).simplices.astype(np.int64)
    if obstacles:
        outside = distance_to(obstacles, nodes[cells].mean(1)) > 0
        cells = cells[outside | ~(cells < fixed).all(1)]
    turned = _doubled_areas(nodes, cells) < 0
    cells[turned] = cells[turned][:, ::-1]
    return cells


def _doubled_areas(nodes: Places, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    first, second = nodes[cells[:, 1]] - nodes[cells[:, 0]], nodes[cells[:, 2]] - nodes[cells[:, 0]]
    areas: NDArray[np.float64] = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return areas


def _edges(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each edge once, its lower node first, (E, 2)."""
    return _counted(cells)[0]


def _counted(cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each edge once, and how many triangles have it."""
    pairs = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), 1)
    base = int(cells.max()) + 1
    keys, counts = np.unique(pairs[:, 0] * base + pairs[:, 1], return_counts=True)
    return np.stack([keys // base, keys % base], 1), counts


def _flipped(cells: NDArray[np.int64], border: Border) -> NDArray[np.int64]:
    """A triangle in a corner with two edges on the border shares its third with its neighbour the other way round.

    Else nothing in it could move, and the pressure at the corner would stand in one equation only.
    """
    fixed = len(border.nodes)
    for number in np.nonzero((cells < fixed).all(1))[0]:
        triangle = cells[number]
        for turn in range(3):
            corner, first, second = np.roll(triangle, -turn)
            across = np.nonzero((cells == first).any(1) & (cells == second).any(1))[0]
            across = across[across != number]
            neighbours = {(corner, first), (second, corner)} <= _pairs(border)
            if neighbours and len(across) == 1:
                other = int(next(node for node in cells[across[0]] if node not in (first, second)))
                cells[number], cells[across[0]] = (corner, first, other), (corner, other, second)
    return cells


def _pairs(border: Border) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in border.edges}


def least_angles(nodes: Places, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """The least angle of each triangle in degrees, (M,)."""
    places = nodes[cells]
    least = np.full(len(cells), np.inf)
    for turn in range(3):
        one, two = (places[:, (turn + step) % 3] - places[:, turn] for step in (1, 2))
        cosine = (one * two).sum(1) / np.maximum(np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1), 1e-300)
        least = np.minimum(least, np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return least


def fault_of(nodes: Places, cells: NDArray[np.int64], border: Border, holes: int) -> str:
    """What is wrong with a mesh, in words; empty where nothing is."""
    edges, counts = _counted(cells)
    rim = {(int(a), int(b)) for a, b in edges[counts == 1]}
    wanted = {(min(a, b), max(a, b)) for a, b in _pairs(border)}
    if rim != wanted or (counts > 2).any():
        return f"{len(rim ^ wanted)} edges of the border are missing or too many"
    if len(np.unique(cells)) != len(nodes):
        return f"{len(nodes) - len(np.unique(cells))} nodes belong to no triangle"
    if len(nodes) - len(edges) + len(cells) != 1 - holes:
        return "it is not in one piece"
    if (cells < len(border.nodes)).all(1).any():
        return "a triangle has all its nodes on borders"
    sharpest = float(least_angles(nodes, cells).min())
    return f"an angle of {sharpest:.1f} degrees" if sharpest < SHARPEST else ""
