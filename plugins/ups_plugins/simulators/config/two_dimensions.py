"""Recipe keys of the simulators in two space dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le, optional

from ups_kit import Field, FieldSpec
from ups_kit.interfaces import Simulator
from ups_kit.simulating.keys import (
    Range,
    device_key,
    duration_key,
    finite_range,
    frames_key,
    positive,
    positive_range,
    seed_key,
    step_key,
    trajectories_key,
)


@frozen(kw_only=True)
class Darcy2DConfig:
    """Steady Darcy flow through a medium of two materials on the unit square, in PDEBench's HDF5 layout.

    -∇·(a ∇u) = β, u = 0 on the boundary (Takamoto et al., arXiv:2210.07182): the permeability a, stored as `nu`, is 1
    or `contrast` by the sign of a random sum of Gaussian bumps. Five-point finite volumes, solved directly. β is stored
    as an attribute where it is one number, and for each sample where it is drawn.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 12}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=64, validator=ge(4), metadata={"help": "cells along each axis", "unit": "cells"})
    beta: Range = field(
        default=1.0,
        validator=positive_range,
        metadata={"help": "strength of the source: one number, or [low, high] for log-uniform draws"},
    )
    contrast: float = field(
        default=0.1, validator=[gt(0.0), le(1.0)], metadata={"help": "the smaller permeability; the larger one is 1"}
    )
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("u"),),
            statics=(Field("nu"),),
            domain=((0.0, 1.0), (0.0, 1.0)),
            periodic=(False, False),
            layout="grid",
            grid=(self.points, self.points),
            dt=1.0,
            history=0,
            conditions=("dt", "beta") if isinstance(self.beta, tuple) else ("dt",),
        )

    def build(self) -> Simulator:
        from ..darcy import darcy2d

        return darcy2d(self)


@frozen(kw_only=True)
class DiffusionReaction2DConfig:
    """Trajectories of an activator and an inhibitor (FitzHugh-Nagumo) on [-1, 1]², in PDEBench's HDF5 layout.

    u_t = D_u ∇²u + u - u³ - k - v, v_t = D_v ∇²v + u - v, no flow through the boundary, initial values from N(0, 1) at
    every point (Takamoto et al., arXiv:2210.07182). Strang splitting with exact diffusion in cosines. k is stored as an
    attribute of each trajectory's group.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 3, "duration": 0.2}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=64, validator=ge(4), metadata={"help": "points along each axis", "unit": "points"})
    frames: int = frames_key(26)
    duration: float = duration_key(5.0)
    activator_diffusion: float = field(
        default=1e-3, validator=ge(0.0), metadata={"help": "D_u, the activator's diffusivity"}
    )
    inhibitor_diffusion: float = field(
        default=5e-3, validator=ge(0.0), metadata={"help": "D_v, the inhibitor's diffusivity"}
    )
    k: Range = field(
        default=5e-3,
        validator=finite_range,
        metadata={"help": "constant of the reaction: one number, or [low, high] for uniform draws"},
    )
    step: float = step_key(0.02)
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("activator"), Field("inhibitor")),
            domain=((-1.0, 1.0), (-1.0, 1.0)),
            periodic=(False, False),
            layout="grid",
            grid=(self.points, self.points),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "k"),
        )

    def build(self) -> Simulator:
        from ..diffusion_reaction import diffusion_reaction2d

        return diffusion_reaction2d(self)


def _even(instance: object, attribute: Attribute[Any], value: int) -> None:
    if value % 2 or value < 4:
        raise ValueError(f"{attribute.name} = {value}: expected an even number, 4 or more")


@frozen(kw_only=True)
class ShallowWater2DConfig:
    """Trajectories of a round dam that breaks, on [-2.5, 2.5]², in PDEBench's HDF5 layout.

    Shallow water equations with g = 1, at first at rest, `height` deep inside a circle of a drawn radius and 1 outside
    (Takamoto et al., arXiv:2210.07182). Finite volumes of second order on `refinement` cells along each axis for each
    stored one; the depth's cell averages are stored. The radius is stored as an attribute of each group.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 3, "duration": 0.1, "refinement": 1}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=64, validator=_even, metadata={"help": "stored cells along each axis", "unit": "cells"})
    frames: int = frames_key(26)
    duration: float = duration_key(1.0)
    radius: Range = field(
        default=(0.3, 0.7),
        validator=positive_range,
        metadata={"help": "radius of the dam: one number, or [low, high] for uniform draws", "unit": "length"},
    )
    height: float = field(default=2.0, validator=positive, metadata={"help": "depth inside the dam", "unit": "length"})
    boundary: Literal["outflow", "wall"] = field(
        default="outflow", metadata={"help": "what the border of the square is"}
    )
    seed: int = seed_key()
    refinement: int = field(
        default=2, validator=gt(0), metadata={"help": "solver cells for each stored cell, along each axis"}
    )
    cfl: float = field(
        default=0.9,
        validator=[ge(0.01), le(1.0)],
        metadata={"help": "cells that the fastest wave could cross in a step; the scheme is stable up to 1"},
    )
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("h"),),
            domain=((-2.5, 2.5), (-2.5, 2.5)),
            periodic=(False, False),
            layout="grid",
            grid=(self.points, self.points),
            dt=self.duration / (self.frames - 1),
        )

    def build(self) -> Simulator:
        from ..shallow_water import shallow_water2d

        return shallow_water2d(self)


@frozen(kw_only=True)
class NavierStokes2DConfig:
    """Trajectories of incompressible flow in the periodic unit square, in PDEBench's HDF5 layout.

    ω_t + u·∇ω = ν ∇²ω - α ω + ∇×f for the vorticity ω: turbulence that decays, or that Kolmogorov's force
    drives, A sin(2πn y + φ) along x or the same along y, stored as `force`. Fourier modes with the 2/3
    rule, integrating factor, Runge-Kutta 4. The viscosity is stored for each trajectory as `nu`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 3, "duration": 0.05}

    trajectories: int = trajectories_key(240)
    points: int = field(default=64, validator=_even, metadata={"help": "points along each axis", "unit": "points"})
    frames: int = frames_key(21)
    duration: float = duration_key(1.0)
    nu: Range = field(
        default=(1e-3, 1e-2),
        validator=positive_range,
        metadata={"help": "viscosity: one number, or [low, high] for log-uniform draws"},
    )
    forcing: Literal["none", "kolmogorov"] = field(default="none", metadata={"help": "what drives the flow"})
    amplitude: float = field(default=2.0, validator=positive, metadata={"help": "A, the largest force per mass"})
    waves: int = field(default=4, validator=gt(0), metadata={"help": "n, waves of the force"})
    drag: float = field(default=0.0, validator=ge(0.0), metadata={"help": "α, the drag", "unit": "1 / time"})
    speed: float = field(default=1.0, validator=positive, metadata={"help": "root mean square of the initial velocity"})
    peak: float = field(
        default=3.0, validator=positive, metadata={"help": "k₀, where the initial energy spectrum has its maximum"}
    )
    store: Literal["velocity", "vorticity"] = field(default="velocity", metadata={"help": "what the file holds"})
    step: float | None = field(
        default=None,
        validator=optional(positive),
        metadata={"help": "the solver's largest step; 1 / (4 points · speed) where not given", "unit": "time"},
    )
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("velocity", 2),) if self.store == "velocity" else (Field("u"),),
            statics=(Field("force", 2),) if self.forcing != "none" else (),
            domain=((0.0, 1.0), (0.0, 1.0)),
            periodic=(True, True),
            layout="grid",
            grid=(self.points, self.points),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "nu"),
        )

    def build(self) -> Simulator:
        from ..navier_stokes import navier_stokes2d

        return navier_stokes2d(self)
