"""Cells: their volumes, facets and boundary against what is known of them, and what is wrong told with numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from ups_kit.data.meshes import CELL_TYPES, boundary, edges_of, facets, lumped, mesh_problems, triangles, volumes

Table = NDArray[np.int64]


def brick(*counts: int) -> tuple[NDArray[np.float64], Table, str]:
    """A brick of so many cells along each axis, 1, 2 and 3 long: lines, quads or hexahedra as VTK numbers them."""
    axes = [np.linspace(0, length, count + 1) for length, count in zip((1.0, 2.0, 3.0), counts, strict=False)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(counts))
    number = np.arange(len(nodes)).reshape([count + 1 for count in counts])
    corners = {1: [(0,), (1,)], 2: [(0, 0), (1, 0), (1, 1), (0, 1)]}
    corners[3] = [(*corner, level) for level in (0, 1) for corner in corners[2]]
    parts = [
        number[tuple(slice(step, step + count) for step, count in zip(corner, counts, strict=True))].reshape(-1)
        for corner in corners[len(counts)]
    ]
    return nodes, np.stack(parts, 1).astype(np.int64), {1: "line", 2: "quad", 3: "hexahedron"}[len(counts)]


def simplex(dims: int, seed: int = 0) -> tuple[NDArray[np.float64], Table, str]:
    """A random triangulation of the unit square or cube."""
    inner = np.random.default_rng(seed).uniform(0.1, 0.9, (40, dims))
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * dims, indexing="ij"), -1).reshape(-1, dims)
    nodes = np.concatenate([corners, inner])
    return nodes, Delaunay(nodes).simplices.astype(np.int64), {2: "triangle", 3: "tetra"}[dims]


MESHES = {
    "line": (brick(5), 1.0),
    "quad": (brick(3, 4), 2.0),
    "hexahedron": (brick(2, 3, 2), 6.0),
    "triangle": (simplex(2), 1.0),
    "tetra": (simplex(3), 1.0),
}


@pytest.mark.parametrize("kind", CELL_TYPES)
def test_volumes_and_what_nodes_stand_for(kind: str) -> None:
    (nodes, cells, name), whole = MESHES[kind]
    assert name == kind
    assert list(mesh_problems(nodes, cells, kind, None)) == []
    assert volumes(nodes, cells, kind).sum() == pytest.approx(whole)
    weights = lumped(nodes, cells, kind)
    assert weights.sum() == pytest.approx(whole)
    assert (weights > 0).all()
    # exact for linear functions on simplices and bricks: the mean over a cell is that of its corners
    assert weights @ nodes[:, 0] == pytest.approx(whole * np.mean([nodes[:, 0].min(), nodes[:, 0].max()]), rel=1e-12)
    turned = cells[:, ::-1]
    assert np.allclose(volumes(nodes, turned, kind), volumes(nodes, cells, kind))


@pytest.mark.parametrize("kind", CELL_TYPES)
def test_facets_and_the_boundary(kind: str) -> None:
    (nodes, cells, _), _ = MESHES[kind]
    found = facets(cells, kind)
    assert found.shared.max() <= 2
    assert ((found.second >= 0) == (found.shared == 2)).all()
    for corners, first, second in zip(found.corners, found.first, found.second, strict=True):
        assert set(corners) <= set(cells[first])
        assert second < 0 or set(corners) <= set(cells[second])
    low, high = nodes.min(0), nodes.max(0)
    assert np.array_equal(boundary(cells, kind, len(nodes)), ((nodes == low) | (nodes == high)).any(1))
    edges = edges_of(cells, kind)
    if kind in ("triangle", "quad"):
        assert len(nodes) - len(edges) + len(cells) == 1  # Euler's number of a disc
        drawn = triangles(cells, kind)
        assert drawn is not None
        assert volumes(nodes, drawn, "triangle").sum() == pytest.approx(volumes(nodes, cells, kind).sum())
    else:
        assert triangles(cells, kind) is None
    if kind in ("tetra", "hexahedron"):
        assert len(nodes) - len(edges) + len(found.corners) - len(cells) == 1  # and of a ball


def test_what_is_wrong_is_told_with_counts_and_the_first() -> None:
    nodes, cells, kind = simplex(2)

    def said(places: NDArray[np.float64] = nodes, table: Table = cells) -> str:
        return "; ".join(mesh_problems(places, table, kind, None))

    bad = cells.copy()
    bad[3, 1], bad[7, 2] = len(nodes), -4
    assert said(table=bad) == (
        f"cells: 2 of {len(cells)} cells name nodes that are not in 0 … {len(nodes) - 1}, the first being {len(nodes)} "
        "at cell 3, corner 1"
    )
    twice = np.concatenate([nodes, nodes[[9]]])
    moved = cells.copy()
    moved[np.argmax((cells == 9).any(1))][cells[np.argmax((cells == 9).any(1))] == 9] = len(nodes)
    assert f"1 of {len(nodes) + 1} nodes lie where another does, the first pair being 9 and {len(nodes)}" in said(twice)
    alone = np.concatenate([nodes, [[0.5, 0.123]]])
    assert f"1 of {len(alone)} nodes are in no cell, the first being node {len(nodes)}" in said(alone)
    flat = np.concatenate([cells, [[0, 1, 2]]])
    line = nodes.copy()
    line[[0, 1, 2]] = [[0, 0], [0.25, 0], [0.5, 0]]
    assert "have no area, the first being cell" in said(line, flat)
    nan = nodes.copy()
    nan[5, 1] = np.nan
    assert said(nan) == f"coords: 1 of {len(nodes)} nodes are NaN or infinite, the first being node 5"
    one = cells.copy()
    one[2] = one[2][[0, 0, 1]]
    assert "name one node twice, the first being cell 2" in said(table=one)
    assert said(table=cells[:0]) == "cells: expected at least one, got none"


@pytest.mark.parametrize("dims", [2, 3])
def test_a_mesh_that_is_folded(dims: int) -> None:
    nodes, cells, kind = simplex(dims)
    inner = next(node for node in range(len(nodes)) if not boundary(cells, kind, len(nodes))[node])
    folded = nodes.copy()
    folded[inner] += 1.5  # beyond its neighbours
    problems = list(mesh_problems(folded, cells, kind, None))
    assert len(problems) == 1
    assert "pairs of neighbours lie over each other" in problems[0]
    mirrored = nodes * np.array([-1.0] + [1.0] * (dims - 1))
    assert list(mesh_problems(mirrored, cells, kind, None)) == []
