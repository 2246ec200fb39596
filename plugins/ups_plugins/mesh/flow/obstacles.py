"""Obstacles in a channel: ellipses that are drawn, what lies how far from them, and points on their borders."""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError

Range = float | tuple[float, float]
Places = NDArray[np.float64]  # (…, 2)
TRIES = 2000  # of places for all obstacles of a trajectory
SEEN = 96  # points of a border that distances between obstacles are measured by


@frozen
class Obstacle:
    """An ellipse: its centre, its half axes, and the angle of the first one to the channel's direction."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float = 0.0

    @property
    def size(self) -> float:
        """The radius of the circle of the same area."""
        return math.sqrt(self.axes[0] * self.axes[1])

    def border(self, angles: NDArray[np.float64]) -> Places:
        """The border's points at these parameters in [0, 2π), (…, 2)."""
        along, across = self.axes[0] * np.cos(angles), self.axes[1] * np.sin(angles)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x = self.centre[0] + cosine * along - sine * across
        y = self.centre[1] + sine * along + cosine * across
        return np.stack([x, y], -1)

    def distance(self, places: Places) -> NDArray[np.float64]:
        """Distance to the border (…,), negative inside: exact for a circle, else to first order in the distance."""
        x, y = places[..., 0] - self.centre[0], places[..., 1] - self.centre[1]
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        along = (cosine * x + sine * y) / self.axes[0]
        across = (cosine * y - sine * x) / self.axes[1]
        level = np.hypot(along, across)
        slope = np.hypot(along / self.axes[0], across / self.axes[1])
        # at the centre itself both vanish
        return np.where(slope > 0, level * (level - 1) / np.maximum(slope, 1e-300), -min(self.axes))


def distance_to(obstacles: tuple[Obstacle, ...], places: Places) -> NDArray[np.float64]:
    """Distance to the nearest border (…,), infinite where there are no obstacles."""
    nearest = np.full(places.shape[:-1], np.inf)
    for obstacle in obstacles:
        nearest = np.minimum(nearest, obstacle.distance(places))
    return nearest


@frozen
class Room:
    """Where obstacles may stand: a channel [0, length] × [0, 1], and what is left free around each of them."""

    length: float
    gap: float  # between obstacles, and to the walls
    before: float  # from the inflow
    behind: float  # to the outflow

    def draw(
        self, count: int, radius: Range, stretch: Range, generator: np.random.Generator, name: str
    ) -> tuple[Obstacle, ...]:
        """Obstacles that keep their gaps: all are drawn anew until they do. DataError, with `name`, where they do not
        fit.
        """
        for _ in range(TRIES):
            found: list[Obstacle] = []
            while len(found) < count and (one := self._draw_one(radius, stretch, generator)):
                if any(_apart(one, other) < self.gap for other in found):
                    break
                found.append(one)
            if len(found) == count:
                return tuple(found)
        raise DataError(
            f"{name}: {count} obstacles with radius = {radius} and stretch = {stretch} do not fit into the channel of "
            f"length {self.length:g} and height 1 with gap = {self.gap:g} between them and to the walls; take fewer or "
            "smaller ones, a smaller gap, or a longer channel",
            key="simulate.obstacles",
        )

    def _draw_one(self, radius: Range, stretch: Range, generator: np.random.Generator) -> Obstacle | None:
        """An obstacle of its own, always by the same number of draws; None where its size leaves no place for it."""
        share = generator.random(5)
        size, ratio = between(radius, share[0]), between(stretch, share[1])
        axes = (size * math.sqrt(ratio), size / math.sqrt(ratio))
        angle = math.pi * share[2]
        half_x = math.hypot(axes[0] * math.cos(angle), axes[1] * math.sin(angle))
        half_y = math.hypot(axes[0] * math.sin(angle), axes[1] * math.cos(angle))
        low_x, high_x = self.before + half_x, self.length - self.behind - half_x
        low_y, high_y = self.gap + half_y, 1 - self.gap - half_y
        if low_x > high_x or low_y > high_y:
            return None
        centre = (low_x + (high_x - low_x) * share[3], low_y + (high_y - low_y) * share[4])
        return Obstacle(centre, axes, angle)


def between(bounds: Range, share: float) -> float:
    """The number, or the one that lies at this share between the two."""
    return bounds[0] + (bounds[1] - bounds[0]) * share if isinstance(bounds, tuple) else float(bounds)


def _apart(one: Obstacle, other: Obstacle) -> float:
    """The least distance between two borders."""
    angles = 2 * np.pi * np.arange(SEEN) / SEEN
    first, second = one.border(angles), other.border(angles)
    apart = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
    inside = one.distance(second).min() < 0 or other.distance(first).min() < 0
    return 0.0 if inside else float(apart)
