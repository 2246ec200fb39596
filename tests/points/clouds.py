"""Trajectories on points that are made up, in memory: a stand-in for a format's source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from ups_kit import Field
from ups_kit.data.points.settings import PointSettings
from ups_kit.data.points.source import PointSource


@frozen(eq=False)
class Cloud:
    """Waves on random points in the unit square; points drift with a velocity of their own where they move."""

    counts: NDArray[np.int64]
    frames: NDArray[np.int64]
    moves: bool = False
    steady: bool = False
    broken: tuple[tuple[int, int, int], ...] = ()  # sample, frame, point of a NaN
    twins: tuple[tuple[int, int], ...] = ()  # samples that begin as another does
    splits: tuple[str | None, ...] | None = None
    layout: str = "particles"
    periodic: tuple[bool, ...] = (False, False)
    dt: float = 0.1
    conditions: tuple[str, ...] = ("nu", "angle")
    domain: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.0, 1.0))
    fingerprint: str = "made up"

    @property
    def targets(self) -> tuple[Field, ...]:
        return (Field("velocity", 2, "m/s"), Field("height"))

    @property
    def statics(self) -> tuple[Field, ...]:
        return (Field("depth"),)

    @property
    def moves_with(self) -> str | None:
        return "velocity" if self.moves else None

    @property
    def parameters(self) -> NDArray[np.float64]:
        every = np.arange(len(self.counts), dtype=np.float64)
        return np.stack([0.1 + every, every % 3], 1)

    def times(self, number: int) -> NDArray[np.float64]:
        return 5.0 + self.dt * np.arange(self.frames[number])

    def _begin(self, number: int) -> NDArray[np.float32]:
        seed = [7, dict(self.twins).get(number, number)]
        return np.random.default_rng(seed).random((int(self.counts[number]), 2), np.float32)

    def positions(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        start = self._begin(number)
        if not self.moves:
            return start
        drift = np.sin(7 * start)
        return (start[None] + self.dt * frames[:, None, None] * drift[None]).astype(np.float32)

    def values(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        start = self._begin(number)
        velocity = np.broadcast_to(np.sin(7 * start), (len(frames), *start.shape))
        height = np.sin(3 * start.sum(1) + 0.4 * frames[:, None] + dict(self.twins).get(number, number))
        result = np.concatenate([velocity, height[..., None]], -1).astype(np.float32)
        for sample, frame, point in self.broken:
            if sample == number and frame in frames:
                result[int(np.flatnonzero(frames == frame)[0]), point, 2] = np.nan
        return result

    def given(self, number: int) -> NDArray[np.float32]:
        return self._begin(number)[:, :1] ** 2

    def weights(self, number: int) -> NDArray[np.float32] | None:
        return np.full(int(self.counts[number]), 1 / float(self.counts[number]), np.float32)

    def cells(self, number: int) -> NDArray[np.int64] | None:
        return None

    def where(self, number: int) -> str:
        return f"cloud, sample {number}"

    def split_of(self, number: int) -> str | None:
        return self.splits[number] if self.splits else None


@frozen(kw_only=True)
class CloudConfig(PointSettings):
    cloud: Cloud = field(factory=lambda: cloud())
    others: Cloud | None = None  # what lies at `test_path`

    def open_source(self, path: Path) -> PointSource:
        found = self.others if path.name == "others" and self.others is not None else self.cloud
        return evolve(found, frames=(found.frames - self.first_frame + self.time_stride - 1) // self.time_stride)


def cloud(samples: int = 12, even: bool = False, **keys: object) -> Cloud:
    every = np.arange(samples, dtype=np.int64)
    counts = np.full(samples, 20, np.int64) if even else 15 + every % 5
    frames = np.full(samples, 6, np.int64) if even else 6 + every % 3
    return Cloud(counts, frames, **keys)  # type: ignore[arg-type]


def dataset(tmp_path: Path, found: Cloud, **keys: object):  # type: ignore[no-untyped-def]
    (tmp_path / "cloud").touch()
    (tmp_path / "others").touch()
    settings = {"path": tmp_path / "cloud", "validation": 2, "test": 3, **keys}
    return CloudConfig(cloud=found, **settings).build(seed=0)  # type: ignore[arg-type]
