"""A dataset over one array of a file, for tests of data workers: processes that are spawned import it by name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from attrs import define

from ups_kit import Batch, DataError, Field, FieldSpec, PointSet
from ups_kit.data.hdf5 import StoredArray, find_array, opened
from ups_kit.fit.batches import TrainingWindows

FRAMES, POINTS = 12, 16


@define(eq=False)
class StoredFrames:
    """Windows of `tensor` (trajectories, frames, points) in one file; `at` may say what happens at a window."""

    values: StoredArray
    at: dict[int, str]

    @property
    def fields(self) -> FieldSpec:
        return FieldSpec((Field("u"),), ((0.0, 1.0),), (True,), "grid", (POINTS,), 0.1)

    def windows(self, split: str, steps: int) -> int:
        return self.values.shape[0] * (FRAMES - steps)

    def batch(self, split: str, windows: np.ndarray, steps: int) -> Batch:
        for window in windows.tolist():
            self._happens(self.at.get(window, ""), window)
        samples, starts = np.divmod(windows, FRAMES - steps)
        states = torch.from_numpy(self.values.gather(samples, starts[:, None] + np.arange(1 + steps)))[..., None]
        positions = torch.linspace(0, 1, POINTS)[None, :, None].expand(len(windows), -1, -1)
        inputs = PointSet(positions, states[:, 0], grid=(POINTS,))
        ids = torch.from_numpy(samples)
        return Batch(inputs, states, positions, (POINTS,), torch.zeros(len(windows), 1), ids, ids.float())

    def _happens(self, what: str, window: int) -> None:
        if what == "data error":
            raise DataError(f"{self.values.path}: window {window} holds nonsense", "path")
        if what == "odd error":
            raise ZeroDivisionError(f"window {window}")
        if what == "error that does not pickle":
            raise OddError(window, lambda: None)
        if what == "no room":
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device")


class OddError(Exception):
    """One with a function inside, and arguments that its message is not made of."""

    def __init__(self, window: int, function: object) -> None:
        super().__init__(f"odd window {window}")
        self.function = function


def stored_frames(path: Path, chunked: bool = False, samples: int = 5, **at: int) -> StoredFrames:
    """Write a file of noise, and open it; `at` names what happens by window: `data_error=17`."""
    values = np.random.default_rng(0).standard_normal((samples, FRAMES, POINTS), np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", data=values, **({"chunks": (1, 5, POINTS)} if chunked else {}))
    with opened(path) as file:
        array = StoredArray.of(find_array(file, "tensor"))
    return StoredFrames(array, {window: what.replace("_", " ") for what, window in at.items()})


def training_windows(dataset: StoredFrames, workers: int = 0, start: str = "fork") -> TrainingWindows:
    """Its train split as a stage reads it: batches of 8 with 2 steps, shifted."""
    return TrainingWindows(
        dataset=dataset,  # type: ignore[arg-type]  # what a source of batches calls, and no more
        steps=2,
        batch=8,
        seed=3,
        stage="toy",
        shift=True,
        device=torch.device("cpu"),
        workers=workers,
        worker_start=start,  # type: ignore[arg-type]
    )
