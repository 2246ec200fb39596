"""The ancestor's tasks: what kind of data each is, and which simulator stands for files that are not there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

Kind = Literal["grid", "mesh", "particles"]
HELD_OUT = 150  # trajectories of validation and test, where a recipe does not say otherwise


@frozen
class Task:
    """One task: its number of space dimensions, where its name says so, and what simulates it."""

    dims: int | None
    kind: Kind = "grid"
    steady: bool = False
    simulate: Mapping[str, Any] = field(factory=dict)
    vector: str = ""  # the predicted field that a divergence can be taken of

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Points along each axis of what is simulated."""
        return (self.simulate["points"],) * self.dims if self.simulate and self.dims else None

    def windows(self, stride: int) -> int | None:
        """Train windows of one step in what is simulated: what an epoch goes through."""
        if not self.simulate:
            return None
        frames = math.ceil(int(self.simulate.get("frames", 2)) / stride)
        return (int(self.simulate["trajectories"]) - HELD_OUT) * max(frames - 1, 1)


def _simulated(use: str, trajectories: int, points: int, frames: int | None = None, **others: Any) -> dict[str, Any]:
    timed = {} if frames is None else {"frames": frames}
    return {"use": use, "trajectories": trajectories, "points": points, **timed, **others}


TASKS = {
    "burgers1d": Task(1, simulate=_simulated("burgers1d", 1150, 256, 41, epsilon=[0.001, 0.1])),
    "advection1d": Task(1, simulate=_simulated("advection1d", 1150, 256, 41, beta=[0.1, 4.0])),
    "reaction_diffusion1d": Task(1, simulate=_simulated("diffusion_reaction1d", 1150, 256, 41)),
    "diffusion_sorption1d": Task(1),
    "compressible_ns1d": Task(1),
    "cfd1d_shocktube": Task(1),
    "darcy2d": Task(2, steady=True, simulate=_simulated("darcy2d", 1300, 64, beta=[0.1, 10.0])),
    "navier_stokes2d": Task(2, simulate=_simulated("navier_stokes2d", 500, 64, 21), vector="velocity"),
    "reaction_diffusion2d": Task(2, simulate=_simulated("diffusion_reaction2d", 500, 64, 26)),
    "shallow_water2d": Task(2, simulate=_simulated("shallow_water2d", 350, 64, 26)),
    "allen_cahn2d": Task(2),
    "cahn_hilliard2d": Task(2),
    "cfd2d_rand": Task(2),
    "cfd2d_turb": Task(2),
    "cfd3d": Task(3),
    "compressible_ns3d": Task(3),
    "darcy2d_mesh": Task(2, kind="mesh", steady=True),
    "mesh_poisson": Task(2, kind="mesh", steady=True),
    "particles_advect": Task(None, kind="particles"),
}
