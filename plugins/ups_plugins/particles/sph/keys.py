"""Keys and checks that the simulators of particles share."""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le, matches_re

Range = float | tuple[float, float]  # one number, or the bounds that each trajectory's is drawn between
NU_HELP = "viscosity: one number, or [low, high] for log-uniform draws"
SPEED_HELP = "U, the largest speed at first: one number, or [low, high] for uniform draws"
SKIN = 0.3  # how much further than the kernel a list of neighbours reaches, in spacings


def positive_range(instance: object, attribute: Attribute[Any], value: Range) -> None:
    """A number above 0, or two of them, the lower one first."""
    low, high = value if isinstance(value, tuple) else (value, value)
    if not (0 < low <= high and math.isfinite(high)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0, or two of them, the lower one first")


def positive(instance: object, attribute: Attribute[Any], value: float) -> None:
    """A finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} = {value}: expected a number above 0")


def highest(value: Range) -> float:
    """The number, or the upper bound."""
    return value[1] if isinstance(value, tuple) else float(value)


def trajectories_key(default: int) -> Any:
    """The key `trajectories`."""
    return field(default=default, validator=gt(0), metadata={"help": "number of trajectories"})


def particles_key(default: int) -> Any:
    """The key `particles`."""
    return field(
        default=default,
        validator=ge(4),
        metadata={"help": "particles of the fluid along each axis", "unit": "particles"},
    )


def frames_key(default: int) -> Any:
    """The key `frames`."""
    return field(default=default, validator=ge(2), metadata={"help": "stored times, the first one included"})


def duration_key(default: float) -> Any:
    """The key `duration`."""
    return field(
        default=default, validator=positive, metadata={"help": "from the first frame to the last", "unit": "time"}
    )


def support_key(default: float) -> Any:
    """The key `support`."""
    return field(
        default=default,
        validator=[ge(2.0), le(6.0)],
        metadata={"help": "radius of the kernel, beyond which particles do not interact", "unit": "spacings"},
    )


@frozen(kw_only=True)
class SphSettings:
    """The keys of the scheme, which all simulators of particles have."""

    disorder: float = field(
        default=1.0,
        validator=[ge(0.0), le(2.0)],
        metadata={
            "help": "how far particles are shifted from a lattice before they settle; 0: the lattice",
            "unit": "spacings",
        },
    )
    support: float = support_key(3.5)
    mach: float = field(
        default=0.1,
        validator=[ge(0.01), le(0.3)],
        metadata={"help": "largest speed over the speed of sound; the fluid's density varies by about its square"},
    )
    cfl: float = field(
        default=0.4,
        validator=[ge(0.01), le(0.6)],
        metadata={
            "help": "time step over the time in which sound crosses a spacing h, or over h²/(2ν): the shorter one"
        },
    )
    pressure: bool = field(default=False, metadata={"help": "whether the pressure is stored beside the velocities"})
    seed: int = field(
        default=2022, validator=ge(0), metadata={"help": "seed of all that is drawn; trajectory i has its own draws"}
    )
    device: str = field(
        default="auto", validator=matches_re(r"auto|cpu|cuda(:\d+)?"), metadata={"help": "auto, cpu, cuda or cuda:N"}
    )


def check_reach(particles: int, support: float) -> None:
    """A particle of a periodic box meets no other one twice. Raises ValueError."""
    reach = support + SKIN
    if 2 * reach >= particles:
        needed = math.floor(2 * reach) + 1
        nearest = math.floor(10 * (particles / 2 - SKIN) - 1e-9) / 10
        smaller = f", or support = {nearest:g} at most" if nearest >= 2 else ""
        raise ValueError(
            f"support = {support:g} spacings reach further than half the periodic box of particles = {particles} "
            f"(with {SKIN:g} more for the lists of neighbours); nearest: particles = {needed}{smaller}"
        )
