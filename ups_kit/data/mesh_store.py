"""The `mesh_zarr` layout: fields on meshes that differ between samples, in one Zarr v3 group, and what writes it.

    store.zarr/
      zarr.json               attributes as below
      sample_00000/           one trajectory, or one steady solution; the next one is sample_00001
        zarr.json             attributes `parameters`, a table of numbers, `split` and `checksum`, all optional
        coords                (N, D): where the nodes are, in 1 to 3 dimensions
        cells                 (M, k) whole numbers, nodes from 0 on; attribute `cell_type`, see `ups_kit.data.meshes`
        edges                 (E, 2) whole numbers, in the place of cells where there are none
        time                  (T,) evenly spaced; one entry for steady data
        fields/<name>         (T, N, C): frame, node, channel
        statics/<name>        (N, C): fields that do not change; (N,) whole numbers from 0 are categories, such as the
                              type of a node
        laplacian/data        (Z,) with indices (Z,) and indptr (N + 1,): a sparse matrix in rows; optional

Samples may differ in N, M and T, and have the same fields, statics and parameters.

| attribute of the root | what it says |
| --- | --- |
| `layout`, `version` | "ups_kit/mesh_zarr", 1 |
| `fields`, `statics` | names, in the order of the channels; all in the first sample's groups where not given |
| `domain` | [low, high] for each axis; the box around all nodes where not given |
| `periodic` | true or false for each axis; false where not given |
| `samples` | how many there are; found by their names where not given |
| `points`, `frames` | numbers of nodes and frames of each sample; they spare opening all samples to describe the data |
| `categories` | how many categories each static of whole numbers has; one more than the highest where not given |
| `units` | units by name of field and static, of "coords" and "time"; optional |
| `simulated_by` | the simulator that made the values, and its keys, as JSON; optional |
| `checksum` | of the root's metadata, see `ups_kit.data.zarr_metadata`; that of a sample is of all metadata in it |

Arrays of floats are float32 or float64 and have the fill value NaN; `ZstdCodec(level=1, checksum=True)`; every chunk is
written, so that a missing one is seen. Only `layout`, `version`, `coords`, `cells` or `edges`, and `fields` must be
there, and `time` where there is more than one frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from .meshes import CELL_TYPES
from .sample_stores import sample_name, seal_group, seal_root, write_array
from .whole_stores import write_store
from .zarr_store import DOCUMENT

LAYOUT, VERSION = "ups_kit/mesh_zarr", 1
LAPLACIAN = ("data", "indices", "indptr")


@frozen(eq=False, kw_only=True)
class MeshSample:
    """One trajectory for the writer: T frames on N nodes in D dimensions. Raises ValueError for shapes that clash."""

    coords: NDArray[np.floating]  # (N, D)
    fields: Mapping[str, NDArray[np.floating]]  # (T, N, C) each
    time: NDArray[np.floating] = field(factory=lambda: np.zeros(1))  # (T,)
    cells: NDArray[np.integer] | None = None  # (M, k)
    cell_type: str = "triangle"
    edges: NDArray[np.integer] | None = None  # (E, 2)
    statics: Mapping[str, NDArray[Any]] = field(factory=dict)  # (N, C) each, or (N,) of whole numbers
    parameters: Mapping[str, float] = field(factory=dict)
    split: str | None = None  # "train", "validation" or "test", where the data say so
    laplacian: tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.integer]] | None = None

    def __attrs_post_init__(self) -> None:
        shape = np.shape(self.coords)
        if len(shape) != 2 or not 1 <= shape[1] <= 3 or 0 in shape:
            raise ValueError(f"coords: expected (nodes, 1 to 3 axes), got the shape {list(shape)}")
        for name, values in self.fields.items():
            if np.shape(values)[:-1] != (len(self.time), shape[0]):
                wanted = f"[{len(self.time)}, {shape[0]}, channels]"
                raise ValueError(f"fields/{name}: expected the shape {wanted}, got {list(np.shape(values))}")
        for name, values in self.statics.items():
            whole = np.asarray(values).dtype.kind in "iu"
            if np.shape(values)[:1] != (shape[0],) or np.ndim(values) != (1 if whole else 2):
                wanted = f"[{shape[0]}] of whole numbers, or [{shape[0]}, channels]"
                raise ValueError(f"statics/{name}: expected {wanted}, got {list(np.shape(values))}")
        if self.cells is None and self.edges is None:
            raise ValueError("expected cells or edges, got none")
        corners = CELL_TYPES.get(self.cell_type)
        if self.cells is not None and (corners is None or np.shape(self.cells)[1:] != (corners,)):
            known = ", ".join(f"{name} ({count})" for name, count in CELL_TYPES.items())
            raise ValueError(
                f"cells: expected (cells, corners) of {known}, got {self.cell_type!r} of shape "
                f"{list(np.shape(self.cells))}"
            )

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by their names in the sample's group, in the types they are stored in."""
        found: dict[str, NDArray[Any]] = {
            "coords": np.asarray(self.coords, np.float64),
            "time": np.asarray(self.time, np.float64),
        }
        joined = {"cells": self.cells, "edges": self.edges}
        found |= {name: np.asarray(own, np.int64) for name, own in joined.items() if own is not None}
        found |= {f"fields/{name}": np.asarray(own, np.float32) for name, own in self.fields.items()}
        for name, own in self.statics.items():
            whole = np.asarray(own).dtype.kind in "iu"
            found[f"statics/{name}"] = np.asarray(own, np.int64 if whole else np.float32)
        if self.laplacian is not None:
            kinds = (np.float64, np.int64, np.int64)
            found |= {f"laplacian/{n}": np.asarray(v, k) for n, v, k in zip(LAPLACIAN, self.laplacian, kinds)}
        return found

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the sample's group."""
        said: dict[str, Any] = {"parameters": {name: float(value) for name, value in self.parameters.items()}}
        return said if self.split is None else {**said, "split": self.split}


def write_meshes(
    path: Path,
    samples: Iterable[MeshSample],
    *,
    domain: Sequence[tuple[float, float]] | None = None,
    periodic: Sequence[bool] | None = None,
    units: Mapping[str, str] | None = None,
    simulated_by: str = "",
) -> None:
    """Write a store beside `path` and rename it. Samples are taken one by one, so that one at a time is in memory.

    `domain` is (low, high) of each axis, the box around all nodes where it is not given. Raises StorageError where
    something is at `path` already, or the disk does not take it, and ValueError for samples that do not fit each other.
    """

    def fill(part: Path) -> None:
        _fill(part, samples, domain, periodic, {"units": dict(units or {}), "simulated_by": simulated_by})

    write_store(path, fill)


def seal(folder: Path) -> None:
    """Write the checksums of a finished store anew, whose metadata were copied; other stores are left as they are."""
    root = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    attributes = root.get("attributes", {})
    if attributes.get("layout") != LAYOUT or "checksum" not in attributes:
        return
    for number in range(int(attributes.get("samples", 0))):
        seal_group(folder / sample_name(number))
    seal_root(folder, {})


def _fill(
    part: Path,
    samples: Iterable[MeshSample],
    domain: Sequence[tuple[float, float]] | None,
    periodic: Sequence[bool] | None,
    more: Mapping[str, Any],
) -> None:
    import zarr

    header = _Header()
    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.create_group(part, attributes={"layout": LAYOUT, "version": VERSION})
        for number, sample in enumerate(samples):
            header = header.with_sample(number, sample)
            group = root.create_group(sample_name(number), attributes=sample.attributes)
            for name, values in sample.arrays.items():
                write_array(group, name, values, {"cell_type": sample.cell_type} if name == "cells" else None)
            seal_group(part / sample_name(number))
    if header.low is None or header.high is None:
        raise ValueError("there are no samples; expected at least one")
    box = [[float(low), float(high)] for low, high in zip(header.low, header.high)]
    seal_root(
        part,
        {
            "fields": list(header.fields),
            "statics": list(header.statics),
            "domain": box if domain is None else [[float(low), float(high)] for low, high in domain],
            "periodic": [bool(wraps) for wraps in periodic] if periodic is not None else [False] * len(box),
            "samples": len(header.points),
            "points": list(header.points),
            "frames": list(header.frames),
            "categories": dict(header.categories),
            **{key: value for key, value in more.items() if value},
        },
    )


@frozen(eq=False)
class _Header:
    """What the root says of the samples that were written so far."""

    fields: tuple[str, ...] = ()
    statics: tuple[str, ...] = ()
    points: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    categories: Mapping[str, int] = field(factory=dict)
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None

    def with_sample(self, number: int, sample: MeshSample) -> _Header:
        """The same with one sample more. Raises ValueError for one that has other arrays."""
        names, statics = tuple(sample.fields), tuple(sample.statics)
        low, high = sample.coords.min(0), sample.coords.max(0)
        if self.low is not None and (names != self.fields or statics != self.statics or len(low) != len(self.low)):
            raise ValueError(
                f"sample {number}: expected the fields {self.fields}, statics {self.statics} and {len(self.low)} axes "
                f"of the first one, got {names}, {statics} and {len(low)}"
            )
        whole = {n: int(np.max(v)) + 1 for n, v in sample.statics.items() if np.asarray(v).dtype.kind in "iu"}
        return _Header(
            names,
            statics,
            (*self.points, len(sample.coords)),
            (*self.frames, len(sample.time)),
            {name: max(count, self.categories.get(name, 0)) for name, count in whole.items()},
            low if self.low is None else np.minimum(low, self.low),
            high if self.high is None else np.maximum(high, self.high),
        )
