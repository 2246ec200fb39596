"""Zarr stores in the `grid_zarr` layout as sources: what their headers say, checked.

The layout is written down in `ups_kit.data.grid_store`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.addresses import url_of
from ups_kit.data.grid_store import LAYOUT, VERSION, node_paths
from ups_kit.data.zarr_metadata import AGAIN, checksum
from ups_kit.data.zarr_store import ZarrArray, ZarrStore, check_layout
from ups_kit.errors import did_you_mean

from .arrays import ArraySource, Spread, Stack
from .coordinates import checked_coordinate
from .formats import GridZarrConfig
from .source import AXES, Header, Source

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def open_store(config: GridZarrConfig, path: Path) -> Source:
    """One store as a source, its metadata read and checked. Raises DataError."""
    address = url_of(path)
    store = ZarrStore.open(address if address is not None else path)
    return _Reading.of(store, path).source(config)


@frozen
class _Reading:
    """A store, its attributes checked, and what its names are."""

    store: ZarrStore
    path: Path
    attributes: Mapping[str, Any]
    axes: tuple[NDArray[np.float64], ...]
    axis_names: tuple[str, ...]
    times: NDArray[np.float64]

    @classmethod
    def of(cls, store: ZarrStore, path: Path) -> _Reading:
        attributes = store.attributes
        where = f"{store.label}/zarr.json"
        check_layout(attributes, LAYOUT, VERSION, where)
        _check_types(attributes, where)
        _check_sum(store, attributes, where)
        names, axes = _axes(store, attributes)
        steady = attributes.get("steady", False)
        time = store.array("time").values()
        times = np.zeros(1) if steady else checked_coordinate(path, "time", time, (time.size,), "frames")
        if steady and time.shape != (1,):
            raise DataError(f"{where}: steady: expected one entry in 'time', got {list(time.shape)}; {AGAIN}")
        return cls(store, path, attributes, axes, names, times)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    def source(self, config: GridZarrConfig) -> Source:
        fields = self._fields(self._names("fields", config.fields))
        single = len(next(iter(fields.values())).metadata.shape) == len(self.grid) + 2
        trajectories = next(iter(fields.values())).shape[0]
        statics = self._statics(self._names("statics", config.statics), trajectories)
        channels = tuple(array.shape[-1] for array in fields.values())
        given = tuple(array.components for array in statics.values())
        header = Header(
            path=self.path,
            trajectories=trajectories,
            times=self.times,
            axes=self.axes,
            targets=self._described(fields, channels),
            statics=self._described(statics, given),
            parameters=self._by_trajectory("parameters", trajectories, single),
            attributes=self._by_trajectory("numbers", trajectories, single),
            steady=bool(self.attributes.get("steady", False)),
            periodic=self._periodic(),
        )
        return ArraySource(header, Stack(tuple(fields.values()), channels), Stack(tuple(statics.values()), given))

    def _names(self, group: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The names that the recipe asks for, else those that the attributes list, else all in the group."""
        listed = self.attributes.get(group)
        if listed is None:
            listed = self.store.children(group) if self.store.kind(group) == "group" else ()
        missing = [name for name in wanted or () if name not in listed]
        if missing or (group == "fields" and not listed):
            what = f"'{missing[0]}'{did_you_mean(missing[0], listed)}" if missing else "at least one"
            there = ", ".join(listed) or "nothing"
            raise DataError(f"{self.store.label}/{group}: expected {what}, got {there}", group if missing else "")
        return tuple(wanted if wanted is not None else listed)

    def _fields(self, names: Sequence[str]) -> dict[str, ZarrArray]:
        letters = ", ".join(AXES[: len(self.grid)])
        found: dict[str, ZarrArray] = {}
        for name in names:
            array = self.store.array(f"fields/{name}")
            shape = array.metadata.shape
            lead = len(shape) - len(self.grid) - 1
            inner = (len(self.times), *self.grid)
            if lead not in (1, 2) or shape[lead - 1 : -1] != inner or 0 in shape:
                raise DataError(
                    f"{array.metadata.where}: shape: expected [trajectory, time, {letters}, channel] with "
                    f"{list(inner)} for time and points, as 'time' and 'coords' say, or the same of one "
                    f"trajectory without the first axis, got {list(shape)}"
                )
            _check_float(array)
            found[name] = array.led_by(1) if lead == 1 else array
        counts = {array.shape[0] for array in found.values()}
        if len(counts) > 1:
            table = ", ".join(f"{name} {list(array.metadata.shape)}" for name, array in found.items())
            raise DataError(f"{self.store.label}/fields: expected as many trajectories in all of them, got {table}")
        return found

    def _statics(self, names: Sequence[str], trajectories: int) -> dict[str, Spread]:
        found: dict[str, Spread] = {}
        for name in names:
            array = self.store.array(f"statics/{name}")
            shape = array.metadata.shape
            shared = shape[:-1] == self.grid
            if (not shared and shape[:-1] != (trajectories, *self.grid)) or 0 in shape:
                raise DataError(
                    f"{array.metadata.where}: shape: expected {[trajectories, *self.grid]} and channels, or the same "
                    f"without the first axis where all trajectories share it, got {list(shape)}"
                )
            _check_float(array)
            found[name] = Spread(array, not shared, False, (True,) * len(self.grid), self.grid)
        return found

    def _by_trajectory(self, group: str, trajectories: int, single: bool) -> dict[str, NDArray[np.float64]]:
        found = {}
        for name in self._names(group, None):
            array = self.store.array(f"{group}/{name}")
            shape = array.metadata.shape
            if shape != (trajectories,) and not (single and shape == ()):
                raise DataError(
                    f"{array.metadata.where}: shape: expected {[trajectories]}, a number for each trajectory, got "
                    f"{list(shape)}"
                )
            found[name] = np.asarray(array.values(), np.float64).reshape(-1)
        return found

    def _described(self, names: Iterable[str], channels: Sequence[int]) -> tuple[Field, ...]:
        units = self.attributes.get("units", {})
        return tuple(Field(name, count, units.get(name, "1")) for name, count in zip(names, channels, strict=True))

    def _periodic(self) -> tuple[bool, ...] | None:
        said = self.attributes.get("periodic")
        if said is not None:
            if len(said) != len(self.grid):
                raise DataError(
                    f"{self.store.label}/zarr.json: periodic: expected {len(self.grid)} of true and false, got {said}"
                )
            return tuple(said)
        kinds = self.attributes.get("boundary_conditions", {})
        return tuple(kinds.get(name) == "periodic" for name in self.axis_names) if kinds else None


def _check_types(attributes: Mapping[str, Any], where: str) -> None:
    """The attributes that are used have the types that they should have."""

    def names(value: object) -> bool:
        listed = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return listed and len(set(value)) == len(value)  # type: ignore[call-overload, arg-type]

    expected: Mapping[str, tuple[str, Any]] = {
        "axes": ("a list of names", names),
        "fields": ("a list of names", names),
        "statics": ("a list of names", names),
        "parameters": ("a list of names", names),
        "numbers": ("a list of names", names),
        "steady": ("true or false", lambda value: isinstance(value, bool)),
        "periodic": ("true or false for each axis", lambda v: isinstance(v, list) and all(type(e) is bool for e in v)),
        "boundary_conditions": ("a table", lambda value: isinstance(value, dict)),
        "units": ("a table of names", lambda v: isinstance(v, dict) and all(isinstance(u, str) for u in v.values())),
        "checksum": ("a text", lambda value: isinstance(value, str)),
    }
    for key, (what, fits) in expected.items():
        if key in attributes and not fits(attributes[key]):
            raise DataError(f"{where}: {key}: expected {what}, got {str(attributes[key])[:80]}; {AGAIN}")


def _check_sum(store: ZarrStore, attributes: Mapping[str, Any], where: str) -> None:
    said = attributes.get("checksum")
    if said is None:
        return
    if "axes" not in attributes:
        raise DataError(f"{where}: axes: expected the names of the axes, as there is a checksum, got none; {AGAIN}")
    found = checksum({path: store.document(path) for path in node_paths(attributes)})
    if found != said:
        raise DataError(
            f"{where}: checksum: expected {said[:23]}… of the store's metadata, got {found[:23]}…: a zarr.json was "
            f"damaged or changed since the store was written; {AGAIN}; if you changed it yourself, remove the "
            "attribute 'checksum'"
        )


def _axes(store: ZarrStore, attributes: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[NDArray[np.float64], ...]]:
    path = Path(store.label)
    if store.kind("coords") == "array":
        axes = _separated(store.array("coords"))
        names = tuple(attributes.get("axes", AXES[: len(axes)]))
    else:
        names = tuple(attributes.get("axes") or store.children("coords"))
        axes = [store.array(f"coords/{name}").values() for name in names]
    if not 1 <= len(axes) <= 3 or len(names) != len(axes):
        raise DataError(f"{store.label}/coords: expected one to three axes, got {len(axes)} ({', '.join(names)})")
    checked = (
        checked_coordinate(path, f"coords/{name}", axis, (axis.size,), "points")
        for name, axis in zip(names, axes, strict=True)
    )
    found = tuple(checked)
    if min(len(axis) for axis in found) < 2:
        raise DataError(f"{store.label}/coords: expected at least 2 points along each axis")
    return names, found


def _separated(array: ZarrArray) -> list[NDArray[np.float64]]:
    """The axes of a grid from the coordinates of all its points, (points, D) or (*grid, D)."""
    where = array.metadata.where
    values = np.asarray(array.values(), np.float64)
    if values.ndim == 1:
        values = values[:, None]
    dims = values.shape[-1]
    flat = values.reshape(-1, dims)
    if not 1 <= dims <= 3 or not len(flat):
        raise DataError(f"{where}: expected coordinates (points, 1 to 3), got the shape {list(values.shape)}")
    axes = [np.unique(flat[:, axis]) for axis in range(dims)]
    grid = tuple(len(axis) for axis in axes)
    regular = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    if values.shape not in ((*grid, dims), (len(flat), dims)) or regular.size != values.size:
        raise DataError(f"{where}: expected the points of a regular grid, got {len(flat)} on axes of {list(grid)}")
    if not np.array_equal(regular.reshape(-1, dims), flat):
        raise DataError(f"{where}: expected the points of a regular grid in row-major order, got another order")
    return axes


def _check_float(array: ZarrArray) -> None:
    if array.metadata.dtype not in FLOATS:
        raise DataError(f"{array.metadata.where}: data_type: expected float32 or float64, got {array.metadata.dtype}")
