"""Files whose layout a dataset knows, written in another that a dataset knows: values, and all that goes with them.

Values are read and written a block at a time. What was written is opened as training opens it, and header and values
are held against the source's.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import DataError, PluginError, StorageError
from .conversion import check_space, same, sync_all
from .grid_store import GridStore, Kind, write_grid_store
from .guard import Sign
from .tree import FileTree

if TYPE_CHECKING:
    from ..interfaces import Field, GridFile, GridHeader

BLOCK_VALUES = 2**22  # that are read at a time
LETTERS = ("x", "y", "z")
MADE_BY = "simulated_by"  # the attribute of a simulated file
Values = NDArray[Any]


@frozen
class Part:
    """A field, and a block of its trajectories and frames; of a static field, of its trajectories."""

    kind: Kind
    field: Field
    samples: slice
    frames: slice

    @property
    def where(self) -> tuple[slice, ...]:
        return (self.samples, self.frames) if self.kind == "fields" else (self.samples,)

    def of(self, grid: GridFile) -> NDArray[np.float32]:
        """Its values, (S, F, *grid, channels) or (S, *grid, channels)."""
        if self.kind == "fields":
            return grid.rows(self.field.name, self.samples, self.frames)
        return grid.static(self.field.name, self.samples)


def known_grid(tree: FileTree) -> tuple[str, GridFile] | None:
    """The file through the dataset that recognises it, with its name; None where none does. Raises DataError."""
    from ..interfaces import OpensGrids
    from ..plugins import discover
    from .layouts import config_of, recognised

    catalog = discover()
    for use, keys in recognised(tree, catalog):
        config, problems = config_of(catalog, use, {"path": str(tree.path), **keys})
        if isinstance(config, OpensGrids) and not problems:
            try:
                return use, config.open_grid(tree.path)
            except DataError as error:
                raise DataError(f"{error}; `--as-is` copies its arrays without a look at what they are") from error
    return None


def convert_grid(sign: Sign, tree: FileTree, grid: GridFile, aside: Path, kind: str) -> dict[str, Any]:
    """Write a known file's trajectories to `aside`, read them again and compare. Raises DataError, StorageError."""
    header = grid.header
    made_by = tree.attributes.get("", {}).get(MADE_BY, "")
    counts = {each.name: math.prod(_shape(header, "fields", each)) for each in header.targets}
    counts |= {each.name: math.prod(_shape(header, "statics", each)) for each in header.statics}
    check_space(aside, 4 * sum(counts.values()))
    notes = _notes(tree, header, kind)
    {"zarr": _write_store, "hdf5": _write_hdf5, "npz": _write_npz}[kind](sign, grid, aside, made_by)
    sync_all(aside)
    use = None
    if kind == "npz":
        _compare_archive(sign, grid, aside)
    else:
        use = _compare(sign, grid, aside)
    return {"arrays": len(counts), "values": sum(counts.values()), "notes": notes, "use": use}


def _notes(tree: FileTree, header: GridHeader, kind: str) -> list[str]:
    notes = []
    dims = len(header.axes)
    if any(info.dtype.endswith("f8") and len(info.shape) > dims for info in tree.arrays.values()):
        notes.append(f"{tree.path} holds float64: values are written as float32, as they are trained on; --as-is keeps")
    left = [name for name in header.attributes if name not in _numbers(header, kind)]
    if left:
        notes.append(f"numbers that are none of the equation's are left out: {', '.join(left)}")
    if kind == "npz":
        notes.append("an .npz file does not say units, nor which axes are periodic")
    return notes


def _numbers(header: GridHeader, kind: str) -> dict[str, NDArray[np.float64]]:
    """Numbers that are no parameters, as far as a format has a place for them: HDF5, for those of a whole file."""
    named = {name: own for name, own in header.attributes.items() if name.strip(".") and "/" not in name}
    if kind == "hdf5":
        taken = ("fields", "statics", "periodic", MADE_BY)
        return {name: own for name, own in named.items() if name not in taken and (own == own[:1]).all()}
    return {name: own for name, own in named.items() if kind == "zarr" or name not in _names(header)}


def _names(header: GridHeader) -> list[str]:
    fields = [each.name for each in (*header.targets, *header.statics)]
    return [*fields, *header.parameters, *LETTERS[: len(header.axes)], "time"]


def _shape(header: GridHeader, kind: Kind, field: Field) -> tuple[int, ...]:
    frames = (len(header.times),) if kind == "fields" else ()
    return (header.trajectories, *frames, *(len(axis) for axis in header.axes), field.channels)


def _parts(sign: Sign, header: GridHeader, kind: Kind, field: Field) -> Iterator[Part]:
    """Blocks that cover a field, in the order of its values."""
    trajectories, frames = header.trajectories, len(header.times) if kind == "fields" else 1
    together = max(1, BLOCK_VALUES // (math.prod(len(axis) for axis in header.axes) * field.channels))
    samples = max(1, together // frames)
    for first in range(0, trajectories, samples):
        for start in range(0, frames, together):
            sign(field.name)
            stop = slice(first, min(first + samples, trajectories))
            yield Part(kind, field, stop, slice(start, min(start + together, frames)))


def _every(sign: Sign, header: GridHeader) -> Iterator[Part]:
    for field in header.targets:
        yield from _parts(sign, header, "fields", field)
    for field in header.statics:
        yield from _parts(sign, header, "statics", field)


def unfit_values(sign: Sign, grid: GridFile, where: str) -> tuple[int, list[str]]:
    """How many values a file holds, and what is wrong with them: NaN and infinities of each field, how many and the
    first; fields to predict that are the same everywhere."""
    looked, problems = 0, []
    for kind, field in _fields(grid.header):
        bad, trajectories, first = 0, set(), ""
        low, high = math.inf, -math.inf
        for part in _parts(sign, grid.header, kind, field):
            values = part.of(grid)
            looked += values.size
            finite = np.isfinite(values)
            low = float(np.min(values, where=finite, initial=low))
            high = float(np.max(values, where=finite, initial=high))
            if finite.all():
                continue
            places = np.argwhere(~finite)
            if not bad:
                point = places[0] + [
                    part.where[axis].start if axis < len(part.where) else 0 for axis in range(values.ndim)
                ]
                axes = ("sample", "time", *LETTERS) if kind == "fields" else ("sample", *LETTERS)
                first = ", ".join(f"{name} {number}" for name, number in zip(axes, point[:-1], strict=False))
            bad += len(places)
            trajectories |= {int(number) + part.samples.start for number in np.unique(places[:, 0])}
        if bad:
            problems.append(
                f"{where}: '{field.name}': {bad:,} values in {len(trajectories):,} trajectories are NaN or infinite, "
                f"the first at [{first}]; dataset.drop_bad_samples = true leaves these trajectories out"
            )
        if kind == "fields" and low == high:
            problems.append(
                f"{where}: '{field.name}': is {low:g} everywhere; expected values that differ: normalisation would "
                "divide by 0"
            )
    return looked, problems


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------
def _write_store(sign: Sign, grid: GridFile, aside: Path, made_by: str) -> None:
    header = grid.header
    store = GridStore(
        trajectories=header.trajectories,
        axes=dict(zip(LETTERS, header.axes, strict=False)),
        times=header.times,
        fields={each.name: each.channels for each in header.targets},
        statics={each.name: each.channels for each in header.statics},
        parameters=header.parameters,
        numbers=_numbers(header, "zarr"),
        steady=header.steady,
        periodic=header.periodic,
        units={each.name: each.unit for each in (*header.targets, *header.statics) if each.unit != "1"},
        simulated_by=made_by,
    )

    def values(kind: Kind, name: str, samples: slice, frames: slice) -> Values:
        sign(name)
        return grid.rows(name, samples, frames) if kind == "fields" else grid.static(name, samples)

    write_grid_store(aside, store, values)


def _write_hdf5(sign: Sign, grid: GridFile, aside: Path, made_by: str) -> None:
    """PDEBench's layouts: `tensor` of one field; an array for each of several; vectors as incompressible flow has them.

    Attributes `fields` and `statics` name what the layout does not.
    """
    import h5py

    header = grid.header
    vectors = any(each.channels > 1 for each in header.targets)
    arrays = {each.name: "tensor" if len(header.targets) == 1 and not vectors else each.name for each in header.targets}
    _check_hdf5(grid, arrays, vectors)
    with h5py.File(aside, "w", libver="latest") as file:
        for field in header.targets:
            shape = _shape(header, "fields", field)
            array = file.create_dataset(arrays[field.name], shape if vectors else shape[:-1], np.float32)
            for part in _parts(sign, header, "fields", field):
                array[part.where] = part.of(grid).reshape(*_block(part), *array.shape[2:])
            _tell_unit(array, field)
        for field in header.statics:
            shape = _shape(header, "statics", field)
            array = file.create_dataset(field.name, shape if field.channels > 1 else shape[:-1], np.float32)
            for part in _parts(sign, header, "statics", field):
                array[part.where] = part.of(grid).reshape(*_block(part), *array.shape[1:])
            _tell_unit(array, field)
        for letter, axis in zip(LETTERS, header.axes, strict=False):
            file[f"{letter}-coordinate"] = axis
        if vectors:
            file["t"] = np.tile(header.times, (header.trajectories, 1))
        elif not header.steady:
            file["t-coordinate"] = header.times
        for name, numbers in header.parameters.items():
            file[name] = numbers
        file.attrs["fields"] = [each.name for each in header.targets]
        if header.statics:
            file.attrs["statics"] = [each.name for each in header.statics]
        file.attrs["periodic"] = np.asarray(_periodic(header), np.uint8)
        file.attrs.update({name: float(own[0]) for name, own in _numbers(header, "hdf5").items()})
        if made_by:
            file.attrs[MADE_BY] = made_by


def _block(part: Part) -> tuple[int, ...]:
    return tuple(cut.stop - cut.start for cut in part.where)


def _tell_unit(array: Any, field: Field) -> None:
    if field.unit != "1":
        array.attrs["units"] = field.unit


def _periodic(header: GridHeader) -> tuple[bool, ...]:
    return header.periodic or (False,) * len(header.axes)


def _check_hdf5(grid: GridFile, arrays: Mapping[str, str], vectors: bool) -> None:
    header = grid.header
    if header.steady and (len(header.targets) > 1 or vectors):
        listed = ", ".join(f"{each.name} [{each.channels}]" for each in header.targets)
        raise DataError(
            f"PDEBench's layouts hold one steady field without components, and these are {listed}; write a .zarr store"
        )
    times = "t" if vectors else "t-coordinate"
    coordinates = [f"{letter}-coordinate" for letter in LETTERS[: len(header.axes)]]
    _check_names([*arrays.values(), *(f.name for f in header.statics), *header.parameters, *coordinates, times])


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"two arrays would be called '{twice[0]}' in such a file; write a .zarr store")


def _write_npz(sign: Sign, grid: GridFile, aside: Path, made_by: str) -> None:
    """Fields (trajectory, time, x, …, channel), static fields, coordinates, `time` and numbers of each trajectory."""
    header = grid.header
    _check_names(_names(header))
    small = _small(header)
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, values in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(values, "<f8"), allow_pickle=False)
        for kind, field in _fields(header):
            with archive.open(f"{field.name}.npy", "w", force_zip64=True) as file:
                about = {"descr": "<f4", "fortran_order": False, "shape": _shape(header, kind, field)}
                np.lib.format.write_array_header_1_0(file, about)
                for part in _parts(sign, header, kind, field):
                    file.write(np.ascontiguousarray(part.of(grid), "<f4").data)


def _small(header: GridHeader) -> dict[str, NDArray[np.float64]]:
    axes = dict(zip(LETTERS, header.axes, strict=False))
    return {**axes, "time": header.times, **header.parameters, **_numbers(header, "npz")}


def _fields(header: GridHeader) -> list[tuple[Kind, Field]]:
    return [*(("fields", each) for each in header.targets), *(("statics", each) for each in header.statics)]


# ---------------------------------------------------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------------------------------------------------
def _compare(sign: Sign, grid: GridFile, aside: Path) -> str:
    """Open what was written as training does, and hold it against the source. Raises StorageError where they differ."""
    from .headers import read_tree

    found = known_grid(read_tree(aside, sign))
    if found is None:
        raise PluginError("no installed dataset reads what was written; `--as-is` copies arrays as they are")
    use, again = found
    before, after = grid.header, again.header
    for what, agree in {
        "fields": before.targets == after.targets and before.statics == after.statics,
        "trajectories": before.trajectories == after.trajectories,
        "times": before.steady == after.steady and np.array_equal(before.times, after.times),
        "coordinates": _equal(dict(enumerate(before.axes)), dict(enumerate(after.axes))),
        "parameters": _equal(before.parameters, after.parameters),
        "periodic axes": _periodic(before) == _periodic(after),
    }.items():
        if not agree:
            raise StorageError(
                f"the {what} that were read again differ from those that were written; the disk may be failing, "
                "nothing was kept"
            )
    for part in _every(sign, before):
        same(part.field.name, part.of(grid), part.of(again), part.where)
    return use


def _equal(before: Mapping[Any, Values], after: Mapping[Any, Values]) -> bool:
    return before.keys() == after.keys() and all(
        np.array_equal(values, after[name], equal_nan=True) for name, values in before.items()
    )


def _compare_archive(sign: Sign, grid: GridFile, aside: Path) -> None:
    """The same of an archive, a block after the other."""
    try:
        _compare_members(sign, grid, aside)
    except (zipfile.BadZipFile, ValueError) as error:
        raise StorageError(
            f"the archive that was read again differs from what was written ({error}); the disk may be failing, "
            "nothing was kept"
        ) from error


def _compare_members(sign: Sign, grid: GridFile, aside: Path) -> None:
    header = grid.header
    with zipfile.ZipFile(aside) as archive:
        for name, values in _small(header).items():
            with archive.open(f"{name}.npy") as file:
                again = np.lib.format.read_array(file, allow_pickle=False)
            same(name, values, again, (slice(0, len(values)),))
        for kind, field in _fields(header):
            with archive.open(f"{field.name}.npy") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                for part in _parts(sign, header, kind, field):
                    before = part.of(grid)
                    again = np.frombuffer(file.read(4 * before.size), "<f4")
                    same(field.name, before.reshape(-1), again, part.where)
