"""Corrupts HDF5 files in many ways and has each one read by a guarded child, forked from this small process.

`python corruption_harness.py FOLDER FIRST COUNT SECONDS` prints a line of JSON for each: what became of the reader.
It forks instead of starting an interpreter for each file, and is otherwise what `guarded` does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ups_kit.data.headers
import ups_kit.data.inspection
import ups_kit.data.statistics  # noqa: F401 - imported once, before the forks
from ups_kit.data.guard import Watch, serve

MEMORY = 2**30


def templates(folder: Path) -> list[bytes]:
    """Small sound files of the kinds that there are: contiguous, chunked and packed, groups, text, many attributes."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(6, 5, 16)).astype(np.float32)
    made = []
    for number, libver in enumerate(("earliest", "latest", "earliest", "latest")):
        path = folder / f"template{number}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            if number < 2:
                file["tensor"] = values
                file["x-coordinate"], file["t-coordinate"] = np.linspace(0, 1, 16), np.arange(6.0)
                file.create_dataset("packed", data=values, chunks=(2, 5, 8), compression="gzip", shuffle=True)
                file["tensor"].attrs["unit"] = "m/s"
            else:
                for name in ("0000", "0001", "0002"):
                    file[f"{name}/data"], file[f"{name}/grid/x"] = values[0], np.linspace(0, 1, 16)
                    file[name].attrs["config"] = "viscosity: 0.1\n" * 5
            for key in range(3 if number % 2 else 12):
                file.attrs[f"key{key}"] = [np.arange(key + 1.0), "text", key][key % 3]
            file["names"] = ["a", "b"]
        made.append(path.read_bytes())
    return made


def corrupted(template: bytes, seed: int) -> bytes:
    """A file with damage that follows from the seed: flipped bits, overwritten words, zeros, cuts, moved parts."""
    generator = np.random.default_rng(seed)
    content = bytearray(template)
    for _ in range(int(generator.integers(1, 4))):
        kind, place = int(generator.integers(6)), int(generator.integers(len(content)))
        if kind <= 1:
            content[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            word = [b"\xff" * 8, b"\x00" * 8, generator.bytes(8), b"\x00" * 6 + b"\x01\x00"][int(generator.integers(4))]
            content[place : place + 8] = word
        elif kind == 3:
            content[place : place + 512] = bytes(min(512, len(content) - place))
        elif kind == 4 and len(content) > 600:
            del content[max(600, place) :]
        else:
            source = int(generator.integers(len(content)))
            content[place : place + 64] = content[source : source + 64]
    return bytes(content)


def outcome(path: Path, seconds: float) -> dict[str, Any]:
    """What became of the child that read the file: an answer (a result or an error), or how it ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            request = {
                "memory": MEMORY,
                "cpu": int(seconds) + 2,
                "arguments": {"path": str(path), "whole": False, "seconds": seconds},
            }
            serve("inspect", request, pipe)
        os._exit(0)
    os.close(writing)
    watch = Watch(path, pid, seconds, MEMORY)
    with os.fdopen(reading, "rb") as pipe:
        answer = watch.listen(pipe)
    os.kill(pid, signal.SIGKILL) if watch.timed_out else None
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if answer is None:
        return {"ended": str(watch.failure(status, "")), "timed_out": watch.timed_out}
    return {"error": answer["error"]} if "error" in answer else {"result": answer["result"]}


def main(folder: Path, first: int, count: int, seconds: float) -> None:
    made = templates(folder)
    for seed in range(first, first + count):
        path = folder / f"damaged{seed}.h5"
        path.write_bytes(corrupted(made[seed % len(made)], seed))
        print(json.dumps({"seed": seed, **outcome(path, seconds)}), flush=True)
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
