"""Files of particles in a layout that a dataset knows, written as `particle_zarr` stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, PluginError, StorageError
from .conversion import check_space, same, sync_all
from .guard import Sign
from .particle_store import ParticleSample, write_particles
from .tree import FileTree

if TYPE_CHECKING:
    from ..interfaces import ParticleFile


def known_particles(tree: FileTree) -> tuple[str, ParticleFile] | None:
    """The file through the dataset that recognises it, with its name; None where none does. Raises DataError."""
    from ..interfaces import OpensParticles
    from ..plugins import discover
    from .layouts import config_of, recognised

    catalog = discover()
    for use, keys in recognised(tree, catalog):
        config, problems = config_of(catalog, use, {"path": str(tree.path), **keys})
        if isinstance(config, OpensParticles) and not problems:
            try:
                return use, config.open_particles(tree.path)
            except DataError as error:
                raise DataError(f"{error}; `--as-is` copies its arrays without a look at what they are") from error
    return None


def convert_particles(sign: Sign, tree: FileTree, file: ParticleFile, aside: Path) -> dict[str, Any]:
    """Write all trajectories to `aside`, read them again and compare. Raises DataError, StorageError."""
    check_space(aside, sum(_bytes(info.shape, info.dtype) for info in tree.arrays.values() if not info.elsewhere))
    written = {"arrays": 0, "values": 0}

    def samples() -> Iterator[ParticleSample]:
        for number in range(file.trajectories):
            sign(f"trajectory {number}")
            sample = _checked(file, number)
            written["arrays"] += len(sample.arrays)
            written["values"] += sum(values.size for values in sample.arrays.values())
            yield sample

    try:
        write_particles(aside, samples(), **file.about)
    except ValueError as error:
        raise DataError(f"{tree.path}: {error}") from error
    sync_all(aside)
    return {**written, "notes": _notes(tree), "use": _compare(sign, file, aside)}


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    try:
        return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    except TypeError:
        return 0


def _notes(tree: FileTree) -> list[str]:
    double = any(info.dtype.endswith("f8") and len(info.shape) > 2 for info in tree.arrays.values())
    words = f"{tree.path} holds float64: values are written as float32, as they are trained on; --as-is keeps them"
    return [words] if double else []


def _checked(file: ParticleFile, number: int) -> ParticleSample:
    try:
        return file.sample(number)
    except ValueError as error:
        raise DataError(f"trajectory {number}: {error}") from error


def _compare(sign: Sign, file: ParticleFile, aside: Path) -> str:
    """Open what was written as training does, and hold it against the source. Raises StorageError where they differ."""
    from .headers import read_tree

    found = known_particles(read_tree(aside, sign))
    if found is None:
        raise PluginError("no installed dataset reads what was written; `--as-is` copies arrays as they are")
    use, again = found
    if file.trajectories != again.trajectories or _plain(file.about) != _plain(again.about):
        raise StorageError(
            "what was read again differs from what was written; the disk may be failing, nothing was kept"
        )
    for number in range(file.trajectories):
        sign(f"trajectory {number}, written")
        before, after = _checked(file, number), again.sample(number)
        if before.attributes != after.attributes or before.arrays.keys() != after.arrays.keys():
            raise StorageError(f"trajectory {number}: what was read again differs from what was written")
        for name, values in before.arrays.items():
            same(name, values, after.arrays[name], tuple(slice(0, size) for size in values.shape))
    return use


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a store's root says, where it says anything."""
    found: dict[str, Any] = json.loads(json.dumps({key: value for key, value in about.items() if value}))
    return found
