"""The `grid_zarr` layout: trajectories on a regular grid in one Zarr v3 group, and what writes it.

    store.zarr/
      zarr.json             attributes as below
      coords/<axis>         (points,) float64, for each axis of the grid, in the order of the fields' axes
      time                  (T,) float64; one entry for steady data
      fields/<name>         (N, T, X, Y, Z, C): trajectory, frame, the grid's one to three axes, channel
      statics/<name>        (N, X, Y, Z, C): fields that do not change in time; (X, Y, Z, C) if all share it
      parameters/<name>     (N,) float64: parameters of the equation
      numbers/<name>        (N,) float64: others, such as a seed; parameters only where a recipe names them

A store of one trajectory may leave out the first axis: fields (T, X, Y, Z, C), statics (X, Y, Z, C), parameters ().
`coords` may also be one array with the coordinates of all points, (points, D) or (X, Y, Z, D).

| attribute of the root | what it says |
| --- | --- |
| `layout`, `version` | "ups_kit/grid_zarr", 1 |
| `axes` | names of the axes in `coords`, in order |
| `fields`, `statics`, `parameters` | names, in the order of the channels |
| `numbers` | names; optional |
| `steady` | whether the fields are the answer to the statics, and no time series |
| `periodic` | true or false for each axis |
| `domain` | [low, high] for each axis, optional |
| `boundary_conditions` | what holds at the ends of each axis: "periodic", "wall", "open", …; optional |
| `units` | units by name of field, static, parameter and axis, and of "time"; optional |
| `simulated_by` | the simulator that made the values, and its keys, as JSON; optional |
| `checksum` | of all metadata of the store, see `ups_kit.data.zarr_metadata` |

Arrays are sharded, `ZstdCodec(level=1, checksum=True)`, with the fill value NaN, and every chunk is written, so that a
missing one is seen. Only `layout`, `version`, `coords`, `time` and `fields` must be there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from .whole_stores import write_store
from .zarr_metadata import checksum
from .zarr_store import DOCUMENT

LAYOUT, VERSION = "ups_kit/grid_zarr", 1
CHUNK_BYTES = 2**15  # frames are put together to chunks of about this size
LARGEST_FRAME = 2**22  # bytes of a frame above which it is cut along its first axes
SHARD_BYTES = 2**26
Kind = Literal["fields", "statics"]


@frozen(kw_only=True)
class GridStore:
    """What a `grid_zarr` store holds beside the values of its fields."""

    trajectories: int
    axes: Mapping[str, NDArray[np.floating]]  # coordinates by the axis's name, in the order of the fields' axes
    times: NDArray[np.floating]  # (T,)
    fields: Mapping[str, int]  # channels by name
    statics: Mapping[str, int] = field(factory=dict)
    parameters: Mapping[str, NDArray[np.floating]] = field(factory=dict)  # (trajectories,) each
    numbers: Mapping[str, NDArray[np.floating]] = field(factory=dict)  # (trajectories,) each
    steady: bool = False
    periodic: Sequence[bool] | None = None
    domain: Sequence[tuple[float, float]] | None = None
    boundary_conditions: Mapping[str, Any] = field(factory=dict)
    units: Mapping[str, str] = field(factory=dict)
    simulated_by: str = ""
    dtype: Literal["float32", "float64"] = "float32"

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes.values())

    def shape(self, kind: Kind, name: str) -> tuple[int, ...]:
        """The whole shape of a field, (N, T, *grid, C), or of a static, (N, *grid, C)."""
        if kind == "fields":
            return (self.trajectories, len(self.times), *self.grid, self.fields[name])
        return (self.trajectories, *self.grid, self.statics[name])

    @property
    def bytes(self) -> int:
        """The size of all fields, unpacked."""
        shapes = [self.shape("fields", name) for name in self.fields] + [self.shape("statics", n) for n in self.statics]
        return np.dtype(self.dtype).itemsize * sum(math.prod(shape) for shape in shapes)

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's attributes, without the checksum."""
        optional = {
            "periodic": list(self.periodic) if self.periodic is not None else None,
            "domain": [list(ends) for ends in self.domain] if self.domain is not None else None,
            "boundary_conditions": dict(self.boundary_conditions) or None,
            "units": dict(self.units) or None,
            "numbers": list(self.numbers) or None,
            "simulated_by": self.simulated_by or None,
        }
        return {
            "layout": LAYOUT,
            "version": VERSION,
            "axes": list(self.axes),
            "fields": list(self.fields),
            "statics": list(self.statics),
            "parameters": list(self.parameters),
            "steady": self.steady,
            **{key: value for key, value in optional.items() if value is not None},
        }


class Values(Protocol):
    """Values of a field or static for the writer: `values("fields", "u", samples, frames)` is (n, f, *grid, C).

    For a static, `frames` is an empty slice, and the values are (n, *grid, C).
    """

    def __call__(self, kind: Kind, name: str, samples: slice, frames: slice) -> NDArray[np.floating]: ...


def node_paths(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of all arrays and groups of a store whose attributes list them, the root ("") first."""
    paths = ["", "coords", *(f"coords/{axis}" for axis in attributes["axes"]), "time"]
    for group in ("fields", "statics", "parameters", "numbers"):
        names = attributes.get(group, [])
        paths += [group, *(f"{group}/{name}" for name in names)] if names else []
    return tuple(paths)


def write_grid_store(path: Path, store: GridStore, values: Values) -> None:
    """Write a store beside `path` and rename it. `values` is asked for one shard after the other.

    Raises StorageError where something is at `path` already, or the disk does not take it.
    """

    def fill(part: Path) -> None:
        _write(part, store, values)
        seal(part)

    write_store(path, fill)


def _write(part: Path, store: GridStore, values: Values) -> None:
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.create_group(part, attributes=store.attributes)
        arrays = {f"coords/{name}": axis for name, axis in store.axes.items()}
        arrays |= {"time": store.times, **{f"parameters/{name}": own for name, own in store.parameters.items()}}
        arrays |= {f"numbers/{name}": own for name, own in store.numbers.items()}
        for name, own in arrays.items():
            whole = np.asarray(own, np.float64)
            _created(root, name, whole.shape, whole.shape, None, "float64")[...] = whole
        for name in store.fields:
            _write_fields(root, store, name, values)
        for name in store.statics:
            _write_statics(root, store, name, values)


def _write_fields(root: Any, store: GridStore, name: str, values: Values) -> None:
    shape = store.shape("fields", name)
    chunk, shard = layout_of(shape, np.dtype(store.dtype).itemsize)
    array = _created(root, f"fields/{name}", shape, chunk, shard, store.dtype)
    for samples in _cuts(shape[0], shard[0]):
        for frames in _cuts(shape[1], shard[1]):
            array[samples, frames] = _fitting(values("fields", name, samples, frames), samples, frames, shape)


def _write_statics(root: Any, store: GridStore, name: str, values: Values) -> None:
    shape = store.shape("statics", name)
    chunk, shard = layout_of((shape[0], 1, *shape[1:]), np.dtype(store.dtype).itemsize)
    array = _created(root, f"statics/{name}", shape, chunk[:1] + chunk[2:], shard[:1] + shard[2:], store.dtype)
    for samples in _cuts(shape[0], shard[0]):
        array[samples] = _fitting(values("statics", name, samples, slice(0, 0)), samples, None, shape)


def _fitting(
    found: NDArray[np.floating], samples: slice, frames: slice | None, shape: tuple[int, ...]
) -> NDArray[np.floating]:
    """Values of the shape that was asked for; Zarr itself would repeat what is too small."""
    leads = [part.stop - part.start for part in (samples, frames) if part is not None]
    expected = (*leads, *shape[len(leads) :])
    if found.shape != expected:
        raise ValueError(f"expected values of shape {expected}, got {found.shape}")
    return found


def _created(
    root: Any, name: str, shape: Sequence[int], chunk: Sequence[int], shard: Sequence[int] | None, dtype: str
) -> Any:
    from zarr.codecs import ZstdCodec

    return root.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(max(1, size) for size in chunk),
        shards=tuple(shard) if shard is not None else None,
        dtype=dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=math.nan,
    )


def _cuts(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))


def layout_of(shape: Sequence[int], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks and shards of an array (N, T, *grid, C): a chunk is a few frames of one trajectory, or part of a frame.

    A shard is whole trajectories, or whole chunks of frames of one.
    """
    trajectories, frames, *rest = shape
    frame = math.prod(rest) * itemsize
    part, axis = list(rest), 0
    while math.prod(part) * itemsize > LARGEST_FRAME and axis < len(rest) - 1:
        if part[axis] > 1:
            part[axis] = -(-part[axis] // 2)
        else:
            axis += 1
    together = max(1, min(frames, CHUNK_BYTES // max(frame, 1)))
    chunk = (1, together, *part)
    whole = [-(-size // own) * own for size, own in zip(rest, part)]
    chunks_of_frames = -(-frames // together)
    in_shard = max(1, min(chunks_of_frames, SHARD_BYTES // max(frame * together, 1)))
    samples = 1
    if in_shard == chunks_of_frames:
        samples = max(1, min(trajectories, SHARD_BYTES // max(frame * together * chunks_of_frames, 1)))
    return chunk, (samples, in_shard * together, *whole)


def seal(folder: Path) -> None:
    """Write the checksum of all metadata into the root's attributes, where a finished store lists what it holds.

    A store of another layout is left as it is.
    """
    root = _document(folder)
    attributes = root["attributes"]
    if attributes.get("layout") != LAYOUT or "axes" not in attributes:
        return
    for key in ("units", "boundary_conditions"):  # tables, which HDF5 holds as JSON
        if isinstance(attributes.get(key), str):
            attributes[key] = json.loads(attributes[key])
    documents = {path: root if path == "" else _document(folder / path) for path in node_paths(attributes)}
    attributes["checksum"] = checksum(documents)
    (folder / DOCUMENT).write_text(json.dumps(root, indent=2))


def _document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    return found
