"""Recipe keys of the simulators in one space dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen
from attrs.validators import ge, gt, le

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
class Advection1DConfig:
    """Trajectories of the advection equation on the periodic interval [0, 1], in PDEBench's HDF5 layout.

    u_t + β u_x = 0, solved exactly. Initial conditions are PDEBench's random waves (Takamoto et al., arXiv:2210.07182)
    with eight modes. The speed β is stored for each trajectory as `beta`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 4}

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

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 4, "duration": 0.2, "refinement": 1}

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


@frozen(kw_only=True)
class DiffusionReaction1DConfig:
    """Trajectories of diffusion with logistic growth on the periodic interval [0, 1], in PDEBench's HDF5 layout.

    u_t = ν u_xx + ρ u (1 - u). Initial conditions are PDEBench's random waves (Takamoto et al., arXiv:2210.07182) with
    four modes, brought to the range from 0 to 1. Strang splitting of two exact parts. ν and ρ are stored for each
    trajectory as `nu` and `rho`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 16, "frames": 4, "duration": 0.1}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=256, validator=ge(4), metadata={"help": "stored points along x", "unit": "points"})
    frames: int = frames_key(41)
    duration: float = duration_key(1.0)
    nu: Range = field(
        default=(1e-3, 1e-1),
        validator=positive_range,
        metadata={"help": "diffusivity: one number, or [low, high] for log-uniform draws"},
    )
    rho: Range = field(
        default=(1.0, 10.0),
        validator=positive_range,
        metadata={"help": "rate of growth: one number, or [low, high] for log-uniform draws", "unit": "1 / time"},
    )
    step: float = step_key(0.0025)
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
            conditions=("dt", "nu", "rho"),
        )

    def build(self) -> Simulator:
        from ..logistic import diffusion_reaction1d

        return diffusion_reaction1d(self)


@frozen(kw_only=True)
class KdV1DConfig:
    """Trajectories of the Korteweg-de Vries equation on a periodic interval, in PDEBench's HDF5 layout.

    u_t + u u_x + δ u_xxx = 0. Initial conditions are random sums of the first sine modes, as in APEBench (Koehler et
    al., arXiv:2411.00180). Fourier modes and exponential time differencing. δ is stored for each trajectory as `delta`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 32, "frames": 4, "duration": 2.0}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=128, validator=ge(16), metadata={"help": "points along x", "unit": "points"})
    frames: int = frames_key(41)
    duration: float = duration_key(40.0)
    length: float = field(default=64.0, validator=positive, metadata={"help": "length of the interval"})
    delta: Range = field(
        default=(1.0, 4.0),
        validator=positive_range,
        metadata={"help": "dispersion: one number, or [low, high] for log-uniform draws"},
    )
    modes: int = field(default=5, validator=gt(0), metadata={"help": "sine modes of the initial condition"})
    amplitude: float = field(default=1.0, validator=positive, metadata={"help": "largest |u| at first"})
    step: float = step_key(0.05)
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("u"),),
            domain=((0.0, self.length),),
            periodic=(True,),
            layout="grid",
            grid=(self.points,),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "delta"),
        )

    def build(self) -> Simulator:
        from ..dispersive import kdv1d

        return kdv1d(self)


@frozen(kw_only=True)
class KS1DConfig:
    """Trajectories of the Kuramoto-Sivashinsky equation on a periodic interval, in PDEBench's HDF5 layout.

    u_t + u u_x + u_xx + ν u_xxxx = 0: chaos in space and time. Initial conditions are random sums of the first sine
    modes, as in APEBench (Koehler et al., arXiv:2411.00180), solved for `warmup` before the first frame. Fourier modes
    and exponential time differencing. ν is stored for each trajectory as `nu`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 8, "points": 32, "frames": 4, "duration": 2.0, "warmup": 1.0}

    trajectories: int = trajectories_key(1000)
    points: int = field(default=128, validator=ge(16), metadata={"help": "points along x", "unit": "points"})
    frames: int = frames_key(51)
    duration: float = duration_key(25.0)
    length: float = field(default=64.0, validator=positive, metadata={"help": "length of the interval"})
    nu: Range = field(
        default=1.0,
        validator=positive_range,
        metadata={"help": "hyperviscosity: one number, or [low, high] for log-uniform draws"},
    )
    modes: int = field(default=5, validator=gt(0), metadata={"help": "sine modes of the initial condition"})
    amplitude: float = field(default=1.0, validator=positive, metadata={"help": "largest |u| at first"})
    warmup: float = field(
        default=50.0, validator=ge(0.0), metadata={"help": "time that passes before the first frame", "unit": "time"}
    )
    step: float = step_key(0.05)
    seed: int = seed_key()
    device: str = device_key()

    def describe(self) -> FieldSpec:
        """What the file will hold."""
        return FieldSpec(
            targets=(Field("u"),),
            domain=((0.0, self.length),),
            periodic=(True,),
            layout="grid",
            grid=(self.points,),
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "nu"),
        )

    def build(self) -> Simulator:
        from ..dispersive import ks1d

        return ks1d(self)
