"""Small meshes of the unit square, another one in every sample, with waves on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from ups_kit.data.mesh_store import MeshSample


def square(number: int, side: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Nodes and triangles: a square of side + number % 3 nodes to each side, those within it moved about."""
    count = side + number % 3
    axis = np.linspace(0, 1, count)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    inner = ((nodes > 0) & (nodes < 1)).all(1)
    moved = np.random.default_rng(number).uniform(-0.2, 0.2, nodes.shape) / count
    nodes[inner] += moved[inner]
    nodes = nodes[np.random.default_rng(number).permutation(len(nodes))]
    cells = Delaunay(nodes).simplices.astype(np.int64)
    areas = np.abs(np.linalg.det(nodes[cells[:, 1:]] - nodes[cells[:, :1]]))
    return nodes, cells[areas > 1e-9]


def wave(nodes: NDArray[np.float64], times: NDArray[np.float64], phase: float) -> NDArray[np.float32]:
    """A field of two channels, (T, N, 2)."""
    x, y, t = nodes[None, :, 0], nodes[None, :, 1], times[:, None]
    both = np.stack([np.sin(3 * x + 2 * y - t + phase), np.cos(2 * x - y + t * phase)], -1)
    return both.astype(np.float32)


def mesh_sample(number: int, frames: int = 7, **replaced: Any) -> MeshSample:
    nodes, cells = square(number)
    times = 0.5 + 0.25 * np.arange(frames)
    content: dict[str, Any] = {
        "coords": nodes,
        "cells": cells,
        "time": times,
        "fields": {"velocity": wave(nodes, times, number), "pressure": wave(nodes, times, 2 * number)[..., :1]},
        "statics": {"depth": nodes[:, :1] ** 2, "node_type": (nodes[:, 0] == 0) + 2 * (nodes[:, 0] == 1)},
        "parameters": {"viscosity": 0.01 * (1 + number), "angle": float(number % 4)},
    }
    return MeshSample(**{**content, **replaced})
