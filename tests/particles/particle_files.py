"""Files of particles in the exact public layouts, and motions that are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

BOX = ((0.0, 1.0), (0.0, 2.0))
METADATA: Mapping[str, Any] = {
    "case": "TGV",
    "solver": "SPH",
    "dim": 2,
    "dx": 0.02,
    "dt": 0.0004,
    "t_end": 5,
    "viscosity": 0.01,
    "write_every": 100,
    "sequence_length_train": 10,
    "num_trajs_train": 3,
    "sequence_length_test": 14,
    "num_trajs_test": 2,
    "num_particles_max": 40,
    "periodic_boundary_conditions": [True, True],
    "bounds": [[0.0, 1.0], [0.0, 2.0]],
    "default_connectivity_radius": 0.029,
    "vel_mean": [0.0, 0.0],
    "vel_std": [1.0, 1.0],
    "acc_mean": [0.0, 0.0],
    "acc_std": [1.0, 1.0],
}
STEP = METADATA["dt"] * METADATA["write_every"]


def wrapped(places: NDArray[Any], box: Sequence[tuple[float, float]] = BOX) -> NDArray[np.float32]:
    low, high = np.array(box).T
    inside = (low + np.mod(places - low, high - low)).astype(np.float32)
    return np.asarray(np.where(inside >= high.astype(np.float32), low.astype(np.float32), inside))


def translated(seed: int, frames: int, count: int, velocity: Any, dt: float = STEP) -> NDArray[np.float32]:
    """Particles (T, N, 2) that move with one velocity through the periodic box."""
    start = np.random.default_rng(seed).uniform([0, 0], [1, 2], (count, 2))
    times = np.arange(frames)[:, None, None] * dt
    return wrapped(start + times * np.asarray(velocity))


def write_lagrangebench(
    folder: Path,
    trajectories: Mapping[str, Sequence[tuple[NDArray[Any], NDArray[Any]]]],
    metadata: Mapping[str, Any] | None = METADATA,
    **creation: Any,
) -> Path:
    """A folder with a file for each of "train", "valid" and "test": positions and types of each trajectory."""
    folder.mkdir(parents=True)
    for name, members in trajectories.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for number, (positions, types) in enumerate(members):
                file.create_dataset(f"{number:05d}/particle_type", data=types)
                file.create_dataset(
                    f"{number:05d}/position", data=positions, dtype=np.float32, **(creation or {"compression": "gzip"})
                )
    if metadata is not None:
        (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def store(folder: Path, samples: int = 6, frames: int = 7, counts: Sequence[int] = (20,), **changed: Any) -> Path:
    """A `particle_zarr` store whose particles move with velocities of their own; `changed` of what all samples have."""
    from ups_kit.data.particle_store import ParticleSample, write_particles

    def sample(number: int) -> ParticleSample:
        generator = np.random.default_rng(number)
        count = counts[number % len(counts)]
        velocity = generator.uniform(-1, 1, (count, 2))
        whole: dict[str, Any] = {
            "positions": translated(number, frames, count, velocity, dt=0.1),
            "time": 0.5 + 0.1 * np.arange(frames),
            "types": generator.integers(0, 3, count),
            "ids": generator.permutation(count),
            "velocities": np.broadcast_to(velocity, (frames, count, 2)).astype(np.float32),
            "fields": {"density": generator.random((frames, count, 1))},
            "statics": {"mass": generator.random((count, 1))},
            "parameters": {"nu": 0.1 * (number + 1)},
        }
        return ParticleSample(**{**whole, **changed})

    path = folder / "particles.zarr"
    write_particles(
        path,
        map(sample, range(samples)),
        domain=BOX,
        periodic=(True, True),
        type_names=("fluid", "wall", "lid"),
        kinematic=(1, 2),
        units={"positions": "m", "time": "s", "density": "kg/m^3"},
    )
    return path


def benchmark(folder: Path, counts: Sequence[int] = (40, 40, 40), velocity: Sequence[float] = (0.9, -1.3)) -> Path:
    """Three train trajectories of 11 frames, and two of 15 frames each of validation and test."""

    def some(first: int, frames: int, number: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        return [
            (translated(first + k, frames, counts[k], velocity), np.zeros(counts[k], np.int64)) for k in range(number)
        ]

    return write_lagrangebench(folder, {"train": some(0, 11, 3), "valid": some(10, 15, 2), "test": some(20, 15, 2)})
