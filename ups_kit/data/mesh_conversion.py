"""Files of meshes as `mesh_zarr` stores: one mesh for all frames of a sample, data at its nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import DataError, StorageError, did_you_mean
from .conversion_options import MeshOptions
from .guard import Sign
from .mesh_files import Frame, Series, find_series, frames_of, parameters_of
from .mesh_store import MeshSample, write_meshes
from .meshes import CELL_TYPES, DIMS, Cells, mesh_problems, simplices, volumes
from .sample_stores import sample_name

SAME = 1e-6  # of a mesh's size: how far points of two frames may be apart
ALIKE = (1e-5, 1e-7)  # relative and absolute: how far values at one place may be apart
NO_VALUE = 1e-9  # of the largest one: smaller third components of planar vectors are none
MOST_CATEGORIES = 64  # of a static of whole numbers; more are numbers of things, such as of nodes
UNEVEN = 1e-3  # of a time step


def convert_meshes(sign: Sign, source: Path, aside: Path, options: MeshOptions) -> dict[str, Any]:
    """Write all samples to `aside`, and read them again. Raises DataError, StorageError."""
    notes: dict[str, None] = {}
    hashes: dict[str, str] = {}
    counts = {"arrays": 0, "values": 0}

    def samples() -> Iterator[MeshSample]:
        shapes: Mapping[str, int] | None = None
        for number, series in enumerate(find_series(source)):
            sample = read_series(series, options, sign, notes)
            channels = {name: int(values.shape[-1]) for name, values in sample.fields.items()}
            if shapes is not None and channels != shapes:
                raise DataError(
                    f"{series.label}: expected the fields and channels {shapes} of the first sample, got "
                    f"{channels}; choose those that all have with --arrays"
                )
            shapes = channels
            for name, values in sample.arrays.items():
                hashes[f"{sample_name(number)}/{name}"] = _hash(values)
                counts["arrays"] += 1
                counts["values"] += values.size
            yield sample

    try:
        write_meshes(aside, samples())
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error
    _compare(sign, aside, hashes)
    return {**counts, "notes": list(notes), "use": "mesh_zarr"}


def _hash(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _compare(sign: Sign, aside: Path, hashes: Mapping[str, str]) -> None:
    """Read what was written. Raises StorageError where it differs."""
    from .zarr_store import ZarrStore

    store = ZarrStore.open(aside)
    for name, before in hashes.items():
        sign(name)
        array = store.array(name)
        if _hash(array.box([(0, size) for size in array.metadata.shape])) != before:
            raise StorageError(
                f"array '{name}': what was read again differs from what was written; the disk may be failing, nothing "
                "was kept"
            )


# ---------------------------------------------------------------------------------------------------------------------
# One sample
# ---------------------------------------------------------------------------------------------------------------------
def read_series(series: Series, options: MeshOptions, sign: Sign, notes: dict[str, None]) -> MeshSample:
    """All frames of a series as a sample. What was left out or changed goes into the notes. Raises DataError."""
    mesh: _Mesh | None = None
    columns: dict[str, list[NDArray[Any]]] = {}
    times: list[float | None] = []
    for frame in frames_of(series, sign):
        if mesh is None:
            mesh = _Mesh.of(frame, notes)
        else:
            mesh.check_same(frame)
        data = mesh.data(frame, notes)
        if times and data.keys() != columns.keys():
            raise DataError(
                f"{frame.where}: expected the data {', '.join(columns) or 'none'} of the first frame, got "
                f"{', '.join(data) or 'none'}"
            )
        for name, values in data.items():
            columns.setdefault(name, []).append(values)
        times.append(frame.time)
    if mesh is None:
        raise DataError(f"{series.label}: holds no frames; expected at least one")
    lists, statics = _sorted_out(series, columns, options, notes)
    fields: dict[str, NDArray[Any]] = {name: _stacked(series, name, values) for name, values in lists.items()}
    if mesh.axes is not None:
        fields = {name: _planar(values, mesh.axes, name, notes) for name, values in fields.items()}
        statics = {name: _planar(v, mesh.axes, name, notes) if v.ndim == 2 else v for name, v in statics.items()}
    if len(times) == 1 and not statics:
        notes["one frame is steady: it needs what is given, by --statics, or by dataset.features in the recipe"] = None
    return MeshSample(
        coords=mesh.coords,
        cells=mesh.cells,
        cell_type=mesh.kind,
        fields=fields,
        statics=statics,
        time=_times(series, times, options, notes),
        parameters={**options.parameters, **parameters_of(series)},
    )


def _stacked(series: Series, name: str, values: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    shapes = {each.shape for each in values}
    if len(shapes) > 1:
        raise DataError(f"{series.label}: '{name}' has as many channels in all frames; got the shapes {sorted(shapes)}")
    return np.stack([np.asarray(each, np.float32) for each in values])


def _times(
    series: Series, times: Sequence[float | None], options: MeshOptions, notes: dict[str, None]
) -> NDArray[np.float64]:
    known = [time for time in times if time is not None]
    if options.dt is not None or len(known) < len(times):
        if options.dt is None and len(times) > 1:
            notes["the files do not say when their frames are: one unit of time is between two of them (--dt)"] = None
        return np.arange(len(times), dtype=np.float64) * (options.dt or 1.0)
    found = np.asarray(known, np.float64)
    steps = np.diff(found)
    if len(steps) and ((steps <= 0).any() or np.ptp(steps) > UNEVEN * steps.mean()):
        raise DataError(
            f"{series.label}: frames are {steps.min():g} to {steps.max():g} apart in time; expected equal steps: leave "
            "frames out, or give --dt to count them as equally far apart"
        )
    return found


def _sorted_out(
    series: Series, columns: Mapping[str, list[NDArray[Any]]], options: MeshOptions, notes: dict[str, None]
) -> tuple[dict[str, list[NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Which data are fields, and which are static; the latter of the first frame."""
    wanted = [*(options.arrays or ()), *options.statics]
    for name in wanted:
        if name not in columns:
            there = ", ".join(columns) or "none"
            raise DataError(f"{series.label}: there are no data '{name}'{did_you_mean(name, columns)} (data: {there})")
    fields, statics = {}, {}
    for name, values in columns.items():
        first = values[0]
        whole = first.dtype.kind in "iub"
        if name in options.statics:
            statics[name] = _categories(first) if whole and _countable(first) else first.astype(np.float32)
            if any(not np.array_equal(first, each) for each in values[1:]):
                raise DataError(f"{series.label}: '{name}' changes in time, and --statics says that it does not")
        elif options.arrays is not None:
            if name in options.arrays:
                fields[name] = values
        elif not whole:
            fields[name] = values
        elif _countable(first) and all(np.array_equal(first, each) for each in values[1:]):
            statics[name] = _categories(first)
            notes[f"'{name}' holds whole numbers that do not change: taken as categories"] = None
        else:
            notes[f"'{name}' holds whole numbers: left out (--arrays {name} takes it as a field)"] = None
    if not fields:
        raise DataError(
            f"{series.label}: there are no data of floats at its nodes (data: {', '.join(columns) or 'none'}); "
            "expected at least one field"
        )
    if options.arrays is not None:
        fields = {name: fields[name] for name in options.arrays if name in fields}
    if options.names is not None:
        if len(options.names) != len(fields):
            raise DataError(f"{series.label}: --names has {len(options.names)} names for the data {', '.join(fields)}")
        fields = dict(zip(options.names, fields.values(), strict=True))
    return {_plain(name): own for name, own in fields.items()}, {_plain(name): own for name, own in statics.items()}


def _countable(values: NDArray[Any]) -> bool:
    return values.shape[1:] in ((), (1,)) and values.min(initial=0) >= 0 and values.max(initial=0) < MOST_CATEGORIES


def _categories(values: NDArray[Any]) -> NDArray[np.int64]:
    return values.reshape(-1).astype(np.int64)


def _plain(name: str) -> str:
    """A name that a group can have."""
    return name.replace("/", "_").replace("\\", "_").strip(".") or "data"


def _planar(values: NDArray[Any], axes: tuple[int, ...], name: str, notes: dict[str, None]) -> NDArray[Any]:
    """Vectors (…, 3) of a planar mesh without the component that they do not have."""
    if values.shape[-1] != 3 or values.dtype.kind != "f":
        return values
    left = [axis for axis in range(3) if axis not in axes]
    if np.abs(values[..., left]).max(initial=0) > NO_VALUE * max(float(np.abs(values).max(initial=0)), 1e-300):
        return values
    notes[f"'{name}' is a vector in a plane: its component across the plane, which is 0, is left out"] = None
    return values[..., list(axes)]


@frozen(eq=False)
class _Mesh:
    """The mesh of a sample: which nodes and cells of its files are taken."""

    frame: Frame  # the first one
    axes: tuple[int, ...] | None  # those that the mesh extends along, where it lies in a plane
    coords: NDArray[np.float64]  # (N, D), of the nodes that are taken
    cells: Cells
    kind: str
    parts: tuple[int, ...]  # numbers of the blocks that the cells are of
    owners: NDArray[np.int64]  # of each cell, the cell of those blocks that it is, or is part of
    kept: NDArray[np.int64]  # (N,), which points of the files the nodes are
    double: tuple[NDArray[np.int64], NDArray[np.int64]]  # points that lie at nodes already taken, and these nodes

    @classmethod
    def of(cls, frame: Frame, notes: dict[str, None]) -> _Mesh:
        """Without points in no cell, and with one node where several points lie. Raises DataError."""
        parts, cells, kind, owners = _chosen_cells(frame, notes)
        points, axes = _in_plane(frame, kind)
        outside = (cells < 0) | (cells >= len(points))
        if outside.any() or not np.isfinite(points).all():
            raise DataError(f"{frame.where}: {'; '.join(mesh_problems(points, cells, kind, None))}")
        used = np.zeros(len(points), bool)
        used[cells.reshape(-1)] = True
        numbers = np.flatnonzero(used)
        if len(numbers) < len(used):
            notes[f"{len(used) - len(numbers)} of {len(used)} nodes are in no cell: left out"] = None
        _, first, where = np.unique(points[numbers], axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # nodes in the order of the file
        rank = np.empty(len(first), np.int64)
        rank[order] = np.arange(len(first))
        new = np.full(len(used), -1)
        new[numbers] = rank[where.reshape(-1)]
        kept = numbers[first[order]]
        twice = np.setdiff1d(numbers, kept)
        if len(twice):
            words = f"{len(twice)} of {len(used)} nodes lie where another does, the first pair being"
            notes[f"{words} {kept[new[twice[0]]]} and {twice[0]}, with its values: made one"] = None
        problems = list(mesh_problems(points[kept], new[cells], kind, None))
        if problems:
            raise DataError(f"{frame.where}: {'; '.join(problems)}")
        return cls(frame, axes, points[kept], new[cells], kind, parts, owners, kept, (twice, new[twice]))

    def check_same(self, frame: Frame) -> None:
        """Raise DataError where a frame has another mesh."""
        before, now = self.frame.points, frame.points
        if before.shape != now.shape:
            raise self._other(frame, f"{len(now)} points instead of {len(before)}")
        apart, spare = np.abs(before - now).max(1), SAME * np.ptp(before, axis=0).max()
        if not apart.max() <= spare:
            first = int(np.argmax(~(apart <= spare)))
            raise self._other(frame, f"point {first} is {apart[first]:.3g} away from where it was")
        blocks = [(kind, cells) for kind, _, cells in self.frame.blocks]
        own = [(kind, cells) for kind, _, cells in frame.blocks]
        same = len(blocks) == len(own) and all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(blocks, own))
        if not same:
            raise self._other(frame, "its cells differ")

    def _other(self, frame: Frame, what: str) -> DataError:
        return DataError(
            f"{frame.where}: another mesh than in {self.frame.where}: {what}; expected one for all frames of a sample: "
            "put each sample into a folder of its own (meshes that move are not read)"
        )

    def data(self, frame: Frame, notes: dict[str, None]) -> dict[str, NDArray[Any]]:
        """Data at nodes, (N, channels) each; data of cells as the mean of the cells around each node.

        Raises DataError where points that lie at one place have different values.
        """
        found: dict[str, NDArray[Any]] = {}
        for name, values in frame.point_data.items():
            if values.dtype.kind not in "fiub" or not values.ndim or len(values) != len(frame.points):
                notes[f"'{name}' holds no numbers at nodes: left out"] = None
                continue
            flat = values.reshape(len(values), -1)
            found[name] = flat[self.kept]
            points, nodes = self.double
            apart = ~np.isclose(flat[points], found[name][nodes], *ALIKE, equal_nan=True).all(1)
            if apart.any() and values.dtype.kind == "f":
                pair = (int(self.kept[nodes[np.argmax(apart)]]), int(points[np.argmax(apart)]))
                raise DataError(
                    f"{frame.where}: {len(points)} of {len(flat)} nodes lie where another does, and '{name}' differs "
                    f"at {int(apart.sum())} of them, the first pair being {pair[0]} and {pair[1]}; expected one value "
                    "at a place"
                )
        for name, blocks in frame.cell_data.items():
            values = np.concatenate([np.asarray(blocks[part]) for part in self.parts])
            if values.dtype.kind != "f":
                notes[f"'{name}' is no field of floats, and of cells: left out"] = None
            elif name not in found:
                notes[f"'{name}' is of cells: each node has the mean of its cells, by their size"] = None
                found[name] = self._at_nodes(values.reshape(len(values), -1))
        return found

    def _at_nodes(self, values: NDArray[Any]) -> NDArray[np.float64]:
        size = np.repeat(volumes(self.coords, self.cells, self.kind), self.cells.shape[1])
        nodes, count = self.cells.reshape(-1), len(self.coords)
        every = np.repeat(values[self.owners], self.cells.shape[1], axis=0)
        sums = [np.bincount(nodes, size * every[:, channel], minlength=count) for channel in range(values.shape[1])]
        means: NDArray[np.float64] = np.stack(sums, 1) / np.bincount(nodes, size, minlength=count)[:, None]
        return means


def _in_plane(frame: Frame, kind: str) -> tuple[NDArray[np.float64], tuple[int, ...] | None]:
    """The points along the axes that they extend along, and these axes; None where they extend along all."""
    extent = np.ptp(frame.points, axis=0)
    along = tuple(int(axis) for axis in np.flatnonzero(extent > SAME * extent.max(initial=0)))
    if len(along) == frame.points.shape[1] or not along:
        return frame.points, None
    if len(along) < DIMS[kind]:
        raise DataError(
            f"{frame.where}: cells of {DIMS[kind]} dimensions on points that extend along {len(along)} axes"
        )
    return frame.points[:, list(along)], along


def _chosen_cells(frame: Frame, notes: dict[str, None]) -> tuple[tuple[int, ...], Cells, str, NDArray[np.int64]]:
    """The cells of the highest dimension: their blocks, themselves, their kind, and which of those blocks' each is."""
    highest = max((dims for _, dims, _ in frame.blocks), default=0)
    if highest == 0:
        raise DataError(f"{frame.where}: has no cells, points alone; expected cells of {', '.join(CELL_TYPES)}")
    parts = tuple(number for number, (_, dims, _) in enumerate(frame.blocks) if dims == highest)
    kinds = {kind: sum(len(b[2]) for b in frame.blocks if b[0] == kind) for kind in (frame.blocks[p][0] for p in parts)}
    others = {kind for kind, dims, _ in frame.blocks if dims < highest}
    if others:
        notes[f"cells of fewer dimensions ({', '.join(sorted(others))}) are left out"] = None
    tables = [np.asarray(frame.blocks[part][2], np.int64) for part in parts]
    starts = np.cumsum([0, *(len(table) for table in tables)])
    every = [np.arange(start, stop) for start, stop in pairwise(starts.tolist())]
    if len(kinds) == 1 and next(iter(kinds)) in CELL_TYPES:
        return parts, np.concatenate(tables), next(iter(kinds)), np.concatenate(every)
    if set(kinds) == {"triangle", "quad"}:
        notes["quads beside triangles are cut into triangles"] = None
        owners = [np.tile(own, table.shape[1] - 2) for own, table in zip(every, tables, strict=True)]
        cut = [simplices(table, "quad") if table.shape[1] == 4 else table for table in tables]
        return parts, np.concatenate(cut), "triangle", np.concatenate(owners)
    known = ", ".join(CELL_TYPES)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    raise DataError(
        f"{frame.where}: holds {listed}; expected cells of one kind of {known}, or triangles and quads: convert the "
        "mesh to simple cells first"
    )
