"""A file larger than memory should be is read without keeping it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ups_kit.data.hdf5 import StoredArray, find_array, opened

SHAPE = (5_400, 201, 1024)  # float32: 4.4 GB
PLACES = [(0, 0), (2_700, 100), (5_399, 199)]  # of what is not a hole


@pytest.fixture
def large(tmp_path: Path) -> StoredArray:
    """A contiguous array of more than 4 GB, of which three frames take disk."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        tensor = file.create_dataset("tensor", SHAPE, "f4")
        for number, place in enumerate(PLACES, start=1):
            tensor[place] = float(number)
    status = path.stat()
    assert status.st_size > 4 * 2**30
    if status.st_blocks * 512 > 2**24:
        pytest.skip("this file system keeps no holes")
    with opened(path) as file:
        return StoredArray.of(find_array(file, "tensor"))


def private_megabytes() -> float:
    """Memory that belongs to this process and to no file; what a file is mapped to is the kernel's cache."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


def test_random_batches_of_a_file_larger_than_4_gb_stay_in_100_mb(large: StoredArray) -> None:
    generator = np.random.default_rng(0)
    batches = [(generator.integers(0, SHAPE[0], 16), generator.integers(0, SHAPE[1] - 1, 16)) for _ in range(40)]
    before, highest, read = private_megabytes(), 0.0, 0
    for _ in range(50):  # the same again and again: a page of a hole takes longer to appear than one of a file
        for samples, starts in batches:
            read += large.gather(samples, starts[:, None] + np.arange(2)).nbytes
        highest = max(highest, private_megabytes() - before)
    assert read > 2.5 * 100e6
    assert highest < 100
    samples, frames = (np.array(places) for places in zip(*PLACES, strict=True))
    found = large.gather(samples, frames[:, None] + np.arange(2))
    assert found[:, 0].min(1).tolist() == found[:, 0].max(1).tolist() == [1, 2, 3]
    assert not found[:, 1].any()
