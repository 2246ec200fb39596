"""Files that pages take as there: a reader's own. Small ones, made for the commands that follow."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np


def upskit(line: str) -> None:
    """Run a command that is not on the page; it must end well."""
    from ups_kit.cli import cli

    assert not cli.main(shlex.split(line), prog_name="upskit", standalone_mode=False), line


def turbulence() -> None:
    """`turbulence.hdf5`: velocities in two dimensions, in PDEBench's layout."""
    upskit("data make navier_stokes2d --out made.h5 --set trajectories=3 --set points=16 --set frames=3")
    Path("made.h5").rename("turbulence.hdf5")


def plain_arrays() -> None:
    """`runs.npz` and `flow.npz`: axes in orders of their own."""
    draws = np.random.default_rng(0)
    np.savez("runs.npz", u=draws.standard_normal((4, 6, 1, 32)))
    np.savez("flow.npz", v=draws.standard_normal((4, 6, 8, 8, 2)), viscosity=draws.random(4))


def mesh_files() -> None:
    """`runs/*/u_*.vtu`, `run_7/u_*.vtu`, `cavity.xdmf` and `run.pvd`: a square of four triangles, a few frames each."""
    import meshio

    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
    cells = [("triangle", np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))]
    spatial = np.c_[points, np.zeros(5)]
    for folder in ("runs/a", "runs/b", "run_7"):
        Path(folder).mkdir(parents=True)
        for frame in range(3):
            meshio.Mesh(spatial, cells, {"u": points[:, 0] + frame}).write(f"{folder}/u_{frame}.vtu")
    with meshio.xdmf.TimeSeriesWriter("cavity.xdmf") as writer:
        writer.write_points_cells(points, cells)
        for frame in range(3):
            writer.write_data(0.1 * frame, point_data={"u": points[:, 0] + frame, "mask": points[:, 1]})
    lines = []
    for frame in range(3):
        data = {"U": np.c_[points * frame, np.zeros(5)], "p": points[:, 1] + frame}
        meshio.Mesh(spatial, cells, data).write(f"step_{frame}.vtu")
        lines.append(f'<DataSet timestep="{0.1 * frame}" file="step_{frame}.vtu"/>')
    text = '<?xml version="1.0"?><VTKFile type="Collection"><Collection>'
    Path("run.pvd").write_text("\n".join([text, *lines, "</Collection></VTKFile>"]))
