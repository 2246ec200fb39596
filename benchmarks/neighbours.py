"""Neighbour tables of points: against scipy's tree alone, and from a thousand points to a million.

    python benchmarks/neighbours.py [--points 32000] [--supernodes 2048] [--degree 32] [--largest 1000000]

First, tables of 2,048 supernodes among 32,000 points in 3-D: a plain `cKDTree`, built and asked for the nearest points
within the radius; our tables by both back ends; and the look-ups that an encoder holds, made anew and kept. The radius
holds 3/4 of the degree on average, so that few neighbourhoods are cut, or twice the degree. All take turns in one
process, each with several clouds; ratios are of CPU time, to the plain tree.

Then tables of growing clouds, each in a process of its own: CPU time, and by how much the process's memory grew at most
(its resident set), the table among it, beside the size of the points and of the table.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from measure import alternate, print_table
from ups_kit import PointSet
from ups_kit.neighbours import SupernodeGraph, neighbour_table
from ups_kit.neighbours.supernodes import random_points

BOX = ((0.0, 1.0),) * 3
OPEN, CLOSED = (False,) * 3, (True,) * 3
MEMORY = 64 * 2**20
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
GOALS = (("our table, nearest", 1.1), ("encoder's look-ups, kept", 0.1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=32_000)
    parser.add_argument("--supernodes", type=int, default=2048)
    parser.add_argument("--degree", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each case")
    parser.add_argument("--clouds", type=int, default=4, help="clouds of points that a case looks at in one turn")
    parser.add_argument("--largest", type=int, default=1_000_000, help="points of the largest cloud")
    parser.add_argument("--quick", action="store_true", help="small clouds and few rounds: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.points, options.supernodes, options.rounds, options.clouds, options.largest = 2000, 128, 2, 2, 4000
    torch.set_num_threads(1)
    against_the_tree(options)
    growing(options)


def radius_for(points: int, degree: float) -> float:
    """The radius of a ball that holds so many of points spread over the unit cube."""
    return float((3 * degree / (4 * math.pi * points)) ** (1 / 3))


# ---------------------------------------------------------------------------------------------------------------------
# One size, all ways
# ---------------------------------------------------------------------------------------------------------------------
def against_the_tree(options: argparse.Namespace) -> None:
    """Time all ways in turn, and print what came of it."""
    generator = torch.Generator().manual_seed(0)
    clouds = [torch.rand(1, options.points, 3, generator=generator) for _ in range(options.clouds)]
    centres = [cloud[:, random_points(cloud[0], options.supernodes)] for cloud in clouds]
    rows, ratios = [], {}
    for share in (0.75, 2.0):
        radius = radius_for(options.points, share * options.degree)
        found = alternate(ways(clouds, centres, radius, options), options.rounds)
        plain = found["cKDTree alone"].cpu
        for name, timing in found.items():
            each = 1e3 / options.clouds
            ratio = timing.cpu / plain
            ratios.setdefault(name, ratio)
            rows.append(
                [f"{name}, {share:g} × degree", f"{each * timing.cpu:.2f}", f"{each * timing.wall:.2f}", f"{ratio:.2f}"]
            )
    print_table(
        f"{options.supernodes} of {options.points:,} points in 3-D, at most {options.degree} neighbours; the radius "
        "holds 0.75 or 2 × as many",
        ("", "CPU ms", "ms", "/ cKDTree alone"),
        rows,
    )
    goals = [[f"{name} / cKDTree alone", f"{ratios[name]:.3f}", f"{goal:g}"] for name, goal in GOALS]
    print_table("Goals, where the radius holds 0.75 × the degree", ("ratio", "found", "at most"), goals)


def ways(
    clouds: Sequence[Tensor], centres: Sequence[Tensor], radius: float, options: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    """All ways to the table, by name; each looks at every cloud."""
    shared: dict[str, Any] = {"radius": radius, "most": options.degree, "domain": BOX}

    def alone(box: float | None) -> Callable[[Tensor, Tensor], object]:
        def way(points: Tensor, places: Tensor) -> object:
            tree = cKDTree(points[0].numpy(), boxsize=box)
            return tree.query(places[0].numpy(), k=options.degree, distance_upper_bound=radius)

        return way

    def table(**keys: Any) -> Callable[[Tensor, Tensor], object]:
        return lambda points, places: neighbour_table(points, places, **{**shared, "periodic": OPEN, **keys})

    def look_up(kept: int) -> Callable[[Tensor, Tensor], object]:
        graph = SupernodeGraph(
            BOX, OPEN, "random", options.supernodes, radius=radius, degree=options.degree, cache_bytes=kept
        )
        return lambda points, places: graph(PointSet(points, points))

    def over_all(way: Callable[[Tensor, Tensor], object]) -> Callable[[], object]:
        return lambda: [way(points, places) for points, places in zip(clouds, centres)]

    found = {
        "cKDTree alone": alone(None),
        "cKDTree alone, periodic": alone(1.0),
        "our table, nearest": table(),
        "our table, nearest, periodic": table(periodic=CLOSED),
        "our table, spread": table(pick="spread"),
        "cell list, nearest": table(backend="cells"),
        "cell list, spread": table(backend="cells", pick="spread"),
        "encoder's look-ups, new": look_up(0),
        "encoder's look-ups, kept": look_up(2**28),
    }
    return {name: over_all(way) for name, way in found.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Growing clouds
# ---------------------------------------------------------------------------------------------------------------------
def growing(options: argparse.Namespace) -> None:
    """Tables of all sizes, each in a process of its own, whose peak memory is then its own."""
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= options.largest]
    rows = []
    for every in (False, True):
        for points in sizes:
            centres = points if every else min(options.supernodes, points)
            for backend in ("kdtree", "cells"):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    taken, grown, table = pool.apply(one_size, (points, centres, options.degree, backend))
                name = f"{backend}, {points:,} points, {centres:,} supernodes"
                rows.append([name, f"{taken:.3f}", f"{grown:.0f}", f"{12e-6 * (points + centres):.0f}", f"{table:.0f}"])
    print_table(
        f"One table of degree {options.degree} by the size of the cloud, with {MEMORY / 1e6:.0f} MB for chunks",
        ("", "CPU s", "peak grew by MB", "points MB", "table MB"),
        rows,
    )


def one_size(points: int, centres: int, degree: int, backend: str) -> tuple[float, float, float]:
    """CPU seconds and megabytes that the process's peak grew by, for one table; and the table's megabytes."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(1, points, 3, generator=generator)
    places = torch.rand(1, centres, 3, generator=generator)
    keys: dict[str, Any] = {"most": degree, "domain": BOX, "periodic": OPEN, "backend": backend, "memory": MEMORY}
    neighbour_table(cloud[:, :100], places[:, :10], radius=0.3, **keys)  # what is imported and allocated once
    CLEAR.write_text("5")  # the peak begins anew
    before, start = resident("VmRSS"), time.process_time()
    table = neighbour_table(cloud, places, radius=radius_for(points, 0.75 * degree), **keys)
    taken = time.process_time() - start
    return taken, resident("VmHWM") - before, (table.neighbours.nbytes + table.mask.nbytes) / 1e6


def resident(name: str) -> float:
    """Megabytes that this process has in memory (VmRSS), or had at most (VmHWM)."""
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else math.nan


if __name__ == "__main__":
    main()
