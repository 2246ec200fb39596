"""The `particle_zarr` layout: trajectories of particles in one Zarr v3 group, what writes it, and what its names are.

    store.zarr/
      zarr.json               attributes as below
      sample_00000/           one trajectory; the next one is sample_00001
        zarr.json             attributes `parameters`, a table of numbers, and `split`, both optional
        positions             (T, N, D) float32: frame, particle, axis
        time                  (T,) float64, evenly spaced
        types                 (N,) whole numbers from 0: what kind of particle each is; optional, all 0 without
        ids                   (N,) whole numbers, each once; optional
        velocities            (T, N, D), as the solver has them; optional, a field like any other
        fields/<name>         (T, N, C): what else changes in time, such as density; optional
        statics/<name>        (N, C): what does not, such as the mass; optional
        neighbours/indptr     (N + 1,) of the first frame, or (T * N + 1,) of all frames, whole numbers; optional
        neighbours/indices    (pairs,) whole numbers below N: neighbours of row i are indices[indptr[i] : indptr[i + 1]]

Samples may differ in T and N, and all have the same arrays. Within one, particle i is the same particle in all frames.
The group `neighbours` has the attribute `radius`. Positions lie in the domain; with the recipe's key `wrap`, those on
periodic axes may be counted on beyond it.

| attribute of the root | what it says |
| --- | --- |
| `layout`, `version` | "ups_kit/particle_zarr", 1 |
| `domain` | [low, high] for each axis |
| `periodic` | true or false for each axis; false where it is not there |
| `samples` | how many there are; optional |
| `arrays` | the arrays of every sample, by their names in it; optional |
| `type_names` | names of the types 0, 1, …; optional |
| `kinematic` | types that move as given, such as walls, and are not predicted; optional |
| `units` | units by name of field and static, of "positions" and of "time"; optional |
| `simulated_by` | the simulator that made the values, and its keys, as JSON; optional |
| `checksum` | of all metadata of the store, see `ups_kit.data.zarr_metadata`; optional |

Arrays are sharded, `ZstdCodec(level=1, checksum=True)`, with the fill value NaN (0 for whole numbers), and every chunk
is written, so that a missing one is seen. Only `layout`, `version`, `domain`, `positions` and `time` must be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from .sample_stores import sample_name, write_array
from .whole_stores import write_store
from .zarr_metadata import checksum
from .zarr_store import DOCUMENT

LAYOUT, VERSION = "ups_kit/particle_zarr", 1
NEIGHBOURS = ("neighbours/indptr", "neighbours/indices")
SMALL = ("time", "types", "ids", *NEIGHBOURS)  # arrays that are neither fields nor statics


@frozen(eq=False, kw_only=True)
class ParticleSample:
    """One trajectory for the writer: T frames of N particles in D dimensions.

    Raises ValueError for arrays whose shapes do not fit each other.
    """

    positions: NDArray[np.floating]  # (T, N, D)
    time: NDArray[np.floating]  # (T,), rising
    types: NDArray[np.integer] | None = None  # (N,)
    ids: NDArray[np.integer] | None = None  # (N,)
    velocities: NDArray[np.floating] | None = None  # (T, N, D)
    fields: Mapping[str, NDArray[np.floating]] = field(factory=dict)  # (T, N, C) each
    statics: Mapping[str, NDArray[np.floating]] = field(factory=dict)  # (N, C) each
    parameters: Mapping[str, float] = field(factory=dict)
    split: str | None = None  # "train", "validation" or "test", where the data say so
    neighbours: tuple[NDArray[np.integer], NDArray[np.integer], float] | None = None  # indptr, indices and the radius

    def __attrs_post_init__(self) -> None:
        shape = np.shape(self.positions)
        if len(shape) != 3 or not 1 <= shape[2] <= 3 or 0 in shape:
            raise ValueError(f"positions: expected (frames, particles, 1 to 3 axes), got the shape {list(shape)}")
        frames, count, _ = shape
        expected: dict[str, tuple[int, ...]] = {"time": (frames,), "types": (count,), "ids": (count,)}
        expected |= {"velocities": shape}
        for name, values in self.arrays.items():
            kind, _, inner = name.partition("/")
            channels = np.shape(values)[-1:] if np.ndim(values) else ()
            leads = {"fields": (frames, count), "statics": (count,)}.get(kind)
            wanted = (*leads, *channels) if leads is not None and inner else expected.get(name)
            if wanted is not None and np.shape(values) != wanted:
                raise ValueError(f"{name}: expected the shape {list(wanted)}, got {list(np.shape(values))}")

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by their names in the sample's group, in the types they are stored in."""
        found: dict[str, NDArray[Any]] = {
            "positions": np.asarray(self.positions, np.float32),
            "time": np.asarray(self.time, np.float64),
        }
        optional = {"types": self.types, "ids": self.ids}
        found |= {name: np.asarray(own, np.int64) for name, own in optional.items() if own is not None}
        if self.velocities is not None:
            found["velocities"] = np.asarray(self.velocities, np.float32)
        found |= {f"fields/{name}": np.asarray(own, np.float32) for name, own in self.fields.items()}
        found |= {f"statics/{name}": np.asarray(own, np.float32) for name, own in self.statics.items()}
        if self.neighbours is not None:
            pairs = zip(NEIGHBOURS, self.neighbours[:2], strict=True)
            found |= {name: np.asarray(own, np.int64) for name, own in pairs}
        return found

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the sample's group."""
        said: dict[str, Any] = {}
        if self.parameters:
            said["parameters"] = {name: float(value) for name, value in self.parameters.items()}
        return said if self.split is None else {**said, "split": self.split}


def node_paths(samples: Sequence[str], arrays: Sequence[str]) -> tuple[str, ...]:
    """Paths of all arrays and groups of a store with such samples, each of which has these arrays; the root first."""
    inner: dict[str, None] = {}
    for name in arrays:
        group = name.rpartition("/")[0]
        inner |= {group: None} if group else {}
        inner[name] = None
    return ("", *(path for sample in samples for path in (sample, *(f"{sample}/{name}" for name in inner))))


def write_particles(
    path: Path,
    samples: Iterable[ParticleSample],
    *,
    domain: Sequence[tuple[float, float]],
    periodic: Sequence[bool],
    type_names: Sequence[str] = (),
    kinematic: Sequence[int] = (),
    units: Mapping[str, str] | None = None,
    simulated_by: str = "",
) -> None:
    """Write a store beside `path` and rename it. Samples are taken one by one, so that one at a time is in memory.

    `domain` is (low, high) of each axis. Raises StorageError where something is at `path` already, or the disk does not
    take it, and ValueError for samples that do not fit each other.
    """
    attributes: dict[str, Any] = {
        "layout": LAYOUT,
        "version": VERSION,
        "domain": [[float(low), float(high)] for low, high in domain],
        "periodic": [bool(wraps) for wraps in periodic],
    }
    optional = {"type_names": list(type_names), "kinematic": [int(kind) for kind in kinematic]}
    optional |= {"units": dict(units or {}), "simulated_by": simulated_by}
    attributes |= {key: value for key, value in optional.items() if value}
    write_store(path, lambda part: _write(part, samples, attributes))


def _write(part: Path, samples: Iterable[ParticleSample], attributes: dict[str, Any]) -> None:
    import zarr

    dims, names, count = len(attributes["domain"]), None, 0
    if len(attributes["periodic"]) != dims:
        raise ValueError(f"periodic: expected {dims} of true and false, got {attributes['periodic']}")
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.create_group(part, attributes=attributes)
        for sample in samples:
            arrays = sample.arrays
            if names is not None and list(arrays) != names:
                raise ValueError(f"sample {count}: expected the arrays {', '.join(names)}, got {', '.join(arrays)}")
            if arrays["positions"].shape[2] != dims:
                raise ValueError(f"sample {count}: expected positions in {dims} dimensions, as the domain has")
            names = list(arrays)
            group = root.create_group(sample_name(count), attributes=sample.attributes)
            for name, values in arrays.items():
                write_array(group, name, values)
            if sample.neighbours is not None:
                group["neighbours"].attrs["radius"] = float(sample.neighbours[2])
            count += 1
    if names is None:
        raise ValueError("there are no samples; expected at least one")
    _list(part, count, names)
    seal(part)


def _list(folder: Path, samples: int, arrays: Sequence[str]) -> None:
    """Write into the root what there is."""
    root = _document(folder)
    root["attributes"] |= {"samples": samples, "arrays": list(arrays)}
    (folder / DOCUMENT).write_text(json.dumps(root, indent=2))


def seal(folder: Path) -> None:
    """Write the checksum of all metadata into the root's attributes, where a finished store lists what it holds.

    A store of another layout is left as it is.
    """
    root = _document(folder)
    attributes = root["attributes"]
    if attributes.get("layout") != LAYOUT or not {"samples", "arrays"} <= attributes.keys():
        return
    if isinstance(attributes.get("units"), str):  # a table, which HDF5 holds as JSON
        attributes["units"] = json.loads(attributes["units"])
    paths = node_paths([sample_name(number) for number in range(attributes["samples"])], attributes["arrays"])
    attributes["checksum"] = checksum({path: _document(folder / path) if path else root for path in paths})
    (folder / DOCUMENT).write_text(json.dumps(root, indent=2))


def _document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    return found
