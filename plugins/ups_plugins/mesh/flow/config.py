"""The keys of the simulator of flow past obstacles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from attrs import Attribute, field, frozen
from attrs.validators import ge, gt, le

from ups_kit import DataError, Field, FieldSpec
from ups_kit.interfaces import Simulator
from ups_kit.simulating.keys import (
    Range,
    bounds,
    duration_key,
    frames_key,
    positive_range,
    seed_key,
    trajectories_key,
)

NEEDED = "the simulator 'obstacle_flow2d' needs scikit-fem: `pip install 'ups_kit[mesh]'`"
SPEED_UNIT, PRESSURE_UNIT = "length / time", "(length / time)^2"  # the pressure is over the density
FEWEST_AROUND = 10  # nodes on an obstacle's border
SPREAD = 0.3  # by which a mesh's number of nodes differs from `points`, at most


def _stretches(instance: object, attribute: Attribute[Any], value: Range) -> None:
    low, high = bounds(value)
    if not 1 <= low <= high <= 3:
        raise ValueError(f"{attribute.name} = {value}: expected a number from 1 to 3, or two, the lower one first")


def _counts(instance: object, attribute: Attribute[Any], value: int | tuple[int, int]) -> None:
    low, high = bounds(value)
    if not 1 <= low <= high <= 8:
        raise ValueError(f"{attribute.name} = {value}: expected a number from 1 to 8, or two, the lower one first")


@frozen(kw_only=True)
class ObstacleFlow2DConfig:
    """Trajectories of flow past random obstacles in a channel, on another triangular mesh each, as a `mesh_zarr` store.

    u_t + (u·∇)u = -∇p + ν ∇²u, ∇·u = 0 in [0, length] × [0, 1] around ellipses: inflow 4 y (1 - y) on the left, u = 0
    on walls and obstacles, free outflow on the right. The first velocity is the inflow led around the obstacles, with
    random eddies in it. Finite elements of second order for the velocity, of first for the pressure (scikit-fem), and
    second-order steps in time. The viscosity is stored for each trajectory as `nu`: 2 r / `reynolds`, r being the
    radius of its largest obstacle.
    """

    tiny: ClassVar[Mapping[str, Any]] = {
        "trajectories": 6,
        "points": 300,
        "frames": 3,
        "duration": 0.1,
        "warmup": 0.02,
        "length": 1.4,
        "obstacles": 1,
        "radius": 0.1,
    }

    trajectories: int = trajectories_key(200)
    points: int = field(default=1000, validator=ge(100), metadata={"help": "nodes of a mesh, about", "unit": "nodes"})
    refinement: float = field(
        default=1.6,
        validator=[ge(1.0), le(8.0)],
        metadata={"help": "longest edges, far from obstacles, over those at obstacles"},
    )
    frames: int = frames_key(21)
    duration: float = duration_key(1.5, "from the first stored time to the last")
    warmup: float = field(
        default=0.2, validator=ge(0.0), metadata={"help": "time solved for before the first frame", "unit": "time"}
    )
    length: float = field(
        default=2.0,
        validator=[ge(1.0), le(10.0)],
        metadata={"help": "of the channel, whose height is 1", "unit": "length"},
    )
    obstacles: int | tuple[int, int] = field(
        default=(1, 3), validator=_counts, metadata={"help": "how many: a number, or [fewest, most] to draw it from"}
    )
    radius: Range = field(
        default=(0.08, 0.13),
        validator=positive_range,
        metadata={
            "help": "of the circle of an obstacle's area: one number, or [low, high] for uniform draws",
            "unit": "length",
        },
    )
    stretch: Range = field(
        default=(1.0, 1.6),
        validator=_stretches,
        metadata={"help": "an obstacle's long axis over its short one: one number, or [low, high] for uniform draws"},
    )
    gap: float = field(
        default=0.15,
        validator=gt(0.0),
        metadata={"help": "the least distance between obstacles, and to the walls", "unit": "length"},
    )
    reynolds: Range = field(
        default=(80.0, 200.0),
        validator=positive_range,
        metadata={
            "help": "Reynolds number by the largest obstacle's 2 r and the inflow's largest speed, 1: one number, or "
            "[low, high] for log-uniform draws"
        },
    )
    eddies: float = field(
        default=0.3,
        validator=ge(0.0),
        metadata={"help": "largest speed in each of the random eddies at first; 0: none", "unit": "length / time"},
    )
    seed: int = seed_key()

    def __attrs_post_init__(self) -> None:
        """Refuse what can be seen to fit no trajectory."""
        largest = bounds(self.radius)[1] * math.sqrt(bounds(self.stretch)[1])
        if 2 * (largest + self.gap) >= 1:
            raise ValueError(
                f"radius = {self.radius} with stretch = {self.stretch} and gap = {self.gap}: expected the largest "
                f"obstacle, {2 * largest:.3g} across, with a gap on either side to fit between walls 1 apart"
            )
        if self.length < self.before + self.behind + 2 * largest:
            raise ValueError(
                f"length = {self.length}: expected at least {self.before + self.behind + 2 * largest:.2f}, which is "
                f"{self.before} before and {self.behind} behind the largest obstacle"
            )
        smallest = bounds(self.radius)[0]
        near = math.sqrt(2 / math.sqrt(3) * self.length / self.points) / self.refinement
        if 2 * math.pi * smallest / near < FEWEST_AROUND:
            needed = 2 / math.sqrt(3) * self.length * (FEWEST_AROUND / (2 * math.pi * smallest * self.refinement)) ** 2
            raise ValueError(
                f"points = {self.points}: expected at least {math.ceil(needed)} for an obstacle of radius {smallest} "
                f"with refinement = {self.refinement}, so that it has {FEWEST_AROUND} nodes on its border"
            )
        if self.gap < 2 * near:
            raise ValueError(
                f"gap = {self.gap}: expected at least two edges of a mesh of {self.points} points, {2 * near:.3g}"
            )

    @property
    def before(self) -> float:
        """Between the inflow and obstacles, at least."""
        return max(0.2, self.gap)

    @property
    def behind(self) -> float:
        """Between obstacles and the outflow, at least."""
        return max(0.5, self.gap)

    @property
    def counts(self) -> tuple[int, int]:
        """The fewest and the most nodes that a mesh may have."""
        return math.floor((1 - SPREAD) * self.points), math.ceil((1 + SPREAD) * self.points)

    def describe(self) -> FieldSpec:
        """What the store will hold. DataError where scikit-fem is not installed, so that no store can be made."""
        if find_spec("skfem") is None:
            raise DataError(NEEDED, key="simulate")
        return FieldSpec(
            targets=(Field("velocity", 2, SPEED_UNIT), Field("pressure", 1, PRESSURE_UNIT)),
            statics=(Field("node_type", 5),),
            domain=((0.0, self.length), (0.0, 1.0)),
            periodic=(False, False),
            layout="mesh",
            grid=None,
            dt=self.duration / (self.frames - 1),
            conditions=("dt", "nu"),
            counts=self.counts,
        )

    def build(self) -> Simulator:
        from .simulation import obstacle_flow2d

        return obstacle_flow2d(self)
