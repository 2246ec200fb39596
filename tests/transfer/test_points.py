"""Points of a box, and the two ways in which states come to them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from ups_kit.data.discretisations import (
    cloud_points,
    fewest_nodes,
    grid_axes,
    grid_points,
    grid_shape,
    mesh_nodes,
    stride_between,
    triangles,
)
from ups_kit.data.scattered import scattered_matrix
from ups_kit.data.splines import GridSpline

BOX = ((0.0, 2.0), (-1.0, 0.0))
WALLS = [(True, True), (False, False), (True, False)]


def inside(positions: NDArray[np.float64], periodic: tuple[bool, ...]) -> bool:
    low, high = np.asarray(BOX).T
    below = np.where(periodic, positions < high, positions <= high)
    return bool((positions >= low).all() and below.all())


def area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = corners[:, 1:] - corners[:, :1]
    return 0.5 * (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])


def test_grids_have_the_aspect_of_another_and_meet_its_strides() -> None:
    assert grid_shape((64, 32), 512) == (32, 16)
    assert grid_shape((64, 32), 8192) == (128, 64)
    assert grid_shape((1024,), 200) == (200,)
    assert grid_shape((64, 32), 1000) == (45, 22)
    assert grid_shape((64, 64), 1) == (2, 2)
    assert [stride_between((64, 32), part) for part in ((64, 32), (16, 8), (32, 8), (48, 24))] == [1, 4, None, None]
    axes = grid_axes(BOX, (4, 2), 0.5)
    assert [axis.tolist() for axis in axes] == [[0.25, 0.75, 1.25, 1.75], [-0.75, -0.25]]
    assert grid_points(axes)[:3].tolist() == [[0.25, -0.75], [0.25, -0.25], [0.75, -0.75]]


@pytest.mark.parametrize("periodic", WALLS)
@pytest.mark.parametrize("count", [17, 400])
def test_meshes_are_even_whole_and_the_same_again(periodic: tuple[bool, bool], count: int) -> None:
    nodes = mesh_nodes(BOX, periodic, count)
    assert nodes.shape == (count, 2)
    assert inside(nodes, periodic)
    assert (nodes == mesh_nodes(BOX, periodic, count)).all()
    box = np.where(periodic, [2.0, 1.0], 0.0)
    nearest = cKDTree(nodes - [0.0, -1.0], boxsize=box).query(nodes - [0.0, -1.0], k=2)[0][:, 1]
    spacing = (2 / count) ** 0.5
    assert nearest.min() > 0.35 * spacing  # a random cloud has 0.02
    assert nearest.max() < 1.7 * spacing


def test_triangles_cover_the_box_once() -> None:
    nodes = mesh_nodes(BOX, (False, False), 300)
    corners = {(0.0, -1.0), (2.0, -1.0), (0.0, 0.0), (2.0, 0.0)}
    assert corners <= set(map(tuple, nodes.tolist()))
    found = triangles(nodes)
    assert found is not None
    areas = area(nodes[found])
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(2.0)
    assert set(found.ravel().tolist()) == set(range(300))
    assert triangles(nodes[:, :1]) is None


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_clouds_and_meshes_of_any_dimension(dims: int) -> None:
    box = ((1.0, 3.0),) * dims
    few, many = cloud_points(box, 50), cloud_points(box, 200)
    assert (few == many[:50]).all()
    assert many.min() > 1.0
    assert many.max() < 3.0
    assert (cloud_points(box, 50, seed=1) != few).all()
    for wraps in (True, False):
        periodic = (wraps,) * dims
        least = fewest_nodes(periodic)
        assert [len(mesh_nodes(box, periodic, count)) for count in (least, 60)] == [least, 60]
        with pytest.raises(ValueError, match=f"at least {least} nodes"):
            mesh_nodes(box, periodic, least - 1)


def waves(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two channels, periodic in the box."""
    x, y = np.moveaxis(places, -1, 0)
    return np.stack([np.sin(np.pi * x) * np.cos(2 * np.pi * y), np.cos(2 * np.pi * x + 1) + y * 0], -1)


@pytest.mark.parametrize("periodic", WALLS)
def test_splines_are_of_fourth_order(periodic: tuple[bool, bool]) -> None:
    places = cloud_points(((0.1, 1.9), (-0.9, -0.1)), 500)
    periods = [length if wraps else None for length, wraps in zip((2.0, 1.0), periodic, strict=True)]
    errors = []
    for size in (16, 32, 64):
        axes = grid_axes(BOX, (2 * size, size), 0.5)
        values = waves(np.stack(np.meshgrid(*axes, indexing="ij"), -1))
        found = GridSpline.at(axes, periods, places)(np.stack([values, 2 * values]))
        assert found.shape == (2, 500, 2)
        assert np.allclose(found[1], 2 * found[0])
        errors.append(np.abs(found[0] - waves(places)).max())
    assert np.log2(errors[0] / errors[1]) > 3.4
    assert np.log2(errors[1] / errors[2]) > 3.4


def test_splines_are_exact_on_cubics_even_beyond_the_grid() -> None:
    axes = grid_axes(BOX, (7, 5), 0.5)
    places = cloud_points(BOX, 100)

    def cubic(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return (at[..., :1] ** 3 - 2 * at[..., :1]) * (at[..., 1:] ** 3 + at[..., 1:] ** 2)

    values = cubic(np.stack(np.meshgrid(*axes, indexing="ij"), -1))[None]
    assert np.allclose(GridSpline.at(axes, (None, None), places)(values)[0], cubic(places), atol=1e-12)
    few = GridSpline.at([np.arange(2.0)], [None], np.asarray([[0.25]]))(np.asarray([[[1.0], [3.0]]]))
    assert few.item() == pytest.approx(1.5)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_scattered_interpolation_is_exact_on_quadratics_and_equals_scipys(dims: int) -> None:
    points, places = cloud_points(((0.0, 1.0),) * dims, 150), cloud_points(((0.2, 0.8),) * dims, 40, seed=1)
    matrix = scattered_matrix(points, places, [None] * dims)

    def quadratic(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 + at.sum(1) + at[:, 0] * at[:, -1] * 3)

    assert np.allclose(matrix @ quadratic(points), quadratic(places), atol=1e-9)
    neighbours = matrix.indptr[1]
    values = np.sin(5 * points).sum(1)
    scipys = RBFInterpolator(points, values, kernel="cubic", degree=2, neighbors=int(neighbours))
    assert np.allclose(matrix @ values, scipys(places), atol=1e-8)


def test_scattered_interpolation_knows_no_seam() -> None:
    points = mesh_nodes(BOX, (True, True), 800)
    places = cloud_points(BOX, 100)
    matrix = scattered_matrix(points, places, (2.0, 1.0))
    error = np.abs(matrix @ waves(points) - waves(places)).max()
    assert error < 0.02
    moved = scattered_matrix(points, places + np.asarray([2.0, -1.0]), (2.0, 1.0))
    assert np.allclose(moved @ waves(points), matrix @ waves(points), atol=1e-9)


def test_scattered_interpolation_of_few_points_or_points_on_a_line() -> None:
    line = np.stack([np.linspace(0, 1, 30), np.zeros(30)], -1)
    assert np.allclose(
        scattered_matrix(line, line + np.asarray([0.01, 0.0]), (None, None)) @ line[:, 0], line[:, 0] + 0.01, atol=1e-3
    )
    assert (scattered_matrix(line[:1], line, (None, None)) @ np.asarray([7.0])).tolist() == [7.0] * 30
