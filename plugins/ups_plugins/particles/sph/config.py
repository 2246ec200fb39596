"""The keys of the simulators of particles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import field, frozen
from attrs.validators import ge

from ups_kit import Field, FieldSpec
from ups_kit.interfaces import Simulator
from ups_kit.simulating.keys import Range, duration_key, frames_key, positive_range, trajectories_key

from .keys import NU_HELP, SPAN_HELP, SPEED_HELP, SphSettings, check_reach, particles_key, support_key

LID_HELP = "how fast the lid is, to either side: one number, or [low, high] for uniform draws"
PERTURBATION_HELP = "size of a random flow that is added, over that of the vortices; 0: none"


@frozen(kw_only=True)
class TaylorGreenSPH2DConfig(SphSettings):
    """Trajectories of particles in decaying vortices of a periodic unit square, as a `particle_zarr` store.

    Weakly compressible smoothed particle hydrodynamics with a transport velocity (Adami, Hu and Adams 2013), of
    u = U (sin X cos Y, -cos X sin Y), X = 2π (x - x₀), x₀ drawn, and a random flow added to it. Without that the energy
    decays as exp(-16π² ν t). ν and U, the largest speed at first, are stored as `nu` and `speed`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 6, "particles": 10, "frames": 4, "duration": 0.15}

    trajectories: int = trajectories_key(100)
    particles: int = particles_key(30, 3000)
    frames: int = frames_key(46)
    duration: float = duration_key(2.25, SPAN_HELP)
    nu: Range = field(default=(0.004, 0.01), validator=positive_range, metadata={"help": NU_HELP})
    speed: Range = field(default=(0.7, 1.0), validator=positive_range, metadata={"help": SPEED_HELP})
    perturbation: float = field(default=0.5, validator=ge(0.0), metadata={"help": PERTURBATION_HELP})
    dims: ClassVar[int] = 2

    def __attrs_post_init__(self) -> None:
        check_reach(self.particles, self.support)

    def describe(self) -> FieldSpec:
        """What the store will hold."""
        return _in_a_box(self)

    def build(self) -> Simulator:
        from .taylor_green import taylor_green

        return taylor_green(self)


@frozen(kw_only=True)
class TaylorGreenSPH3DConfig(SphSettings):
    """Trajectories of particles in Taylor-Green vortices of a periodic unit cube, as a `particle_zarr` store.

    As `taylor_green_sph2d`, of u = U (sin X cos Y cos Z, -cos X sin Y cos Z, 0): the vortices break into smaller ones,
    unless ν is so large that they only decay, their energy as exp(-24π² ν t).
    """

    tiny: ClassVar[Mapping[str, Any]] = {
        "trajectories": 6,
        "particles": 5,
        "support": 2.0,
        "frames": 3,
        "duration": 0.04,
    }

    trajectories: int = trajectories_key(40)
    particles: int = particles_key(12, 200)
    frames: int = frames_key(41)
    duration: float = duration_key(2.4, SPAN_HELP)
    nu: Range = field(default=(0.003, 0.01), validator=positive_range, metadata={"help": NU_HELP})
    speed: Range = field(default=(0.7, 1.0), validator=positive_range, metadata={"help": SPEED_HELP})
    perturbation: float = field(default=0.5, validator=ge(0.0), metadata={"help": PERTURBATION_HELP})
    support: float = support_key(3.0)
    dims: ClassVar[int] = 3

    def __attrs_post_init__(self) -> None:
        check_reach(self.particles, self.support)

    def describe(self) -> FieldSpec:
        """What the store will hold."""
        return _in_a_box(self)

    def build(self) -> Simulator:
        from .taylor_green import taylor_green

        return taylor_green(self)


@frozen(kw_only=True)
class LidDrivenCavitySPH2DConfig(SphSettings):
    """Trajectories of particles in a square box whose lid slides, as a `particle_zarr` store.

    Weakly compressible smoothed particle hydrodynamics with a transport velocity and walls of particles that stay where
    they are (Adami, Hu and Adams 2012, 2013). The fluid in [0, 1]² is at rest before its lid, at y = 1, moves along x
    with ±`speed`. Types are fluid, wall and lid; ν and the lid's velocity are stored as `nu` and `lid_velocity`.
    """

    tiny: ClassVar[Mapping[str, Any]] = {"trajectories": 6, "particles": 8, "frames": 4, "duration": 0.15, "start": 0.1}

    trajectories: int = trajectories_key(60)
    particles: int = particles_key(24, 3000)
    frames: int = frames_key(46)
    duration: float = duration_key(2.7, SPAN_HELP)
    nu: Range = field(default=(0.005, 0.02), validator=positive_range, metadata={"help": NU_HELP})
    speed: Range = field(default=(0.7, 1.0), validator=positive_range, metadata={"help": LID_HELP})
    start: float = field(
        default=0.5,
        validator=ge(0.0),
        metadata={"help": "for how long the lid has moved at the first frame", "unit": "time"},
    )

    @property
    def layers(self) -> int:
        """Of particles in a wall."""
        return math.ceil(self.support)

    def describe(self) -> FieldSpec:
        """What the store will hold."""
        width = self.layers / self.particles
        return _described(
            self,
            domain=((-width, 1 + width),) * 2,
            periodic=(False, False),
            statics=(Field("type", 3), Field("kinematic")),
            count=(self.particles + 2 * self.layers) ** 2,
            conditions=("dt", "nu", "lid_velocity"),
        )

    def build(self) -> Simulator:
        from .lid_driven_cavity import lid_driven_cavity

        return lid_driven_cavity(self)


def _in_a_box(config: TaylorGreenSPH2DConfig | TaylorGreenSPH3DConfig) -> FieldSpec:
    return _described(
        config,
        domain=((0.0, 1.0),) * config.dims,
        periodic=(True,) * config.dims,
        statics=(),
        count=config.particles**config.dims,
        conditions=("dt", "nu", "speed"),
    )


def _described(
    config: TaylorGreenSPH2DConfig | TaylorGreenSPH3DConfig | LidDrivenCavitySPH2DConfig,
    *,
    domain: tuple[tuple[float, float], ...],
    periodic: tuple[bool, ...],
    statics: tuple[Field, ...],
    count: int,
    conditions: tuple[str, ...],
) -> FieldSpec:
    dims = len(domain)
    stored = (Field("velocities", dims), *((Field("pressure"),) if config.pressure else ()))
    return FieldSpec(
        targets=(Field("velocity", dims), *stored),
        statics=statics,
        domain=domain,
        periodic=periodic,
        layout="particles",
        grid=None,
        dt=config.duration / (config.frames - 1),
        conditions=conditions,
        counts=(count, count),
        moves_with="velocity",
    )
