"""A store of meshes as a source of trajectories: the fields that a recipe chooses, and features of the mesh."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.data.chunks import ChunkCache
from ups_kit.data.making import check_made_by
from ups_kit.data.mesh_store import LAPLACIAN
from ups_kit.data.meshes import boundary, lumped, mesh_problems, triangles
from ups_kit.data.stamps import Stamp
from ups_kit.interfaces import Layout

from .formats import MeshZarrConfig, check_features, chosen
from .store import MeshStore, StoredSample, parameters_of

Array = NDArray[Any]
KEPT_BYTES = 128 * 2**20  # of nodes, statics and weights, in one process
SHOWN = 4  # problems of one mesh that a message lists
BEYOND = 1e-6  # of the domain's extent, by which nodes may lie outside of it


@frozen(eq=False, slots=False)
class MeshSource:
    """A `PointSource` of points that stand still: the nodes of a mesh for each sample."""

    store: MeshStore
    targets: tuple[Field, ...]
    stored: tuple[Field, ...]  # statics that the store holds
    features: tuple[str, ...]
    first: int
    stride: int
    token: object = field(factory=object, repr=False)  # under which arrays are kept, in this process

    @property
    def layout(self) -> Layout:
        return "mesh"

    @property
    def moves_with(self) -> None:
        return None

    @property
    def statics(self) -> tuple[Field, ...]:
        return (*self.stored, *(Field(name) for name in self.features))

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """Statics of zeros and ones."""
        whole = [name for name, array in self.store.sample(0).statics.items() if len(array.shape) == 1]
        return (*whole, *(name for name in self.features if name == "boundary"))

    @property
    def domain(self) -> tuple[tuple[float, float], ...]:
        return self.store.box

    @property
    def periodic(self) -> tuple[bool, ...]:
        return tuple(self.store.attributes.get("periodic", (False,) * len(self.domain)))

    @cached_property
    def dt(self) -> float:
        """Of the model; 1 where samples have one frame."""
        first = self.store.sample(0)
        return first.dt * self.stride if first.frames > 1 else 1.0

    @cached_property
    def _parameters(self) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        return parameters_of(self.store)

    @property
    def conditions(self) -> tuple[str, ...]:
        return self._parameters[0]

    @property
    def parameters(self) -> NDArray[np.float64]:
        return self._parameters[1]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        return self.store.sizes("points")

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        stored = self.store.sizes("frames")
        return np.maximum(0, -(-(stored - self.first) // self.stride))

    @property
    def fingerprint(self) -> str:
        stamp = Stamp.of_local(self.store.path)
        return f"{self.store.path}" if stamp is None else f"{stamp.size} {stamp.changed}"

    def times(self, number: int) -> NDArray[np.float64]:
        return self._sample(number).times[self.first :: self.stride]

    def positions(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._kept(number, "places", lambda: self.coords(number).astype(np.float32))

    def values(self, number: int, frames: NDArray[np.int64]) -> NDArray[np.float32]:
        sample = self._sample(number)
        asked = np.asarray(frames, np.int64)
        if asked.size and not 0 <= asked.min() <= asked.max() < self.frames[number]:
            raise IndexError(f"{self.where(number)}: has {self.frames[number]} frames")
        numbers, one = (self.first + self.stride * asked)[None], np.zeros(1, np.int64)
        self._check_channels(number)
        parts = [sample.fields[each.name].led_by(1).gather(one, numbers)[0] for each in self.targets]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)

    def given(self, number: int) -> NDArray[np.float32]:
        return self._kept(number, "given", lambda: self._given(number))

    def weights(self, number: int) -> NDArray[np.float32] | None:
        if self._sample(number).cells is None:
            return None
        return self._feature("area", number)

    def cells(self, number: int) -> NDArray[np.int64] | None:
        """Triangles, for pictures."""
        table = self._table(number, "cells")
        return None if table is None else triangles(table, self._sample(number).kind)

    def connectivity(self, number: int) -> NDArray[np.int64] | None:
        """The cells as they are stored, or the edges where there are none."""
        table = self._table(number, "cells")
        return self._table(number, "edges") if table is None else table

    def laplacian(self, number: int) -> tuple[Array, Array, Array] | None:
        """The sparse matrix that is stored with a mesh, as data, indices and indptr of its rows."""
        arrays = self._sample(number).laplacian
        if arrays is None:
            return None
        data, indices, indptr = (array.values() for array in arrays)
        return data, indices, indptr

    def where(self, number: int) -> str:
        return self.store.where(number)

    def split_of(self, number: int) -> str | None:
        return self.store.group(number).get("split")

    def problem(self, number: int) -> str | None:
        """What is wrong with a mesh: its nodes, cells and sparse matrix, and that it differs from the others."""
        found = [*self._differences(number)]
        coords = self.coords(number)
        sample = self._sample(number)
        found += mesh_problems(coords, self._table(number, "cells"), sample.kind, self._table(number, "edges"))
        found += self._more_problems(number, coords)
        if not found:
            return None
        more = f"; and {len(found) - SHOWN} more problems" if len(found) > SHOWN else ""
        return f"{self.where(number)}: {'; '.join(found[:SHOWN])}{more}"

    # -- parts --
    def coords(self, number: int) -> NDArray[np.float64]:
        """Where the nodes are, (N, D)."""
        return np.asarray(self._sample(number).coords.values(), np.float64)

    def _sample(self, number: int) -> StoredSample:
        return self.store.sample(number)

    def _table(self, number: int, name: str) -> NDArray[np.int64] | None:
        array = getattr(self._sample(number), name)
        return None if array is None else np.asarray(array.values(), np.int64)

    def _kept(self, number: int, what: str, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What a sample has in all its windows, kept for those that were read last."""
        key, cache = (self.token, what, number), _kept_arrays()
        found = cache.get(key)
        if found is None:
            found = compute()
            found.flags.writeable = False
            cache.put(key, found)
        return found

    def _check_channels(self, number: int) -> None:
        """Raise DataError where a sample has other fields than the first one, or other channels in them."""
        if _channels(self._sample(number)) != _channels(self._sample(0)):
            raise DataError(f"{self.where(number)}: {'; '.join(self._differences(number))}")

    def _given(self, number: int) -> NDArray[np.float32]:
        sample = self._sample(number)
        self._check_channels(number)
        parts: list[NDArray[np.float32]] = []
        for each in self.stored:
            values = sample.statics[each.name].values()
            if values.ndim == 2:
                parts.append(values.astype(np.float32))
                continue
            if values.min(initial=0) < 0 or values.max(initial=0) >= each.channels:
                raise DataError(
                    f"{sample.where}: statics/{each.name}: expected whole numbers in 0 … {each.channels - 1}, got "
                    f"{values.min()} … {values.max()}"
                )
            parts.append(np.eye(each.channels, dtype=np.float32)[values])
        parts += [self._feature(name, number)[:, None] for name in self.features]
        return np.concatenate(parts, 1) if parts else np.empty((sample.points, 0), np.float32)

    def _feature(self, name: str, number: int) -> NDArray[np.float32]:
        """What is computed of a mesh, (N,)."""
        computed: Mapping[str, Callable[[int], NDArray[Any]]] = {
            "boundary": self._boundary,
            "area": self._lumped,
            "sdf": self._distance,
        }
        return self._kept(number, name, lambda: computed[name](number).astype(np.float32))

    def _cells(self, number: int) -> tuple[NDArray[np.int64], str]:
        table, sample = self._table(number, "cells"), self._sample(number)
        if table is None:
            raise DataError(
                f"{sample.where}: dataset.features = {json.dumps(list(self.features))} are computed of cells, and this "
                "sample has edges alone; leave them out",
                "features",
            )
        inside = len(table) and table.min() >= 0 and table.max() < sample.points
        if not inside or not np.isfinite(self.coords(number)).all():
            raise DataError(self.problem(number) or sample.where)
        return table, sample.kind

    def _boundary(self, number: int) -> NDArray[np.float32]:
        cells, kind = self._cells(number)
        return boundary(cells, kind, self._sample(number).points).astype(np.float32)

    def _lumped(self, number: int) -> NDArray[np.float64]:
        cells, kind = self._cells(number)
        return lumped(self.coords(number), cells, kind)

    def _distance(self, number: int) -> NDArray[np.float64]:
        """The distance to the nearest node on the boundary, (N,)."""
        from scipy.spatial import cKDTree

        ends, coords = self._feature("boundary", number) > 0, self.coords(number)
        if not ends.any():
            raise DataError(f"{self.where(number)}: the mesh has no boundary, so that there is no 'sdf'", "features")
        distances: NDArray[np.float64] = cKDTree(coords[ends]).query(coords)[0]
        return distances

    # -- problems --
    def _differences(self, number: int) -> list[str]:
        """In what a sample differs from the first one, though all should be alike."""
        first, own = self._sample(0), self._sample(number)
        found = []
        for name, wanted, got in (
            ("dimensions", first.coords.shape[1], own.coords.shape[1]),
            ("channels", _channels(first), _channels(own)),
        ):
            if wanted != got:
                found.append(f"expected {name} {wanted}, as {self.store.names[0]} has, got {got}")
        if own.frames > 1 and abs(own.dt - first.dt) > 1e-3 * first.dt:
            found.append(f"time: expected steps of {first.dt:g}, as {self.store.names[0]} has, got {own.dt:g}")
        return found

    def _more_problems(self, number: int, coords: NDArray[np.float64]) -> list[str]:
        found = []
        low, high = np.array(self.domain).T
        spare = BEYOND * (high - low)
        outside = ((coords < low - spare) | (coords > high + spare)).any(1)
        if outside.any():
            node = int(np.argmax(outside))
            place = ", ".join(f"{value:g}" for value in coords[node])
            found.append(
                f"coords: {int(outside.sum())} of {len(coords)} nodes lie outside of the store's domain "
                f"{[list(ends) for ends in self.domain]}, the first being node {node} at ({place})"
            )
        matrix = self.laplacian(number)
        if matrix is not None:
            found += _matrix_problems(*matrix, len(coords))
        return found


_CACHES: dict[int, ChunkCache] = {}  # by process


def _kept_arrays() -> ChunkCache:
    """This process's arrays of samples; a forked child has none from its parent."""
    if os.getpid() not in _CACHES:
        _CACHES.clear()
        _CACHES[os.getpid()] = ChunkCache(KEPT_BYTES)
    return _CACHES[os.getpid()]


def _channels(sample: StoredSample) -> dict[str, int]:
    found = {name: int(array.shape[-1]) for name, array in sample.fields.items()}
    return found | {name: int(array.shape[1]) for name, array in sample.statics.items() if len(array.shape) == 2}


def _matrix_problems(data: Array, indices: Array, indptr: Array, nodes: int) -> list[str]:
    found = []
    if not np.isfinite(data).all():
        found.append(f"{LAPLACIAN[0]} of the laplacian: {int((~np.isfinite(data)).sum())} numbers are not finite")
    if len(indices) and not 0 <= indices.min() <= indices.max() < nodes:
        found.append(f"indices of the laplacian: expected 0 … {nodes - 1}, got {indices.min()} … {indices.max()}")
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        found.append(f"indptr of the laplacian: expected numbers that rise from 0 to {len(indices)}")
    return found


def open_source(config: MeshZarrConfig, path: Path) -> MeshSource:
    """One store as a source. Raises DataError."""
    store = MeshStore.open(path)
    if config.simulate is not None:
        check_made_by(path, store.attributes, config.simulate)
    targets = chosen(store.described("fields"), config.fields, "fields", str(path))
    stored = chosen(store.described("statics"), config.statics, "statics", str(path))
    check_features(stored, config.features)
    source = MeshSource(store, targets, stored, config.features, config.first_frame, config.time_stride)
    short = np.flatnonzero(source.frames < 1)
    if len(short):
        held = int(store.sizes("frames")[short[0]])
        raise DataError(
            f"{source.where(int(short[0]))}: has {held} frames, and dataset.first_frame = {config.first_frame} leaves "
            f"none; expected at most {held - 1}",
            "first_frame",
        )
    if (source.frames == 1).all() and (store.sizes("frames") > 1).any():  # what changes in time is not taken for steady
        held = int(store.sizes("frames").max())
        raise DataError(
            f"{source.where(0)}: has {held} frames, and dataset.first_frame = {config.first_frame} with time_stride = "
            f"{config.time_stride} leave one of them; expected two at least"
            + (f"; nearest: time_stride = {held - 1 - config.first_frame}" if held - 1 > config.first_frame else ""),
            "time_stride" if config.time_stride > 1 else "first_frame",
        )
    return source
