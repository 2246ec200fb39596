"""Random pairs (t, t + 1) of trajectories from a file.

    python benchmarks/reading.py [--megabytes 128] [--batch 64] [--folder FOLDER]

Writes one array [trajectories, 201, 1024] float32 as contiguous HDF5, chunked HDF5 and Zarr, and reads batches of
random pairs: a plain memory map, our reader, the dataset that a training uses, and libraries asked sample by sample.
All readers take turns in one process, each with pairs of its own, from a warm page cache. Prints pairs per CPU second,
ratios, the time to open the file and the memory that stays with the process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from measure import alternate, print_table
from ups_kit.data.hdf5 import StoredArray, find_array, opened
from ups_plugins.grid.config import PDEBenchConfig

FRAMES, POINTS = 201, 1024
CHUNKS = (1, 32, POINTS)
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]  # trajectories (B,), frames (B, 2)
Read = Callable[[Batch], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=128, help="size of the array")
    parser.add_argument("--batch", type=int, default=64, help="pairs in a batch")
    parser.add_argument("--batches", type=int, default=20, help="batches that a reader reads in one turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each reader")
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder if not given")
    parser.add_argument("--quick", action="store_true", help="a small file and few rounds: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.batches, options.rounds = 16, 2, 2
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        trajectories = write(Path(folder), options.megabytes)
        measure(Path(folder), trajectories, options)


def write(folder: Path, megabytes: int) -> int:
    """Write the three files; returns the number of trajectories."""
    trajectories = max(8, megabytes * 10**6 // (4 * FRAMES * POINTS))
    generator = np.random.default_rng(0)
    shape = (trajectories, FRAMES, POINTS)
    store = zarr.create_array(folder / "pairs.zarr", shape=shape, chunks=CHUNKS, dtype="f4", compressors=None)
    with h5py.File(folder / "contiguous.h5", "w") as plain, h5py.File(folder / "chunked.h5", "w") as chunked:
        for file, chunks in ((plain, None), (chunked, CHUNKS)):
            file.create_dataset("tensor", shape, "f4", chunks=chunks)
            file["x-coordinate"] = (np.arange(POINTS) + 0.5) / POINTS
            file["t-coordinate"] = 0.01 * np.arange(FRAMES + 1)
        for trajectory in range(trajectories):
            values = generator.standard_normal(shape[1:], dtype=np.float32)
            for target in (plain["tensor"], chunked["tensor"], store):
                target[trajectory] = values
    return trajectories


def measure(folder: Path, trajectories: int, options: argparse.Namespace) -> None:
    before = private_megabytes()
    started = time.perf_counter()
    contiguous = stored(folder / "contiguous.h5")
    opening = time.perf_counter() - started
    chunked = stored(folder / "chunked.h5")
    for batch in draw(0, trajectories, options.batch, options.batches):
        contiguous.gather(*batch)
        chunked.gather(*batch)
    kept = private_megabytes() - before
    readers = {
        "memory map, one gather": mapped(folder / "contiguous.h5"),
        "ours, contiguous HDF5": lambda batch: contiguous.gather(*batch),
        "ours, chunked HDF5": lambda batch: chunked.gather(*batch),
        "h5py sample by sample, contiguous": one_by_one(h5py.File(folder / "contiguous.h5")["tensor"]),
        "h5py sample by sample, chunked": one_by_one(h5py.File(folder / "chunked.h5")["tensor"]),
        "zarr sample by sample": one_by_one(zarr.open_array(folder / "pairs.zarr", mode="r")),
        "dataset, contiguous: normalised tensors": training(folder / "contiguous.h5", trajectories),
    }
    turns = {
        name: turn(read, draw(seed, trajectories, options.batch, options.batches))
        for seed, (name, read) in enumerate(readers.items(), start=1)
    }
    timings = alternate(turns, options.rounds)
    rates = {name: options.batch * options.batches / timing.cpu for name, timing in timings.items()}
    references = ("memory map, one gather", "h5py sample by sample, contiguous", "zarr sample by sample")
    rows = [
        [name, f"{rate:,.0f}", *(f"{rate / rates[other]:.2f}" for other in references)] for name, rate in rates.items()
    ]
    size = 4e-6 * trajectories * FRAMES * POINTS
    print_table(
        f"Random pairs from [{trajectories}, {FRAMES}, {POINTS}] float32, {size:.0f} MB, batches of {options.batch}",
        ("reader", "pairs/CPU s", "/ memory map", "/ h5py one by one", "/ zarr one by one"),
        rows,
    )
    print(f"\nopening: {1e3 * opening:.1f} ms; private memory after reading both HDF5 files: {kept:.1f} MB")


def draw(seed: int, trajectories: int, batch: int, batches: int) -> list[Batch]:
    """Batches of random pairs."""
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(0, trajectories, batch), generator.integers(0, FRAMES - 1, batch)[:, None] + np.arange(2))
        for _ in range(batches)
    ]


def turn(read: Read, batches: list[Batch]) -> Callable[[], object]:
    return lambda: [read(batch) for batch in batches]


def stored(path: Path) -> StoredArray:
    with opened(path) as file:
        return StoredArray.of(find_array(file, "tensor"))


def mapped(path: Path) -> Read:
    """The fastest plain way: numpy's memory map of the values, all pairs of a batch in one gather."""
    with h5py.File(path) as file:
        tensor = file["tensor"]
        values = np.asarray(np.memmap(path, tensor.dtype, "r", tensor.id.get_offset(), tensor.shape))
    return lambda batch: values[batch[0][:, None], batch[1]]


def one_by_one(array: Any) -> Read:
    """Each pair by a call of its own, as a plain `Dataset.__getitem__` does."""

    def read(batch: Batch) -> object:
        samples, frames = batch
        return np.stack([array[int(s), int(f[0]) : int(f[-1]) + 1] for s, f in zip(samples, frames)])

    return read


def training(path: Path, trajectories: int) -> Read:
    """What a training step gets: windows by number, normalised, as tensors."""
    dataset = PDEBenchConfig(path=path, validation=1, test=1).build(0)
    total = dataset.windows("train", 1)
    return lambda batch: dataset.batch("train", (batch[0] * (FRAMES - 1) + batch[1][:, 0]) % total, 1)


def private_megabytes() -> float:
    """Memory of this process that belongs to no file."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
