"""Stores in the `mesh_zarr` layout: what their headers say, checked, sample by sample.

The layout is written down in `ups_kit.data.mesh_store`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.addresses import url_of
from ups_kit.data.byte_stores import byte_store
from ups_kit.data.mesh_files import is_mesh_source
from ups_kit.data.mesh_store import LAPLACIAN, LAYOUT, VERSION
from ups_kit.data.meshes import CELL_TYPES
from ups_kit.data.sample_stores import sample_name
from ups_kit.data.zarr_metadata import AGAIN, checksum
from ups_kit.data.zarr_store import ZarrArray, ZarrStore, check_layout
from ups_kit.errors import did_you_mean

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
UNEVEN = 1e-3  # of a time step: what times in float32 are off by, and more
MOST_CATEGORIES = 1024  # of a static of whole numbers: each of them becomes a channel
LARGEST = 1e30  # of a number; squares of it are finite in float64
KEPT = 512  # samples whose headers are kept in a process
SAMPLE = re.compile(r"sample_\d+")


@frozen(eq=False, kw_only=True)
class StoredSample:
    """One sample's headers: T frames on N nodes in D dimensions."""

    where: str
    coords: ZarrArray  # (N, D)
    cells: ZarrArray | None
    kind: str  # of the cells
    edges: ZarrArray | None
    times: NDArray[np.float64]  # (T,)
    fields: Mapping[str, ZarrArray]  # (T, N, C)
    statics: Mapping[str, ZarrArray]  # (N, C), or (N,) of whole numbers
    laplacian: tuple[ZarrArray, ...] | None  # data, indices, indptr

    @property
    def points(self) -> int:
        return int(self.coords.shape[0])

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def dt(self) -> float:
        """The time between two stored frames; 1 where there is one."""
        return float(self.times[-1] - self.times[0]) / (self.frames - 1) if self.frames > 1 else 1.0


@define(eq=False)
class MeshStore:
    """A store, for any number of readers; samples are opened when they are asked for.

    It travels to other processes without the headers of its samples.
    """

    path: Path
    attributes: Mapping[str, Any]
    names: tuple[str, ...]  # of the samples' groups
    _opened: OrderedDict[int, StoredSample] = field(factory=OrderedDict, init=False, repr=False)

    @classmethod
    def open(cls, path: Path) -> MeshStore:
        """Raises DataError where this is no such store."""
        address = url_of(path)
        if address is None and is_mesh_source(path):
            raise DataError(
                f"{path}: holds files of meshes; `upskit data convert {path} --to zarr` makes them a store, which this "
                "dataset reads"
            )
        store = ZarrStore.open(address if address is not None else path)
        attributes, where = store.attributes, f"{store.label}/zarr.json"
        check_layout(attributes, LAYOUT, VERSION, where)
        _check_types(attributes, where)
        if "checksum" in attributes:
            _check_sum(attributes["checksum"], {"": store.document("")}, where)
        return cls(path, attributes, _sample_names(store, attributes, where))

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.attributes, self.names)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def where(self, number: int) -> str:
        """File and sample, for messages."""
        return f"{self.path}, {self.names[number]}"

    def group(self, number: int) -> Mapping[str, Any]:
        """A sample's attributes. Raises DataError."""
        found: Mapping[str, Any] = self._store().document(self.names[number]).get("attributes", {})
        parameters, split = found.get("parameters", {}), found.get("split")
        where = f"{self.path}/{self.names[number]}/zarr.json"
        if not isinstance(parameters, dict) or not all(map(_number, parameters.values())):
            raise DataError(f"{where}: parameters: expected a table of numbers, got {str(parameters)[:80]}; {AGAIN}")
        if split not in (None, "train", "validation", "test"):
            raise DataError(f"{where}: split: expected train, validation or test, got {str(split)[:80]!r}; {AGAIN}")
        return found

    def sample(self, number: int) -> StoredSample:
        """A sample's headers, checked. Raises DataError."""
        found = self._opened.get(number)
        if found is None:
            found = self._opened[number] = _Opening(self._store(), self.names[number], self.attributes).sample()
            self._check_lists(number, found)
            while len(self._opened) > KEPT:
                self._opened.pop(next(iter(self._opened)), None)
        return found

    def sizes(self, key: str) -> NDArray[np.int64]:
        """Nodes ("points") or frames of every sample, (S,), from the root, or from the samples themselves."""
        said = self.attributes.get(key)
        if said is not None:
            return np.asarray(said, np.int64)
        return np.array([getattr(self.sample(number), key) for number in range(len(self.names))], np.int64)

    @cached_property
    def box(self) -> tuple[tuple[float, float], ...]:
        """What holds all nodes, as the root says or the nodes are."""
        said = self.attributes.get("domain")
        if said is not None:
            return tuple((float(low), float(high)) for low, high in said)
        every = [np.asarray(self.sample(number).coords.values(), np.float64) for number in range(len(self.names))]
        dims = {each.shape[1] for each in every}
        if len(dims) > 1:
            first = next(number for number, each in enumerate(every) if each.shape[1] != every[0].shape[1])
            raise DataError(
                f"{self.where(first)}: coords: expected {every[0].shape[1]} dimensions, as {self.names[0]} has, got "
                f"{every[first].shape[1]}"
            )
        low, high = np.min([each.min(0) for each in every], 0), np.max([each.max(0) for each in every], 0)
        return tuple((float(least), float(most)) for least, most in zip(low, high))

    def categories(self, name: str) -> int:
        """How many categories a static of whole numbers has in all samples together."""
        found = self.attributes.get("categories", {}).get(name)
        if found is None:
            every = (self.sample(number).statics[name].values() for number in range(len(self.names)))
            found = 1 + max(int(values.max(initial=0)) for values in every)
        if found > MOST_CATEGORIES:
            raise DataError(
                f"{self.path}: statics/{name}: expected whole numbers in 0 … {MOST_CATEGORIES - 1}, a channel for each "
                f"category, got {found:,} categories; store what is no category as floats, or leave the field out with "
                "dataset.statics"
            )
        return int(found)

    def described(self, group: str) -> tuple[Field, ...]:
        """The fields, or statics, of all samples, as the first one has them."""
        units, first = self.attributes.get("units", {}), self.sample(0)
        found = []
        for name, array in (first.fields if group == "fields" else first.statics).items():
            channels = array.shape[-1] if len(array.shape) > 1 else self.categories(name)
            found.append(Field(name, channels, units.get(name, "1")))
        return tuple(found)

    def _store(self) -> ZarrStore:
        """The store with no header read yet: those of a sample are kept with it, and no longer."""
        address = url_of(self.path)
        return ZarrStore(byte_store(address if address is not None else self.path))

    def _check_lists(self, number: int, sample: StoredSample) -> None:
        for key in ("points", "frames"):
            said, own = self.attributes.get(key), getattr(sample, key)
            if said is not None and said[number] != own:
                raise DataError(
                    f"{self.path}/zarr.json: {key}: expected {own} for {self.names[number]}, as its arrays have, got "
                    f"{said[number]}; {AGAIN}"
                )
        dims = len(self.attributes["domain"]) if "domain" in self.attributes else sample.coords.shape[1]
        if sample.coords.shape[1] != dims:
            raise DataError(
                f"{sample.where}: coords: expected {dims} dimensions, as the store's domain has, got "
                f"{sample.coords.shape[1]}"
            )


@frozen(eq=False)
class _Opening:
    """One sample while its headers are read."""

    store: ZarrStore
    name: str
    attributes: Mapping[str, Any]  # of the root

    @property
    def where(self) -> str:
        return f"{self.store.label}, {self.name}"

    def sample(self) -> StoredSample:
        self._check_sum()
        coords = self._array("coords")
        if len(coords.shape) != 2 or not 1 <= coords.shape[1] <= 3:
            raise DataError(f"{self._at(coords)}: expected (nodes, 1 to 3 axes), got {list(coords.shape)}")
        if coords.shape[0] == 0:
            raise DataError(f"{self._at(coords)}: expected at least one node, got none")
        self._check_floats(coords)
        fields = {name: self._array(f"fields/{name}") for name in self._names("fields")}
        frames = self._frames(fields, coords.shape[0])
        cells, kind = self._cells()
        edges = self._table("edges") if self.store.kind(f"{self.name}/edges") == "array" else None
        if cells is None and edges is None:
            raise DataError(f"{self.where}: expected cells or edges, got none of them; {AGAIN}")
        return StoredSample(
            where=self.where,
            coords=coords,
            cells=cells,
            kind=kind,
            edges=edges,
            times=self._times(frames),
            fields=fields,
            statics={name: self._static(name, coords.shape[0]) for name in self._names("statics")},
            laplacian=self._laplacian(coords.shape[0]),
        )

    def _array(self, path: str) -> ZarrArray:
        return self.store.array(f"{self.name}/{path}")

    def _at(self, array: ZarrArray) -> str:
        return f"{array.metadata.where}: shape"

    def _names(self, group: str) -> tuple[str, ...]:
        listed = self.attributes.get(group)
        if listed is None:
            path = f"{self.name}/{group}"
            listed = self.store.children(path) if self.store.kind(path) == "group" else ()
        if group == "fields" and not listed:
            raise DataError(f"{self.where}: fields: expected at least one, got none; {AGAIN}")
        return tuple(listed)

    def _frames(self, fields: Mapping[str, ZarrArray], nodes: int) -> int:
        """How many frames the fields have, all of them alike."""
        for array in fields.values():
            shape = array.shape
            if len(shape) != 3 or shape[1] != nodes or 0 in shape:
                raise DataError(
                    f"{self._at(array)}: expected [time, {nodes}, channels] with at least one frame and channel, as "
                    f"'coords' has {nodes} nodes, got {list(shape)}"
                )
            self._check_floats(array)
        counts = {name: array.shape[0] for name, array in fields.items()}
        if len(set(counts.values())) > 1:
            table = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"{self.where}: fields: expected as many frames in all of them, got {table}")
        return next(iter(counts.values()))

    def _times(self, frames: int) -> NDArray[np.float64]:
        path = f"{self.name}/time"
        if frames == 1 and self.store.kind(path) is None:
            return np.zeros(1)
        array = self.store.array(path)
        if array.shape != (frames,):
            raise DataError(f"{self._at(array)}: expected [{frames}], as the fields have, got {list(array.shape)}")
        times = np.asarray(array.values(), np.float64)
        steps = np.diff(times)
        if not np.isfinite(times).all() or (steps <= 0).any():
            first = int(np.argmax(~(steps > 0)))
            raise DataError(
                f"{array.metadata.where}: does not rise: its entries {first} and {first + 1} are "
                f"{', '.join(f'{time:g}' for time in times[first : first + 2])}; expected rising values"
            )
        if len(steps) and np.ptp(steps) > UNEVEN * steps.mean():
            raise DataError(
                f"{array.metadata.where}: is not evenly spaced: steps of {steps.min():g} to {steps.max():g}; expected "
                "equal ones"
            )
        return times

    def _cells(self) -> tuple[ZarrArray | None, str]:
        if self.store.kind(f"{self.name}/cells") != "array":
            return None, ""
        array = self._table("cells")
        kind = array.metadata.attributes.get("cell_type")
        if kind is None:
            fitting = [name for name, corners in CELL_TYPES.items() if corners == array.shape[1]]
            kind = fitting[0] if len(fitting) == 1 else "none"
        if not isinstance(kind, str) or CELL_TYPES.get(kind) != array.shape[1]:
            known = ", ".join(f"{name} ({corners} corners)" for name, corners in CELL_TYPES.items())
            guess = "" if kind in tuple(CELL_TYPES) else did_you_mean(str(kind), CELL_TYPES)
            raise DataError(
                f"{array.metadata.where}: cell_type: expected one of {known}, got {str(kind)[:40]!r} with "
                f"{array.shape[1]} corners{guess}"
            )
        return array, kind

    def _table(self, name: str) -> ZarrArray:
        array = self._array(name)
        width = {"edges": (2,)}.get(name, tuple(sorted(set(CELL_TYPES.values()))))
        if len(array.shape) != 2 or array.shape[1] not in width:
            wanted = " or ".join(map(str, width))
            raise DataError(f"{self._at(array)}: expected [{name}, {wanted}], got {list(array.shape)}")
        _check_whole(array)
        return array

    def _static(self, name: str, nodes: int) -> ZarrArray:
        array = self._array(f"statics/{name}")
        whole = array.dtype.kind in "iu"
        if array.shape[:1] != (nodes,) or len(array.shape) != (1 if whole else 2) or 0 in array.shape:
            wanted = f"[{nodes}]" if whole else f"[{nodes}, channels]"
            raise DataError(
                f"{self._at(array)}: expected {wanted}, as 'coords' has {nodes} nodes, got {list(array.shape)}"
            )
        if not whole:
            self._check_floats(array)
        return array

    def _laplacian(self, nodes: int) -> tuple[ZarrArray, ...] | None:
        if self.store.kind(f"{self.name}/laplacian") != "group":
            return None
        data, indices, indptr = (self._array(f"laplacian/{name}") for name in LAPLACIAN)
        self._check_floats(data)
        _check_whole(indices)
        _check_whole(indptr)
        if data.shape != indices.shape or len(data.shape) != 1 or indptr.shape != (nodes + 1,):
            raise DataError(
                f"{self.where}: laplacian: expected as many data as indices, and indptr [{nodes + 1}], got "
                f"{list(data.shape)}, {list(indices.shape)} and {list(indptr.shape)}"
            )
        return data, indices, indptr

    @staticmethod
    def _check_floats(array: ZarrArray) -> None:
        if array.dtype not in FLOATS:
            raise DataError(f"{array.metadata.where}: data_type: expected float32 or float64, got {array.dtype}")

    def _check_sum(self) -> None:
        said = self.store.document(self.name).get("attributes", {}).get("checksum")
        if said is None:
            return
        documents = {"": self.store.document(self.name)}
        pending = [""]
        while pending:
            group = pending.pop()
            path = f"{self.name}/{group}" if group else self.name
            if self.store.place.children(path) is None:
                return  # a place that cannot list
            for name in self.store.children(path):
                inner = f"{group}/{name}" if group else name
                documents[inner] = self.store.document(f"{self.name}/{inner}")
                if documents[inner]["node_type"] == "group":
                    pending.append(inner)
        _check_sum(said, documents, f"{self.store.label}/{self.name}/zarr.json")


def _check_whole(array: ZarrArray) -> None:
    if array.dtype.kind not in "iu":
        raise DataError(f"{array.metadata.where}: data_type: expected whole numbers, got {array.dtype}")


def _check_sum(said: object, documents: Mapping[str, Mapping[str, Any]], where: str) -> None:
    found = checksum(documents)
    if found != said:
        raise DataError(
            f"{where}: checksum: expected {str(said)[:23]}… of the metadata, got {found[:23]}…: a zarr.json was "
            f"damaged or changed since the store was written; {AGAIN}; if you changed it yourself, remove the "
            "attribute 'checksum'"
        )


def _sample_names(store: ZarrStore, attributes: Mapping[str, Any], where: str) -> tuple[str, ...]:
    said = attributes.get("samples")
    names = () if said else tuple(sorted(name for name in store.children() if SAMPLE.fullmatch(name)))
    count = len(names) if said is None else said
    if not count:
        raise DataError(f"{where}: expected groups sample_00000, …, got none; {AGAIN}")
    for key in ("points", "frames"):
        sizes = attributes.get(key)
        if sizes is not None and len(sizes) != count:
            raise DataError(f"{where}: {key}: expected {count} numbers, one for each sample, got {len(sizes)}")
    if said is None:
        return names
    store.document(sample_name(count - 1))  # so that no more are looked for than can be there
    return tuple(sample_name(number) for number in range(count))


def _check_types(attributes: Mapping[str, Any], where: str) -> None:
    """The attributes that are used have the types that they should have."""

    def names(value: object) -> bool:
        listed = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return listed and len(set(value)) == len(value)  # type: ignore[call-overload, arg-type]

    def ends(value: object) -> bool:
        return isinstance(value, list) and 1 <= len(value) <= 3 and all(_interval(each) for each in value)

    def sizes(value: object) -> bool:
        return isinstance(value, list) and all(type(each) is int and each > 0 for each in value)

    def counts(value: object) -> bool:
        return isinstance(value, dict) and sizes(list(value.values()))

    expected: Mapping[str, tuple[str, Any]] = {
        "fields": ("a list of names", names),
        "statics": ("a list of names", names),
        "domain": ("[low, high] for one to three axes", ends),
        "periodic": ("true or false for each axis", lambda v: isinstance(v, list) and all(type(e) is bool for e in v)),
        "samples": ("a whole number from 1 on", lambda value: sizes([value])),
        "points": ("a list of whole numbers from 1 on", sizes),
        "frames": ("a list of whole numbers from 1 on", sizes),
        "categories": ("a table of whole numbers from 1 on", counts),
        "units": ("a table of names", lambda v: isinstance(v, dict) and all(isinstance(u, str) for u in v.values())),
        "checksum": ("a text", lambda value: isinstance(value, str)),
    }
    for key, (what, fits) in expected.items():
        if key in attributes and not fits(attributes[key]):
            raise DataError(f"{where}: {key}: expected {what}, got {str(attributes[key])[:80]}; {AGAIN}")
    domain, periodic = attributes.get("domain"), attributes.get("periodic")
    if domain is not None and periodic is not None and len(domain) != len(periodic):
        raise DataError(f"{where}: periodic: expected {len(domain)} of true and false, as domain has, got {periodic}")


def _interval(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_end, value)) and bool(value[0] < value[1])


def _number(value: object) -> bool:
    """Whether this is a number that a float can hold, NaN and infinity included."""
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def _end(value: object) -> bool:
    """Whether this is a finite number that a domain may end at."""
    return type(value) in (int, float) and bool(abs(value) < LARGEST)  # type: ignore[arg-type]


def parameters_of(store: MeshStore) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names of the parameters that every sample has, and their numbers (S, names)."""
    tables: Sequence[Mapping[str, float]] = [
        store.group(number).get("parameters", {}) for number in range(len(store.names))
    ]
    names = tuple(name for name in tables[0] if all(name in table for table in tables))
    return names, np.array([[table[name] for name in names] for table in tables], np.float64).reshape(
        len(tables), len(names)
    )
