"""Cells of meshes: their kinds, volumes, facets and boundary, what each node stands for, and what is wrong with them.

A cell's orientation has no meaning here: volumes are absolute, and what is wrong is told by where cells are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]

CELL_TYPES: Mapping[str, int] = {"line": 2, "triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8}  # and their corners
DIMS: Mapping[str, int] = {"line": 1, "triangle": 2, "quad": 2, "tetra": 3, "hexahedron": 3}
_FACETS: Mapping[str, tuple[tuple[int, ...], ...]] = {  # corners of each facet, numbered as VTK does
    "line": ((0,), (1,)),
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 2, 3)),
    "hexahedron": ((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
}
_SIMPLICES: Mapping[str, tuple[tuple[int, ...], ...]] = {  # that a cell is cut into
    "line": ((0, 1),),
    "triangle": ((0, 1, 2),),
    "quad": ((0, 1, 2), (0, 2, 3)),
    "tetra": ((0, 1, 2, 3),),
    "hexahedron": ((0, 1, 2, 6), (0, 2, 3, 6), (0, 3, 7, 6), (0, 7, 4, 6), (0, 4, 5, 6), (0, 5, 1, 6)),
}
FLAT = 1e-12  # of the largest cell's volume: smaller ones have none


class Facets(NamedTuple):
    """The facets of a mesh, each once: points of lines, edges of flat cells, faces of volumes."""

    corners: Cells  # (F, k), as the first of its cells has them
    first: Cells  # (F,), a cell that it belongs to
    second: Cells  # (F,), the other one, or -1 on the boundary
    shared: Cells  # (F,), how many cells it belongs to


def simplices(cells: Cells, kind: str) -> Cells:
    """Lines, triangles or tetrahedra that the cells are cut into, those of one kind of cut after the other."""
    return np.concatenate([cells[:, list(corners)] for corners in _SIMPLICES[kind]])


def volumes(coords: NDArray[np.float64], cells: Cells, kind: str) -> NDArray[np.float64]:
    """Length, area or volume of each cell, (M,)."""
    parts = _SIMPLICES[kind]
    flat = _content(coords, simplices(cells, kind), signed=len(parts) > 1 and DIMS[kind] == coords.shape[1])
    total: NDArray[np.float64] = np.abs(flat.reshape(len(parts), len(cells)).sum(0))
    return total


def _content(coords: NDArray[np.float64], corners: Cells, signed: bool) -> NDArray[np.float64]:
    """Content of simplices (M, n + 1); with its sign where they have as many dimensions as space."""
    sides = coords[corners[:, 1:]] - coords[corners[:, :1]]
    scale = float(np.prod(np.arange(1, sides.shape[1] + 1)))
    if signed:
        return np.asarray(np.linalg.det(sides) / scale)
    gram = sides @ sides.transpose(0, 2, 1)
    return np.asarray(np.sqrt(np.maximum(np.linalg.det(gram), 0.0)) / scale)


def lumped(coords: NDArray[np.float64], cells: Cells, kind: str) -> NDArray[np.float64]:
    """What each node stands for, (N,): an equal share of each of its cells; the sum is the whole volume."""
    share = np.repeat(volumes(coords, cells, kind) / cells.shape[1], cells.shape[1])
    return np.bincount(cells.reshape(-1), share, minlength=len(coords)).astype(np.float64)


def facets(cells: Cells, kind: str) -> Facets:
    """All facets, in the order of their corners' numbers. Corners are not negative."""
    every = np.concatenate([cells[:, list(corners)] for corners in _FACETS[kind]])
    owner = np.tile(np.arange(len(cells)), len(_FACETS[kind]))
    ordered = np.sort(every, 1)
    order = _order(ordered)
    new = np.ones(len(order), bool)
    new[1:] = (ordered[order[1:]] != ordered[order[:-1]]).any(1)
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(order)))
    last = np.where(counts > 1, owner[order[np.minimum(starts + 1, len(order) - 1)]], -1)
    return Facets(every[order[starts]], owner[order[starts]], last, counts)


def _order(rows: Cells) -> NDArray[np.intp]:
    """The order that sorts rows by their numbers, from the first on; equal ones stay in theirs."""
    base = int(rows.max(initial=0)) + 1
    if base ** rows.shape[1] >= 2**62:
        return np.lexsort(rows.T[::-1])
    key = rows[:, 0].copy()
    for column in rows.T[1:]:
        key = key * base + column
    return np.argsort(key, kind="stable")


def boundary(cells: Cells, kind: str, nodes: int) -> NDArray[np.bool_]:
    """Which nodes lie on a facet that belongs to one cell alone, (N,)."""
    found, flags = facets(cells, kind), np.zeros(nodes, bool)
    flags[found.corners[found.shared == 1].reshape(-1)] = True
    return flags


def edges_of(cells: Cells, kind: str) -> Cells:
    """The edges of a mesh, (E, 2), each once, the lower number first."""
    pairs = {"line": ((0, 1),), "tetra": ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))}
    cube = tuple((i, (i + 1) % 4) for i in range(4)) + tuple((4 + i, 4 + (i + 1) % 4) for i in range(4))
    pairs["hexahedron"] = cube + tuple((i, i + 4) for i in range(4))
    both = np.sort(np.concatenate([cells[:, list(pair)] for pair in pairs.get(kind, _FACETS[kind])]), 1)
    both = both[_order(both)]
    new = np.ones(len(both), bool)
    new[1:] = (both[1:] != both[:-1]).any(1)
    return both[new]


def triangles(cells: Cells, kind: str) -> Cells | None:
    """The triangles that a mesh is drawn with, (M, 3), or None for lines and volumes."""
    return simplices(cells, kind) if DIMS[kind] == 2 else None


# ---------------------------------------------------------------------------------------------------------------------
# What is wrong with a mesh
# ---------------------------------------------------------------------------------------------------------------------
def mesh_problems(coords: NDArray[np.float64], cells: Cells | None, kind: str, edges: Cells | None) -> Iterator[str]:
    """What is wrong with nodes and cells, each with how many there are and the first of them."""
    finite = np.isfinite(coords).all(1)
    if not finite.all():
        first = int(np.argmin(finite))
        yield f"coords: {_of((~finite).sum(), len(coords), 'nodes')} are NaN or infinite, the first being node {first}"
        return
    yield from _duplicates(coords)
    sound = True
    for name, table in (("cells", cells), ("edges", edges)):
        for problem in () if table is None else _indices(table, len(coords), name):
            sound = False
            yield problem
    if not sound:
        return
    used = np.zeros(len(coords), bool)
    for table in (cells, edges):
        if table is not None:
            used[table.reshape(-1)] = True
    if not used.all():
        first = int(np.argmin(used))
        yield (
            f"{_of((~used).sum(), len(coords), 'nodes')} are in no cell, the first being node {first}; expected each "
            "in one at least"
        )
    if cells is not None and len(cells):
        yield from _shapes(coords, cells, kind)


def _of(count: np.integer | int, total: int, what: str) -> str:
    return f"{int(count)} of {total} {what}"


def _duplicates(coords: NDArray[np.float64]) -> Iterator[str]:
    order = np.lexsort(coords.T[::-1])
    same = (coords[order[1:]] == coords[order[:-1]]).all(1)
    if same.any():
        pair = sorted(int(node) for node in order[int(np.argmax(same)) : int(np.argmax(same)) + 2])
        place = ", ".join(f"{value:g}" for value in coords[pair[0]])
        yield (
            f"coords: {_of(same.sum(), len(coords), 'nodes')} lie where another does, the first pair being {pair[0]} "
            f"and {pair[1]} at ({place})"
        )


def _indices(table: Cells, nodes: int, name: str) -> Iterator[str]:
    if not len(table):
        yield f"{name}: expected at least one, got none"
        return
    outside = (table < 0) | (table >= nodes)
    if outside.any():
        row, corner = (int(place) for place in np.argwhere(outside)[0])
        count = int(outside.any(1).sum())
        yield (
            f"{name}: {_of(count, len(table), name)} name nodes that are not in 0 … {nodes - 1}, the first being "
            f"{int(table[row, corner])} at {name[:-1]} {row}, corner {corner}"
        )
        return
    ordered = np.sort(table, 1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if twice.any():
        row = int(np.argmax(twice))
        yield (
            f"{name}: {_of(twice.sum(), len(table), name)} name one node twice, the first being {name[:-1]} {row} "
            f"({', '.join(map(str, table[row].tolist()))})"
        )


def _shapes(coords: NDArray[np.float64], cells: Cells, kind: str) -> Iterator[str]:
    size = volumes(coords, cells, kind)
    what = ("length", "area", "volume")[DIMS[kind] - 1]
    empty = size <= FLAT * size.max()
    if empty.any():
        first = int(np.argmax(empty))
        yield (
            f"cells: {_of(empty.sum(), len(cells), 'cells')} have no {what}, the first being cell {first} "
            f"({', '.join(map(str, cells[first].tolist()))}) with {size[first]:.3g}"
        )
        return
    if DIMS[kind] != coords.shape[1] or DIMS[kind] == 1:
        return  # a surface may lie as it likes
    folded = _folded(coords, cells, kind)
    if len(folded):
        one, other = folded[0]
        yield (
            f"cells: {len(folded)} pairs of neighbours lie over each other (negative {what}: a mesh that is turned "
            f"inside out there), the first being cells {one} and {other}"
        )


def _folded(coords: NDArray[np.float64], cells: Cells, kind: str) -> Cells:
    """Pairs of cells that lie on the same side of the facet they share, (pairs, 2)."""
    found = facets(cells, kind)
    inner = found.second >= 0
    corners, first, second = found.corners[inner], found.first[inner], found.second[inner]
    centres, origin = coords[cells].mean(1), coords[corners[:, 0]]
    if coords.shape[1] == 2:
        along = coords[corners[:, 1]] - origin
        normal = np.stack([-along[:, 1], along[:, 0]], 1)
    else:
        normal = np.cross(coords[corners[:, 1]] - origin, coords[corners[:, 2]] - origin)
    sides = [np.einsum("ij,ij->i", centres[cell] - origin, normal) for cell in (first, second)]
    wrong = (sides[0] * sides[1] > 0) | (found.shared[inner] > 2)
    return np.stack([first[wrong], second[wrong]], 1)
