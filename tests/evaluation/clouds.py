"""Stand-ins on scattered points: fields on meshes that differ, particles in flows, and models that know the answer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import Delaunay
from torch import Tensor, nn

from ups_kit.interfaces import Batch, Field, FieldSpec, Latent, PointSet, Queries, Trajectories
from ups_kit.model import LatentModel

from .conftest import Scaling

DT, FRAMES = 0.1, 25
COUNTS = (60, 41, 75, 52)


class Statics(Scaling):
    """The same, for static fields shifted and scaled."""

    def statics(self, values: Tensor) -> Tensor:
        return (values - 0.3) / 0.5


class Clouds:
    """Trajectories on points of their own, filled up at the end with what must not matter."""

    def __init__(self, fields: FieldSpec, values: list[Tensor], places: list[Tensor], statics: list[Tensor]) -> None:
        self.fields, self.normaliser = fields, Statics()
        self.splits = dict.fromkeys(("train", "validation", "test"), tuple(range(len(values))))
        self.values, self.places, self.statics = values, places, statics
        self.weights: list[Tensor] | None = None
        self.garbage = 0.0

    def cells(self, trajectory: int) -> np.ndarray | None:
        if self.fields.moves_with is not None or self.fields.space_dims != 2:
            return None
        return np.asarray(Delaunay(self.places[trajectory].numpy()).simplices)

    def only(self, number: int) -> Clouds:
        """One trajectory alone, without any padding."""
        part = slice(number, number + 1)
        alone = Clouds(self.fields, self.values[part], self.places[part], self.statics[part])
        alone.weights = None if self.weights is None else self.weights[part]
        return alone

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        samples, counts = len(self.values), [values.shape[1] for values in self.values]
        most = max(counts)
        mask = torch.arange(most) < torch.tensor(counts)[:, None]
        parameters = torch.stack([torch.full((samples,), DT), torch.arange(samples) / 10], 1)
        return Trajectories(
            torch.stack([filled(values, most, 1, self.garbage) for values in self.values]),
            torch.stack([filled(values, most, 0, self.garbage) for values in self.statics]),
            torch.stack([filled(places, most, places.dim() - 2, 0.5) for places in self.places]),
            parameters[:, : len(self.fields.conditions)],
            DT * torch.arange(len(self.values[0])),
            torch.arange(samples),
            None if min(counts) == most else mask,
            None if self.weights is None else torch.stack([filled(own, most, 0, 0.0) for own in self.weights]),
        )

    def windows(self, split: str, steps: int) -> int:
        return len(self.values) * max(0, len(self.values[0]) - max(self.fields.history, 1) - steps + 1)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        held, history = self.trajectories(split), self.fields.history
        each = len(held.times) - history - steps + 1
        sample, start = torch.from_numpy(windows // each), torch.from_numpy(windows % each)
        frames = self.normaliser.targets(
            torch.stack([held.values[sample, start + k] for k in range(history + steps)], 1)
        )
        places = held.positions[sample]
        if self.fields.moves_with is not None:
            places = torch.stack([held.positions[sample, start + k] for k in range(history + steps)], 1)[
                :, history - 1 :
            ]
        inputs = torch.cat([*frames[:, :history].unbind(1), self.normaliser.statics(held.statics[sample])], -1)
        mask = None if held.mask is None else held.mask[sample]
        first = places if places.dim() == 3 else places[:, 0]
        condition, times = held.parameters[sample], DT * (start + history - 1).float()
        return Batch(
            PointSet(first, inputs, mask), frames[:, history - 1 :], places, None, condition, sample, times, mask=mask
        )


def filled(values: Tensor, count: int, axis: int, with_: float) -> Tensor:
    """Values with so many points along an axis, new ones at the end."""
    shape = list(values.shape)
    shape[axis] = count - shape[axis]
    return torch.cat([values, torch.full(shape, with_)], axis)


Law = Callable[[Tensor, Tensor], Tensor]  # places (…, N, D) and times (…,) to physical fields (…, N, C)


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))


class Reading(Part):
    """Reads the time off the newest frame's last channel, which holds it: the mean over the real points."""

    def __init__(self, fields: FieldSpec) -> None:
        super().__init__()
        self.newest = fields.history * fields.target_channels - 1

    def forward(self, points: PointSet) -> Latent:
        assert points.condition is not None
        values = points.values[..., self.newest]
        real = torch.ones_like(values) if points.mask is None else points.mask.float()
        time = 2 + 3 * (values * real).sum(1) / real.sum(1)
        return Latent(self.factor * time[:, None, None].expand(-1, 6, 1), None)


class Ticking(Part):
    """One time step, or a little more or less."""

    def __init__(self, drift: float) -> None:
        super().__init__()
        self.drift = drift

    def forward(self, latent: Latent, condition: Tensor) -> Latent:
        return latent._replace(tokens=latent.tokens + self.factor * (DT + self.drift))


class Knowing(Part):
    """The fields of a law at any place, at the time that the latent holds."""

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.law = law

    def forward(self, latent: Latent, queries: Queries) -> Tensor:
        return (self.factor * self.law(queries.positions, latent.tokens.mean((1, 2))) - 2) / 3


def knowing(fields: FieldSpec, law: Law, drift: float = 0.0) -> LatentModel:
    """A model that knows the law of its data; with `drift`, its clock is wrong by so much a step."""
    return LatentModel(Reading(fields), Ticking(drift), Knowing(law), fields)


# ---------------------------------------------------------------------------------------------------------------------
# Fields on meshes
# ---------------------------------------------------------------------------------------------------------------------
def ripple(places: Tensor, time: Tensor) -> Tensor:
    """A wave over the unit square, and the time."""
    phase = 2 * math.pi * (places[..., 0] + 0.5 * places[..., -1]) - 3 * time[..., None]
    return torch.stack([1.5 + phase.sin(), time[..., None].expand_as(phase)], -1)


def mesh(dims: int = 2, steady: bool = False, counts: tuple[int, ...] = COUNTS) -> Clouds:
    """A wave on random points, their numbers as given; with their areas, from a rule that is exact for constants."""
    generator = torch.Generator().manual_seed(1)
    fields = FieldSpec(
        (Field("u", unit="m/s"), Field("clock")),
        ((0.0, 1.0),) * dims,
        (False,) * dims,
        "mesh",
        None,
        DT,
        (Field("depth"),),
        0 if steady else 2,
        ("dt", "speed"),
        counts=(min(counts), max(counts)),
    )
    places = [torch.rand(count, dims, generator=generator) for count in counts]
    times = DT * torch.arange(1 if steady else FRAMES)
    values = [ripple(own.expand(len(times), -1, -1), times) for own in places]
    found = Clouds(fields, values, places, [torch.rand(count, 1, generator=generator) for count in counts])
    found.weights = [torch.full((count,), 1 / count) for count in counts]
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Particles
# ---------------------------------------------------------------------------------------------------------------------
ANGLE = 0.05  # of a turn within one step


def rotation(places: Tensor, time: Tensor) -> Tensor:
    """The velocity with which points have come that turn about the middle of the unit square; and the time."""
    turn = torch.tensor([[math.cos(ANGLE), math.sin(ANGLE)], [-math.sin(ANGLE), math.cos(ANGLE)]])
    velocity = ((places - 0.5) - (places - 0.5) @ turn.T) / DT
    return torch.cat([velocity, time[..., None, None].expand_as(velocity[..., :1])], -1)


def wind(places: Tensor, time: Tensor) -> Tensor:
    """A velocity that is the same everywhere, and always; and the time."""
    velocity = torch.tensor([0.73, -0.41]).expand(*places.shape[:-1], 2)
    return torch.cat([velocity, time[..., None, None].expand_as(velocity[..., :1])], -1)


def particles(law: Law, periodic: bool, walls: int = 0, counts: tuple[int, ...] = COUNTS) -> Clouds:
    """Points that move with a law; the last `walls` of each trajectory stand still, and are marked."""
    statics = (Field("kinematic"),) if walls else ()
    fields = FieldSpec(
        (Field("velocity", 2, "m/s"), Field("clock")),
        ((0.0, 1.0),) * 2,
        (periodic,) * 2,
        "particles",
        None,
        DT,
        statics,
        2,
        ("dt",),
        counts=(min(counts), max(counts)),
        moves_with="velocity",
    )
    generator = torch.Generator().manual_seed(2)
    all_places, all_values, marks = [], [], []
    for count in counts:
        start = 0.5 + 0.3 * (torch.rand(count, 2, generator=generator).double() - 0.5)
        frames, values = [], []
        for frame in range(FRAMES):
            now = _carried(start, law, frame)
            velocity = (now - _carried(start, law, frame - 1)) / DT
            if walls:
                now[-walls:], velocity[-walls:] = start[-walls:], 0.0
            frames.append((now % 1 if periodic else now).float())
            values.append(torch.cat([velocity.float(), torch.full((count, 1), DT * frame)], -1))
        all_places.append(torch.stack(frames))
        all_values.append(torch.stack(values))
        marks.append((torch.arange(count) >= count - walls).float()[:, None] if walls else torch.zeros(count, 0))
    return Clouds(fields, all_values, all_places, marks)


def _carried(start: Tensor, law: Law, frame: int) -> Tensor:
    """Places after so many steps, without any wrapping, in double precision."""
    if law is wind:
        return start + frame * DT * torch.tensor([0.73, -0.41]).double()
    angle = torch.tensor(frame * ANGLE).double()
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return 0.5 + (start - 0.5) @ turn.T
