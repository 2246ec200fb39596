"""Recipe keys of the simulators in one space dimension."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, gt, le

from ups_kit import Field, FieldSpec
from ups_kit.interfaces import Simulator

from .keys import (
    Range,
    device_key,
    duration_key,
    finite_range,
    frames_key,
    positive_range,
    seed_key,
    trajectories_key,
)


@frozen(kw_only=True)
class Advection1DConfig:
    """Trajectories of the advection equation on the periodic interval [0, 1], in PDEBench's HDF5 layout.

    u_t + β u_x = 0, solved exactly. Initial conditions are PDEBench's random waves (Takamoto et al., arXiv:2210.07182)
    with eight modes. The speed β is stored for each trajectory as `beta`.
    """

    trajectories: int = trajectories_key(1000)
    points: int = field(default=256, validator=ge(4), metadata={"help": "stored points along x", "unit": "points"})
    frames: int = frames_key(41)
    duration: float = duration_key(2.0)
    beta: Range = field(
        default=(0.1, 4.0),
        validator=finite_range,
        metadata={"help": "speed: one number, or [low, high] for uniform draws", "unit": "lengths per time"},
    )
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("u"),),
            domain=((0.0, 1.0),),
            periodic=(True,),
            layout="grid",
            grid=(self.points,),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "beta"),
        )

    def build(self) -> Simulator:
        from ..advection import advection1d

        return advection1d(self)


@frozen(kw_only=True)
class Burgers1DConfig:
    """Trajectories of the viscous Burgers equation on the periodic interval [0, 1], in PDEBench's HDF5 layout.

    u_t + (u²/2)_x = (ε/π) u_xx. Initial conditions follow PDEBench (Takamoto et al., arXiv:2210.07182): four sine
    modes whose wave numbers come from two draws with replacement, so that a mode that was not drawn is a random
    constant, some with absolute value, sign change or window. Finite volumes of second order on `refinement` cells
    for each stored one; what is stored are cell averages.
    """

    trajectories: int = field(default=1100, validator=gt(0), metadata={"help": "number of trajectories"})
    points: int = field(default=256, validator=ge(4), metadata={"help": "stored cells along x", "unit": "cells"})
    frames: int = field(default=41, validator=ge(2), metadata={"help": "stored times, the initial one included"})
    duration: float = field(default=2.0, validator=gt(0.0), metadata={"help": "time of the last frame", "unit": "time"})
    epsilon: float | tuple[float, float] = field(
        default=(0.001, 0.1),
        validator=positive_range,
        metadata={"help": "π times the viscosity: one number, or [low, high] for log-uniform draws"},
    )
    seed: int = field(default=2022, validator=ge(0), metadata={"help": "seed of viscosities and initial conditions"})
    refinement: int = field(default=4, validator=gt(0), metadata={"help": "solver cells for each stored cell"})
    cfl: float = field(
        default=0.8,
        validator=[ge(0.01), le(1.0)],
        metadata={"help": "cells that the fastest wave crosses in a step; the scheme is stable up to 1"},
    )
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("u"),),
            domain=((0.0, 1.0),),
            periodic=(True,),
            layout="grid",
            grid=(self.points,),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "epsilon"),
        )

    def build(self) -> Simulator:
        from ..burgers1d import Burgers1D

        return Burgers1D(self)
