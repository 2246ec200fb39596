"""The tiny data themselves: smooth waves on a grid, on meshes, of particles, all in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ..data.discretisations import grid_axes, grid_points
from ..data.normalisation import Moments, Normaliser
from ..data.splits import Splits, evenly
from ..interfaces import Batch, FieldSpec, PointSet, Trajectories
from .tiny import PLACES, Place

SPLITS = (("validation", 2), ("test", 2))


@frozen(eq=False)
class TinyDataset:
    """Trajectories in memory, as a data set: an `interfaces.Dataset`."""

    fields: FieldSpec
    values: NDArray[np.float32]  # (S, frames, N, C), physical
    statics: NDArray[np.float32]  # (S, N, static channels)
    positions: NDArray[np.float32]  # (S, frames, N, D)
    parameters: NDArray[np.float64]  # (S, P)
    mask: NDArray[np.bool_] | None  # (S, N)
    normaliser: Normaliser
    splits: Splits

    @classmethod
    def made(cls, on: Place, trajectories: int, frames: int, seed: int = 0) -> TinyDataset:
        """The tiny data of this name. `seed` draws which trajectory serves what."""
        fields, draw = PLACES[on], np.random.default_rng(17)
        places, mask = _places(fields, trajectories, draw)
        parameters = np.full((trajectories, len(fields.conditions)), fields.dt)
        if len(fields.conditions) > 1:
            parameters[:, 1] = draw.uniform(0.5, 1.5, trajectories)
        values, positions = _waves(fields, places, 1 if fields.steady else frames, draw)
        statics = (
            np.stack([_wave(fields, places, 0.0, draw) for field in fields.statics], -1)
            if fields.statics
            else (np.empty((*places.shape[:2], 0)))
        )
        if mask is not None:  # what is filled up stands where the first point does, and holds zeros
            values, statics = values * mask[:, None, :, None], statics * mask[..., None]
            positions = np.where(mask[:, None, :, None], positions, positions[:, :, :1])
        splits = _splits(values, seed)
        train = list(splits["train"])
        static_moments = _moments(statics[:, None], mask, train) if fields.statics else None
        normaliser = Normaliser.fitted(fields, _moments(values, mask, train), parameters[train], static_moments)
        return cls(
            fields,
            values.astype(np.float32),
            statics.astype(np.float32),
            positions.astype(np.float32),
            parameters,
            mask,
            normaliser,
            splits,
        )

    def windows(self, split: str, steps: int) -> int:
        """How many windows a split holds; of steady data one for each trajectory."""
        return len(self.splits[split]) * self._starts(steps)

    def _starts(self, steps: int) -> int:
        return 1 if self.fields.steady else max(0, self.values.shape[1] - self.fields.history - steps + 1)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        """The windows with these numbers, normalised."""
        if len(windows) and max(windows) >= self.windows(split, steps):
            raise IndexError(f"window {max(windows)} of {self.windows(split, steps)}")
        order, starts = np.divmod(np.asarray(windows), self._starts(steps))
        ids = np.asarray(self.splits[split])[order]
        newest = starts + max(self.fields.history, 1) - 1
        states = self._states(ids, newest, steps)
        given = [self.normaliser.targets(self._frame(ids, starts + back)) for back in range(self.fields.history)]
        static = self.normaliser.statics(torch.from_numpy(self.statics[ids]))
        mask = None if self.mask is None else torch.from_numpy(self.mask[ids])
        inputs = torch.cat([*given, static], -1)
        if mask is not None:
            states, inputs = states * mask[:, None, :, None], inputs * mask[..., None]
        places = (
            torch.from_numpy(self.positions[ids[:, None], newest[:, None] + np.arange(steps + 1)[None]])
            if (self.fields.moves_with)
            else torch.from_numpy(self.positions[ids, 0])
        )
        first = places[:, 0] if places.dim() == 4 else places
        return Batch(
            inputs=PointSet(first, inputs, mask, self.fields.grid),
            states=states,
            positions=places,
            grid=self.fields.grid,
            condition=self.normaliser.condition(torch.from_numpy(self.parameters[ids])),
            ids=torch.from_numpy(ids),
            times=torch.from_numpy(newest * self.fields.dt),
            mask=mask,
        )

    def _frame(self, ids: NDArray[np.int64], frames: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.values[ids, frames])

    def _states(self, ids: NDArray[np.int64], newest: NDArray[np.int64], steps: int) -> Tensor:
        """(B, 1 + K, N, C); of steady data zeros and the answer."""
        if self.fields.steady:
            answer = self.normaliser.targets(self._frame(ids, newest))
            return torch.stack([torch.zeros_like(answer), *[answer] * steps], 1)
        frames = newest[:, None] + np.arange(steps + 1)[None]
        return self.normaliser.targets(torch.from_numpy(self.values[ids[:, None], frames]))

    def trajectories(self, split: str, limit: int | None = None) -> Trajectories:
        """All trajectories of a split, physical."""
        ids = np.asarray(evenly(self.splits[split], limit))
        fields = self.fields
        positions = self.positions[ids] if fields.moves_with else self.positions[ids, 0]
        return Trajectories(
            values=torch.from_numpy(self.values[ids]),
            statics=torch.from_numpy(self.statics[ids]),
            positions=torch.from_numpy(positions[0] if fields.grid is not None else positions),
            parameters=torch.from_numpy(self.parameters[ids]),
            times=torch.arange(self.values.shape[1]) * fields.dt,
            ids=torch.from_numpy(ids),
            mask=None if self.mask is None else torch.from_numpy(self.mask[ids]),
        )


def _places(
    fields: FieldSpec, trajectories: int, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Where the points of each trajectory are at first, (S, N, D), and which of them are real."""
    if fields.grid is not None:
        points = grid_points(grid_axes(fields.domain, fields.grid, fields.offset))
        return np.repeat(points[None], trajectories, 0), None
    assert fields.counts is not None
    fewest, most = fields.counts
    low, extent = np.array([low for low, _ in fields.domain]), np.array(fields.extent)
    places = low + extent * draw.uniform(0, 1, (trajectories, most, fields.space_dims))
    if fewest == most:
        return places, None
    counts = np.linspace(fewest, most, trajectories).round().astype(int)
    return places, np.arange(most)[None] < counts[:, None]


def _wave(
    fields: FieldSpec, places: NDArray[np.float64], time: float, draw: np.random.Generator
) -> NDArray[np.float64]:
    """One channel (S, N): a wave along each axis, other heights and phases in every trajectory."""
    low, extent = np.array([low for low, _ in fields.domain]), np.array(fields.extent)
    phase = 2 * np.pi * (places - low) / extent
    heights = draw.uniform(0.3, 1.0, (len(places), 1, fields.space_dims))
    shifts = draw.uniform(0, 2 * np.pi, (len(places), 1, fields.space_dims))
    found: NDArray[np.float64] = (heights * np.sin(phase - time + shifts)).sum(-1) + draw.uniform(0.1, 0.4)
    return found


def _waves(
    fields: FieldSpec, places: NDArray[np.float64], frames: int, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (S, frames, N, C) of waves that travel, and where the points are meanwhile (S, frames, N, D)."""
    seeds = draw.integers(2**32, size=fields.target_channels)

    def at(where: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
        return np.stack([_wave(fields, where, 0.3 * frame, np.random.default_rng(seed)) for seed in seeds], -1)

    if not fields.moves_with:
        return np.stack([at(places, frame) for frame in range(frames)], 1), np.repeat(places[:, None], frames, 1)
    values, positions = [at(places, 0)], [places]
    for frame in range(1, frames):  # x_{t+1} = x_t + dt · u_{t+1}
        values.append(at(positions[-1], frame))
        positions.append((positions[-1] + fields.dt * values[-1]) % 1.0)
    return np.stack(values, 1), np.stack(positions, 1)


def _moments(values: NDArray[np.float64], mask: NDArray[np.bool_] | None, train: list[int]) -> Moments:
    real = [values[sample] if mask is None else values[sample][:, mask[sample]] for sample in train]
    return Moments.stacked([Moments.of(each[None]) for each in real]).merged()


def _splits(values: NDArray[np.float64], seed: int) -> Splits:
    order = np.random.default_rng(seed).permutation(len(values)).tolist()
    ids: dict[str, tuple[int, ...]] = {}
    for name, count in SPLITS:
        ids[name], order = tuple(sorted(order[:count])), order[count:]
    ids = {"train": tuple(sorted(order)), **ids}
    hashes: Mapping[int, str] = {
        number: hashlib.sha256(values[number, 0].tobytes()).hexdigest() for number in range(len(values))
    }
    return Splits(ids, hashes)
