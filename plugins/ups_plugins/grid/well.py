"""The Well's HDF5 layout (arXiv:2412.00568) as sources: what the headers say, checked.

What the layout is was read from the project's description of its data format and its own reader, version 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import DataError, Field
from ups_kit.data.hdf5 import StoredArray, find_array, opened
from ups_kit.data.making import check_made_by
from ups_kit.errors import did_you_mean

from .arrays import ArraySource, Spread, Stack
from .coordinates import SPACING_TOLERANCE, checked_coordinate
from .files import check_file
from .formats import WELL_GROUPS, WellConfig
from .source import Header, Source

ROOT = ("n_trajectories", "n_spatial_dims")  # attributes without which nothing can be read
DIMENSIONS, SCALARS, BOUNDARIES = "dimensions", "scalars", "boundary_conditions"


def open_file(config: WellConfig, path: Path) -> Source:
    """One file as a source. Raises DataError."""
    check_file(path)
    with opened(path) as file:
        if config.simulate is not None:
            check_made_by(path, file.attrs, config.simulate)
        return _Reading.of(config, file, path).source()


@frozen
class _Reading:
    """An open file, and its points and times."""

    config: WellConfig
    file: h5py.File
    path: Path
    trajectories: int
    names: tuple[str, ...]  # of the axes
    axes: tuple[NDArray[np.float64], ...]
    times: NDArray[np.float64]

    @classmethod
    def of(cls, config: WellConfig, file: h5py.File, path: Path) -> _Reading:
        missing = [name for name in ROOT if name not in file.attrs]
        if missing:
            raise DataError(
                f"{path}: attribute '{missing[0]}' of the root is missing; expected a file of The Well, with "
                f"{', '.join(ROOT)} (attributes here: {', '.join(file.attrs) or 'none'})"
            )
        trajectories, dims = (_count(path, file.attrs[name], name) for name in ROOT)
        dimensions = _group(file, path, DIMENSIONS)
        names = _names(path, DIMENSIONS, "spatial_dims", dimensions)
        if len(names) != dims or not 1 <= dims <= 3:
            raise DataError(
                f"{path}: n_spatial_dims is {dims} and dimensions.spatial_dims names {len(names)} "
                f"({', '.join(names)}); expected the same, one to three"
            )
        axes = tuple(_coordinate(config, file, path, name, "points", trajectories) for name in names)
        times = _coordinate(config, file, path, "time", "frames", trajectories)
        return cls(config, file, path, trajectories, names, axes, times)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    def source(self) -> Source:
        targets, statics = self._fields()
        given = tuple(array.components for array in statics.values())
        channels = tuple(array.components for array in targets.values())
        header = Header(
            path=self.path,
            trajectories=self.trajectories,
            times=self.times,
            axes=self.axes,
            targets=tuple(Field(name, count) for name, count in zip(targets, channels, strict=True)),
            statics=tuple(Field(name, count) for name, count in zip(statics, given, strict=True)),
            parameters=self._parameters(),
            periodic=self._periodic(),
        )
        return ArraySource(header, Stack(tuple(targets.values()), channels), Stack(tuple(statics.values()), given))

    # -- fields --
    def _fields(self) -> tuple[dict[str, Spread], dict[str, Spread]]:
        """Fields that change in time and those that do not, as far as the recipe asks for them, in its order."""
        targets: dict[str, Spread] = {}
        statics: dict[str, Spread] = {}
        for order, group in enumerate(WELL_GROUPS):
            for name in self._listed(group):
                if name in targets or name in statics:
                    raise DataError(f"{self.path}: two fields are called '{name}'; expected one of them")
                array = self._field(f"{group}/{name}", order)
                (targets if array.by_frame else statics)[name] = array
        if not targets:
            raise DataError(f"{self.path}: no field of {', '.join(WELL_GROUPS)} changes in time; expected at least one")
        return (
            self._wanted(targets, self.config.fields, "fields", statics),
            self._wanted(statics, self.config.statics, "statics", targets),
        )

    def _wanted(
        self, found: dict[str, Spread], names: Sequence[str] | None, key: str, others: Mapping[str, Spread]
    ) -> dict[str, Spread]:
        if names is None:
            return found
        for name in names:
            if name not in found:
                what = "change in time" if key == "fields" else "do not change in time"
                other = f"; '{name}' is one of the others" if name in others else did_you_mean(name, found)
                raise DataError(
                    f"{self.path}: no field '{name}' among those that {what} ({', '.join(found) or 'none'}){other}", key
                )
        return {name: found[name] for name in names}

    def _listed(self, group: str) -> tuple[str, ...]:
        """Names of a group's fields, in the order of its attribute `field_names`; none where there is no group."""
        if self.file.get(group, getlink=True) is None:
            return ()
        held = _group(self.file, self.path, group)
        return _names(self.path, group, "field_names", held) if "field_names" in held.attrs else tuple(held)

    def _field(self, name: str, order: int) -> Spread:
        dataset = find_array(self.file, name, self.config.allow_external)
        array = StoredArray.of(dataset, self.config.allow_external)
        sample, frame = (_flag(self.path, dataset, name, key) for key in ("sample_varying", "time_varying"))
        dims = _dims(self.path, dataset, name, len(self.grid))
        lead = [(self.trajectories, "trajectory")] * sample + [(len(self.times), "time")] * frame
        lead += [(size, own) for size, own, stored in zip(self.grid, self.names, dims, strict=True) if stored]
        sizes = tuple(size for size, _ in lead)
        points = tuple(size if stored else 1 for size, stored in zip(self.grid, dims, strict=True))
        kept = (*sizes[: sample + frame], *points)
        if array.shape[: len(kept)] == kept and len(array.shape) == len(kept) + order:
            return Spread(array, sample, frame, (True,) * len(dims), self.grid)  # axes of length 1 that do not vary
        components = array.shape[len(sizes) :]
        if array.shape[: len(sizes)] != sizes or len(components) not in ((order,) if order < 2 else (1, 2)):
            axes = ", ".join(f"{what} {size}" for size, what in lead) + ", component" * order
            raise DataError(
                f"{self.path}: '{name}' has the shape {list(array.shape)}; expected the axes [{axes}], as its "
                "attributes sample_varying, time_varying and dim_varying, the dimensions and n_trajectories say"
            )
        return Spread(array, sample, frame, dims, self.grid)

    # -- parameters --
    def _parameters(self) -> dict[str, NDArray[np.float64]]:
        """Scalars that do not change in time, a number for each trajectory; of the root those that are no scalars."""
        found: dict[str, NDArray[np.float64]] = {}
        for name, dataset, by_sample, by_frame in self._scalars():
            if by_frame:
                continue  # a condition is one number of a whole trajectory
            values = np.asarray(dataset[()], np.float64)
            expected = self.trajectories if by_sample else 1
            if values.size != expected:
                raise DataError(
                    f"{self.path}: '{SCALARS}/{name}' has the shape {list(values.shape)}; expected {expected} values, "
                    f"as its attribute sample_varying is {str(by_sample).lower()}, of {self.trajectories} trajectories"
                )
            found[name] = np.broadcast_to(values.reshape(-1), (self.trajectories,)).copy()
        for name in _texts(self.file.attrs.get("simulation_parameters", ())):
            value = np.asarray(self.file.attrs.get(name, ""))
            if name not in found and value.size == 1 and value.dtype.kind in "fiu":
                found[name] = np.full(self.trajectories, float(value.reshape(())))
        return found

    def _scalars(self) -> Iterator[tuple[str, h5py.Dataset, bool, bool]]:
        if self.file.get(SCALARS, getlink=True) is None:
            return
        group = _group(self.file, self.path, SCALARS)
        listed = _names(self.path, SCALARS, "field_names", group) if "field_names" in group.attrs else tuple(group)
        for name in listed:
            path = f"{SCALARS}/{name}"
            dataset = find_array(self.file, path, self.config.allow_external)
            if dataset.dtype.kind not in "fiu" or dataset.shape is None:
                raise DataError(f"{self.path}: '{path}' holds values of type {dataset.dtype}; expected numbers")
            sample, frame = (_flag(self.path, dataset, path, key) for key in ("sample_varying", "time_varying"))
            yield name, dataset, sample, frame

    # -- boundaries --
    def _periodic(self) -> tuple[bool, ...]:
        """An axis is periodic where a boundary condition of this type is associated with it."""
        periodic = set()
        if self.file.get(BOUNDARIES, getlink=True) is not None:
            group = _group(self.file, self.path, BOUNDARIES)
            for name in group:
                held = _group(self.file, self.path, f"{BOUNDARIES}/{name}")
                kind = _texts(held.attrs.get("bc_type", ""))
                if kind and kind[0].lower() == "periodic":
                    periodic |= set(_texts(held.attrs.get("associated_dims", ())))
        return tuple(name in periodic for name in self.names)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of headers
# ---------------------------------------------------------------------------------------------------------------------
def _coordinate(
    config: WellConfig, file: h5py.File, path: Path, name: str, what: str, trajectories: int
) -> NDArray[np.float64]:
    """The coordinates along an axis, or the times, which are those of all trajectories."""
    dataset = find_array(file, f"{DIMENSIONS}/{name}", config.allow_external)
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise DataError(f"{path}: '{DIMENSIONS}/{name}' holds values of type {dataset.dtype}; expected numbers")
    values = np.asarray(dataset[()], np.float64)
    if bool(dataset.attrs.get("time_varying", False)) and name != "time":
        raise DataError(f"{path}: '{DIMENSIONS}/{name}' changes in time; expected points that stay where they are")
    if bool(dataset.attrs.get("sample_varying", False)):
        if values.ndim != 2 or len(values) != trajectories:
            raise DataError(
                f"{path}: '{DIMENSIONS}/{name}' has the shape {list(values.shape)}; expected {trajectories} rows, one "
                "for each trajectory, as its attribute sample_varying is true"
            )
        step = np.ptp(values[0]) / max(values.shape[1] - 1, 1)
        differing = np.flatnonzero((np.abs(values - values[0]) > SPACING_TOLERANCE * step).any(1))
        if len(differing):
            raise DataError(
                f"{path}: '{DIMENSIONS}/{name}' of trajectory {differing[0]} differs from that of trajectory 0; "
                f"expected the same {what} for all trajectories of a file"
            )
        values = values[0]
    checked = checked_coordinate(path, f"{DIMENSIONS}/{name}", values, (values.size,), what)
    if len(checked) < 2:
        raise DataError(f"{path}: '{DIMENSIONS}/{name}' has {len(checked)} values; expected at least 2 {what}")
    return checked


def _group(file: h5py.File, path: Path, name: str) -> h5py.Group:
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise DataError(
            f"{path}: group '{name}' is a link to {link.filename}:{link.path}; expected it in the file itself"
        )
    found = file.get(name)
    if not isinstance(found, h5py.Group):
        raise DataError(
            f"{path}: no group is called '{name}'{did_you_mean(name, file)}; expected a file of The Well (here: "
            f"{', '.join(file) or 'nothing'})"
        )
    return found


def _texts(value: Any) -> tuple[str, ...]:
    """Texts of an attribute: one, or several."""
    entries = np.atleast_1d(np.asarray(value, dtype=object)).ravel()
    return tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in entries if each)


def _names(path: Path, where: str, key: str, group: h5py.Group) -> tuple[str, ...]:
    if key not in group.attrs:
        raise DataError(
            f"{path}: attribute '{key}' of '{where}' is missing; expected the names of what the group holds"
        )
    names = _texts(group.attrs[key])
    wrong = [name for name in names if not name or "/" in name or name not in group]
    if wrong or len(set(names)) < len(names):
        what = f"'{wrong[0]}', which is not there{did_you_mean(wrong[0], group)}" if wrong else "one of them twice"
        raise DataError(
            f"{path}: attribute '{key}' of '{where}' names {what}; expected names out of {', '.join(group) or 'none'}"
        )
    return names


def _count(path: Path, value: Any, name: str) -> int:
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or not 1 <= float(number.reshape(())) < 2**31:
        raise DataError(f"{path}: attribute '{name}' is {str(value)[:60]}; expected a whole number of at least 1")
    return int(number.reshape(()))


def _flag(path: Path, dataset: h5py.Dataset, name: str, key: str) -> bool:
    value = np.asarray(dataset.attrs.get(key, ""))
    if value.size != 1 or value.dtype.kind not in "biu":
        got = f"is {str(dataset.attrs[key])[:60]}" if key in dataset.attrs else "is missing"
        raise DataError(f"{path}: attribute '{key}' of '{name}' {got}; expected true or false")
    return bool(value.reshape(()))


def _dims(path: Path, dataset: h5py.Dataset, name: str, count: int) -> tuple[bool, ...]:
    value = np.atleast_1d(np.asarray(dataset.attrs.get("dim_varying", [True] * count)))
    if value.shape != (count,) or value.dtype.kind not in "biu":
        raise DataError(
            f"{path}: attribute 'dim_varying' of '{name}' is {str(value)[:60]}; expected true or false for each of the "
            f"{count} axes"
        )
    return tuple(bool(each) for each in value)
