"""What is in a data file, seen without trust: its tree, and the range of its values from a bounded look."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..errors import DataError
from .guard import MEMORY, SECONDS, Sign, guarded
from .tree import ArrayInfo, FileTree

if TYPE_CHECKING:
    from .zarr_store import ZarrArray

SAMPLED_VALUES = 2**22  # of one array, where it is larger
SAMPLED_BYTES = 2**29  # of a file
LARGEST_CHUNK = 2**28  # bytes that one chunk may unpack to
BLOCK_VALUES = 2**20  # values that are read at a time
SAMPLES = "sample_#/"  # how names of arrays begin in stores with a group for each sample
SHARE_OF_TIME = 0.6  # of a child's, after which no further array is looked at


@frozen
class Values:
    """The values of one array, as far as they were looked at."""

    looked: int
    total: int
    low: float | None = None  # None where nothing finite was seen
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    nan: int = 0
    infinite: int = 0
    first_bad: tuple[int, ...] | None = None  # where the first NaN or infinity was seen

    @property
    def sampled(self) -> bool:
        return self.looked < self.total


@frozen
class Inspection:
    """What is in a file: headers, values, what is wrong (`problems`), what is odd (`notes`)."""

    tree: FileTree
    size: int  # bytes on disk
    values: Mapping[str, Values]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_file(
    path: Path, seconds: float = SECONDS, memory: int = MEMORY, whole: bool = False, report: Sign | None = None
) -> Inspection:
    """Look into a file in a child process that has so many seconds and bytes. Raises DataError.

    `whole`: look at every value, however long that takes; the child may then be silent for so many seconds.
    """
    arguments = {"path": str(path), "whole": whole, "seconds": seconds}
    found = guarded("inspect", path, arguments, seconds, memory, streaming=whole, report=report)
    values = {
        name: Values(**{**entry, "first_bad": tuple(entry["first_bad"]) if entry["first_bad"] else None})
        for name, entry in found["values"].items()
    }
    return Inspection(
        tree_from_json(found["tree"]), found["size"], values, tuple(found["problems"]), tuple(found["notes"])
    )


def tree_from_json(found: Mapping[str, Any]) -> FileTree:
    """What `tree_to_json` gave."""

    def sizes(value: Any) -> Any:
        return None if value is None else tuple(value)

    arrays = {
        name: ArrayInfo(**{**info, **{key: sizes(info[key]) for key in ("shape", "chunks", "shards", "filters")}})
        for name, info in found["arrays"].items()
    }
    return FileTree(Path(found["path"]), found["format"], arrays, found["attributes"])


def tree_to_json(tree: FileTree) -> dict[str, Any]:
    """A tree as JSON holds it."""
    return {**attrs.asdict(tree), "path": str(tree.path)}


# ---------------------------------------------------------------------------------------------------------------------
# In the child
# ---------------------------------------------------------------------------------------------------------------------
def inspect_task(sign: Sign, path: str, whole: bool, seconds: float) -> dict[str, Any]:
    """The headers, and a look at the values of every array of numbers that lies in the file itself."""
    from .headers import read_headers  # h5py is loaded here, and not by who asks

    deadline = math.inf if whole else time.monotonic() + SHARE_OF_TIME * seconds
    found = read_headers(Path(path), sign)
    tree, problems, notes = found.tree, found.problems, found.notes
    values: dict[str, Any] = {}
    readable = {name: info for name, info in tree.arrays.items() if is_readable(info)}
    budget = None if whole else max(4096, min(SAMPLED_VALUES, SAMPLED_BYTES // 4 // max(len(readable), 1)))
    if not problems or tree.format in ("hdf5", "folder"):
        with opened_arrays(tree) as arrays:
            for number, (name, info) in enumerate(readable.items()):
                if time.monotonic() > deadline:
                    notes.append(f"the values of {len(readable) - number} arrays were not looked at, for want of time")
                    break
                sign(name)
                try:
                    check_chunk(name, info)
                except DataError as error:
                    problems.append(str(error))
                    continue
                try:
                    values[name] = attrs.asdict(look(arrays[name], info, budget, lambda: sign(name)))  # noqa: B023
                except DataError as error:
                    problems.append(f"array '{name}' cannot be read: {error}")
                except (ArithmeticError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
                    problems.append(f"array '{name}' cannot be read ({str(error)[:200]}); download or make it again")
    elif readable:
        notes.append("no values were looked at, as the headers are wrong")
    size = disk_size(Path(path))
    return {"tree": tree_to_json(tree), "size": size, "values": values, "problems": problems, "notes": notes}


def is_readable(info: ArrayInfo) -> bool:
    """Whether this is an array of real numbers whose values lie in the file."""
    return not info.elsewhere and info.dtype[:1] in "<>|=" and info.dtype[1:2] in "fiub" and 0 not in info.shape


def disk_size(path: Path) -> int:
    """Bytes of a file, or of all files of a store."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


class opened_arrays:  # noqa: N801 - a context manager, named as one
    """The arrays of a file by name, open for reading by slices; closed at the end."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._file: Any = None

    def __enter__(self) -> Any:
        path = self._tree.path
        if self._tree.format == "hdf5":
            import h5py

            self._file = h5py.File(path, "r", rdcc_nbytes=0)
            return self._file
        if self._tree.format == "folder":
            self._file = _FolderArrays(path)
            return self._file
        if self._tree.format == "zarr":
            return _store_arrays(path)
        if self._tree.format == "npy":
            return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}
        self._file = np.load(path, allow_pickle=False)
        return self._file

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


class _FolderArrays:
    """The arrays of a folder's HDF5 files, "file/group/name"; one file is open at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[str, Any] = ("", None)

    def __getitem__(self, name: str) -> Any:
        import h5py

        file, _, inner = name.partition("/")
        if self._open[0] != file:
            self.close()
            self._open = (file, h5py.File(self._path / file, "r", rdcc_nbytes=0))
        return self._open[1][inner]

    def close(self) -> None:
        if self._open[1] is not None:
            self._open[1].close()
        self._open = ("", None)


def _store_arrays(path: Path) -> Any:
    """A store's arrays by name. Version 3 is read as training reads it: links out of the store are not followed, and
    what is missing is no fill value; of version 2 the headers' reader has looked at the files."""
    from .zarr_store import DOCUMENT

    if (path / DOCUMENT).is_file():
        return _StoredArrays(path)
    import zarr

    if (path / ".zarray").is_file():
        return {".": zarr.open_array(str(path), mode="r")}
    return zarr.open_group(str(path), mode="r", use_consolidated=False)


@frozen
class _StoredArrays:
    """The arrays of a Zarr store of version 3."""

    path: Path

    def __getitem__(self, name: str) -> _StoredArray:
        from .byte_stores import byte_store
        from .zarr_store import ZarrStore

        return _StoredArray(ZarrStore(byte_store(self.path)).array("" if name == "." else name))


@frozen
class _StoredArray:
    """One of them, to be read by slices along its first axes."""

    array: ZarrArray

    def __getitem__(self, where: Any) -> NDArray[Any]:
        cuts = (where if isinstance(where, tuple) else (where,)) if where is not Ellipsis else ()
        shape = self.array.metadata.shape
        given = [cut.indices(size)[:2] for cut, size in zip(cuts, shape, strict=False)]
        return self.array.box([*given, *((0, size) for size in shape[len(given) :])])


def look(array: Any, info: ArrayInfo, budget: int | None, alive: Callable[[], None] = lambda: None) -> Values:
    """The range, moments and bad values of an array, of so many of its values, spread over it."""
    from .statistics import Running

    total = math.prod(info.shape)
    running, looked, nan, first_bad = Running(total), 0, 0, None
    for where in blocks(info, budget):
        alive()
        block = np.asarray(array[where])
        looked += block.size
        before = running.bad
        running.add(block)
        if running.bad > before:
            nan += int(np.isnan(block).sum())
            if first_bad is None:
                place = np.argwhere(~np.isfinite(block))[0]
                first_bad = tuple(int(part.start + index) for part, index in zip(where, place, strict=True))
    infinite = running.bad - nan
    if not running.count:
        return Values(looked, total, nan=nan, infinite=infinite, first_bad=first_bad)
    std = math.sqrt(running.squares / running.count)
    return Values(looked, total, running.low, running.high, running.mean, std, nan, infinite, first_bad)


def check_chunk(name: str, info: ArrayInfo) -> None:
    """Raise DataError where one chunk alone is larger than a reader should unpack."""
    size = math.prod(info.chunks or ()) * np.dtype(info.dtype).itemsize
    if info.chunks is not None and size > LARGEST_CHUNK:
        raise DataError(
            f"array '{name}': one chunk {list(info.chunks)} unpacks to {size:,} bytes; expected at most "
            f"{LARGEST_CHUNK:,}: store it in smaller chunks"
        )


def alike(arrays: Mapping[str, ArrayInfo]) -> dict[str, list[str]]:
    """Names in groups whose members differ in numbers alone (`0000/data`, `0001/data`) and have one header.

    Those of `sample_00000/…` may differ in size. By the name, or by the first and the last of several.
    """
    groups: dict[Any, list[str]] = {}
    for name, info in arrays.items():
        pattern = re.sub(r"\d+", "#", name)
        same: Any = (pattern, info.shape, info.dtype, info.chunks, info.filters, info.elsewhere)
        if pattern.startswith(SAMPLES):
            same = (pattern, len(info.shape), info.dtype, info.filters, info.elsewhere)
        groups.setdefault(same if "#" in pattern else name, []).append(name)
    return {
        names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} alike)": names
        for names in groups.values()
    }


def shape_of_all(arrays: Sequence[ArrayInfo]) -> str:
    """The shape of several arrays, `[25 … 49, 2]` where they differ in size."""
    ends = [(min(sizes), max(sizes)) for sizes in zip(*(info.shape for info in arrays))]
    return f"[{', '.join(str(low) if low == high else f'{low} … {high}' for low, high in ends)}]"


def blocks(info: ArrayInfo, budget: int | None) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array chunk by chunk, or, with a budget of values, some of them spread over it."""
    shape = info.shape
    if not shape:
        yield ()
        return
    steps = _block_shape(shape, info.chunks)
    counts = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    total, size = math.prod(counts), math.prod(steps)
    if budget is None or math.prod(shape) <= budget:
        places: Any = product(*(range(count) for count in counts))
    else:
        chosen = np.unique(np.linspace(0, total - 1, max(2, min(total, budget // max(size, 1)))).astype(np.int64))
        places = (np.unravel_index(int(number), counts) for number in chosen)
    for place in places:
        yield tuple(
            slice(int(index) * step, min(int(index + 1) * step, size))
            for index, step, size in zip(place, steps, shape, strict=True)
        )


def _block_shape(shape: Sequence[int], chunks: Sequence[int] | None) -> tuple[int, ...]:
    """What is read at a time: whole chunks, as many along the last axes as fit; of a plain array whole last axes."""
    steps = [min(chunk, size) for chunk, size in zip(chunks, shape, strict=True)] if chunks else [1] * len(shape)
    room = BLOCK_VALUES // max(math.prod(steps), 1)
    for axis in reversed(range(len(shape))):
        if room <= 1:
            break
        times = min(room, -(-shape[axis] // steps[axis]))
        steps[axis], room = min(steps[axis] * times, shape[axis]), room // times
    return tuple(steps)
