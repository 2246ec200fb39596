"""Random pairs (t, t + 1) of trajectories from files, as a training asks for them.

    python benchmarks/data.py [--megabytes 1030] [--batch 64] [--folder FOLDER]
    python benchmarks/data.py --memory 8

Writes one array [trajectories, 201, 1024] float32 as contiguous HDF5, chunked HDF5, a Zarr store of plain chunks, and a
`grid_zarr` store (shards, zstd), and reads batches of random pairs: a plain memory map, our readers, the dataset that a
training uses, and libraries asked sample by sample. All readers take turns in one process, each with pairs of its own,
from a warm page cache. Prints pairs per CPU second, ratios beside their goals, the time to open a file, and the memory
that stays with the process. `--memory` reads from a file of so many gigabytes instead: a hole, which takes no disk.

Private memory is what belongs to this process alone and to no file (Private_Dirty in /proc/self/smaps_rollup). Pages
of a mapped file are told beside it: they are the kernel's cache, which it takes back when somebody needs memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray

from measure import alternate, print_table
from ups_kit.data.grid_store import GridStore, write_grid_store
from ups_kit.data.hdf5 import StoredArray, find_array, opened
from ups_kit.data.zarr_store import ZarrStore
from ups_plugins.grid.config import PDEBenchConfig

FRAMES, POINTS = 201, 1024
CHUNKS = (1, 32, POINTS)
FILES = 4  # of the array's size each
SPACE, TIME = (np.arange(POINTS) + 0.5) / POINTS, 0.01 * np.arange(FRAMES + 1)
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]  # trajectories (B,), frames (B, 2)
Read = Callable[[Batch], object]

MAPPED, BY_H5PY, BY_ZARR = "memory map, one gather", "h5py sample by sample, contiguous", "zarr sample by sample, plain"
GOALS = (
    ("ours, contiguous HDF5", MAPPED, 0.8),
    ("ours, contiguous HDF5", BY_H5PY, 10),
    ("ours, chunked HDF5", BY_ZARR, 10),
    ("ours, Zarr, plain", BY_ZARR, 10),
    ("ours, Zarr, sharded", "zarr sample by sample, sharded", 10),
)
OPENING, PRIVATE = 50.0, 100.0  # ms, MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1030, help="size of the array: 1250 trajectories if not given")
    parser.add_argument("--batch", type=int, default=64, help="pairs in a batch")
    parser.add_argument("--batches", type=int, default=20, help="batches that a reader reads in one turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each reader")
    parser.add_argument("--memory", type=float, metavar="GB", help="memory alone, with a file of so many gigabytes")
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder if not given")
    parser.add_argument("--quick", action="store_true", help="a small file and few rounds: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.megabytes, options.batches, options.rounds = 16, 2, 2
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.memory:
            memory_of_a_large_file(folder, options)
            return
        trajectories = write(folder, megabytes_that_fit(folder, options.megabytes))
        opening_and_memory(folder, trajectories, options)
        rates(folder, trajectories, options)


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------
def megabytes_that_fit(folder: Path, wanted: int) -> int:
    """The size of the array, smaller where the disk has no room for all files of it."""
    room = int(0.8 * shutil.disk_usage(folder).free / 1e6 / FILES)
    if room < wanted:
        print(f"the disk has room for {FILES} files of {room} MB, not {wanted} MB")
    return min(room, wanted)


def write(folder: Path, megabytes: int) -> int:
    """Write the files; returns the number of trajectories."""
    trajectories = max(8, round(megabytes * 1e6 / (4 * FRAMES * POINTS)))
    shape = (trajectories, FRAMES, POINTS)
    plain = zarr.create_array(folder / "plain.zarr", name="u", shape=shape, chunks=CHUNKS, dtype="f4", compressors=None)
    with h5py.File(folder / "contiguous.h5", "w") as contiguous, h5py.File(folder / "chunked.h5", "w") as chunked:
        for file, chunks in ((contiguous, None), (chunked, CHUNKS)):
            file.create_dataset("tensor", shape, "f4", chunks=chunks)
            file["x-coordinate"], file["t-coordinate"] = SPACE, TIME
        for trajectory, values in enumerate(waves(trajectories)):
            for target in (contiguous["tensor"], chunked["tensor"], plain):
                target[trajectory] = values
        store = GridStore(trajectories=trajectories, axes={"x": SPACE}, times=TIME[:FRAMES], fields={"u": 1})
        tensor = contiguous["tensor"]
        write_grid_store(
            folder / "sharded.zarr", store, lambda kind, name, samples, frames: tensor[samples, frames][..., None]
        )
    os.sync()  # the kernel counts mapped pages that are not on the disk yet as this process's own
    return trajectories


def waves(trajectories: int) -> Iterator[NDArray[np.float32]]:
    """Smooth random fields (frames, points): compression sees what it sees in data."""
    generator = np.random.default_rng(0)
    modes = np.arange(1, 9)
    space = np.exp(2j * np.pi * np.outer(modes, SPACE))
    for _ in range(trajectories):
        speed, phase = generator.normal(size=(2, len(modes)))
        weights = generator.normal(size=len(modes)) / modes * np.exp(1j * (np.outer(TIME[:FRAMES], 9 * speed) + phase))
        yield (weights @ space).real.astype(np.float32)


def draw(seed: int, trajectories: int, batch: int, batches: int) -> list[Batch]:
    """Batches of random pairs."""
    generator = np.random.default_rng(seed)
    return [
        (generator.integers(0, trajectories, batch), generator.integers(0, FRAMES - 1, batch)[:, None] + np.arange(2))
        for _ in range(batches)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Rates
# ---------------------------------------------------------------------------------------------------------------------
def rates(folder: Path, trajectories: int, options: argparse.Namespace) -> None:
    """Time all readers in turn, and print what came of it."""
    turns = {
        name: turn(read, draw(seed, trajectories, options.batch, options.batches))
        for seed, (name, read) in enumerate(readers(folder, trajectories).items(), start=1)
    }
    timings = alternate(turns, options.rounds)
    pairs = options.batch * options.batches
    found = {name: pairs / timing.cpu for name, timing in timings.items()}
    rows = [
        [
            name,
            f"{rate:,.0f}",
            f"{pairs / timings[name].wall:,.0f}",
            *(f"{rate / found[other]:.2f}" for other in (MAPPED, BY_H5PY, BY_ZARR)),
        ]
        for name, rate in found.items()
    ]
    size = 4e-6 * trajectories * FRAMES * POINTS
    print_table(
        f"Random pairs from [{trajectories}, {FRAMES}, {POINTS}] float32, {size:.0f} MB, batches of {options.batch}",
        ("reader", "pairs/CPU s", "pairs/s", "/ memory map", "/ h5py one by one", "/ zarr one by one"),
        rows,
    )
    goals = [(f"{name} / {other}", f"{found[name] / found[other]:.2f}", f"{goal:g}") for name, other, goal in GOALS]
    print_table("Goals", ("ratio", "found", "at least"), [list(row) for row in goals])


def readers(folder: Path, trajectories: int) -> dict[str, Read]:
    """All readers by name, opened."""
    contiguous, chunked = stored(folder / "contiguous.h5"), stored(folder / "chunked.h5")
    plain = ZarrStore.open(folder / "plain.zarr").array("u")
    sharded = ZarrStore.open(folder / "sharded.zarr").array("fields/u")
    return {
        MAPPED: mapped(folder / "contiguous.h5"),
        "ours, contiguous HDF5": lambda batch: contiguous.gather(*batch),
        "ours, chunked HDF5": lambda batch: chunked.gather(*batch),
        "ours, Zarr, plain": lambda batch: plain.gather(*batch),
        "ours, Zarr, sharded": lambda batch: sharded.gather(*batch),
        BY_H5PY: one_by_one(h5py.File(folder / "contiguous.h5")["tensor"]),
        "h5py sample by sample, chunked": one_by_one(h5py.File(folder / "chunked.h5")["tensor"]),
        BY_ZARR: one_by_one(zarr.open_array(folder / "plain.zarr", path="u", mode="r")),
        "zarr sample by sample, sharded": one_by_one(
            zarr.open_array(folder / "sharded.zarr", path="fields/u", mode="r")
        ),
        "dataset, contiguous: normalised tensors": training(folder / "contiguous.h5", trajectories),
    }


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


# ---------------------------------------------------------------------------------------------------------------------
# Opening and memory
# ---------------------------------------------------------------------------------------------------------------------
class Memory(NamedTuple):
    """Megabytes of this process."""

    private: float  # its own, of no file
    mapped: float  # pages of files, which the kernel may take back


def memory() -> Memory:
    """What the kernel counts for this process now."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(kilobytes["Private_Dirty"] / 1e3, (kilobytes["Private_Clean"] + kilobytes["Shared_Clean"]) / 1e3)


def opening_and_memory(folder: Path, trajectories: int, options: argparse.Namespace) -> None:
    """What it takes to open each format, and to read from it: before any other reader has touched the process."""
    ways: dict[str, Callable[[], Any]] = {
        "contiguous HDF5": lambda: stored(folder / "contiguous.h5"),
        "chunked HDF5": lambda: stored(folder / "chunked.h5"),
        "Zarr, plain": lambda: ZarrStore.open(folder / "plain.zarr").array("u"),
        "Zarr, sharded": lambda: ZarrStore.open(folder / "sharded.zarr").array("fields/u"),
    }
    rows = []
    for name, way in ways.items():
        before, started = memory(), time.perf_counter()
        array = way()
        opening = time.perf_counter() - started
        for batch in draw(0, trajectories, options.batch, 5 * options.batches):
            array.gather(*batch)
        after = memory()
        rows.append([name, f"{1e3 * opening:.1f}", *(f"{new - old:.1f}" for new, old in zip(after, before))])
    header = ("our reader", "opening, ms", "private memory, MB", "mapped pages of files, MB")
    print_table(f"Opened and read; goals: {OPENING:g} ms, {PRIVATE:g} MB", header, rows)


def memory_of_a_large_file(folder: Path, options: argparse.Namespace) -> None:
    """Read random pairs from a contiguous file that is a hole, and print what stays."""
    trajectories = round(options.memory * 1e9 / (4 * FRAMES * POINTS))
    with h5py.File(folder / "hole.h5", "w") as file:
        tensor = file.create_dataset("tensor", (trajectories, FRAMES, POINTS), "f4")
        tensor[-1, -1, -1] = 1.0
    status = (folder / "hole.h5").stat()
    print(f"{status.st_size / 1e9:.2f} GB, of which {status.st_blocks * 512 / 1e6:.2f} MB are on the disk")
    array, before, rows = stored(folder / "hole.h5"), memory(), []
    for part in range(1, 6):
        for batch in draw(part, trajectories, options.batch, 20 * options.batches):
            array.gather(*batch)
        read = part * 20 * options.batches * options.batch * 8 * POINTS / 1e6
        rows.append([f"{read:,.0f}", *(f"{new - old:.1f}" for new, old in zip(memory(), before))])
    print_table("Contiguous HDF5", ("read, MB", "private memory, MB", "mapped pages of files, MB"), rows)


if __name__ == "__main__":
    main()
