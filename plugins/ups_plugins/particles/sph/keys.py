"""Keys and checks that the simulators of particles share."""

from __future__ import annotations

import math
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, le

from ups_kit.simulating.keys import device_key, seed_key

NU_HELP = "viscosity: one number, or [low, high] for log-uniform draws"
SPEED_HELP = "U, the largest speed at first: one number, or [low, high] for uniform draws"
SPAN_HELP = "from the first frame to the last"
SKIN = 0.3  # how much further than the kernel a list of neighbours reaches, in spacings


def particles_key(default: int, most: int) -> Any:
    """The key `particles`."""
    return field(
        default=default,
        validator=[ge(4), le(most)],
        metadata={"help": "particles of the fluid along each axis", "unit": "particles"},
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
    seed: int = seed_key()
    device: str = device_key()


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
