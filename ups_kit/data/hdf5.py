"""Arrays in HDF5 files, read only: by memory map where they lie in one piece, through h5py where not.

What a file may do to its reader is limited: arrays that lie in other files (external storage, virtual datasets,
external links) are refused unless the recipe allows them, since they can show any file of the machine, and a missing
source reads as zeros.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from ..console import notice
from ..errors import DataError, did_you_mean, nearest
from . import chunks
from .pickles import why_pickled
from .stamps import Stamp

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DAMAGED = (  # how h5py's messages begin where HDF5 cannot follow or unpack something
    "Unable to",
    "Can't",
    "Link iteration failed",
    "Object visitation failed",
    "Error iterating over attributes",
    "Insufficient precision in available types",
)
SUPPORTED = "float32 and float64, of either byte order"


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------
@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading. Raises DataError for what is missing, no HDF5 file, or damaged."""
    check_kind(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: {_why_not(path, error)}") from error
    with file, damage_told(path):
        yield file


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """What HDF5 cannot follow or unpack in an open file as a DataError; h5py raises several classes for it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error.args[0]) if error.args else ""
        if not reason.startswith(DAMAGED):
            raise
        raise DataError(f"{path}: {_damaged(path, reason)}") from error


def check_kind(path: Path) -> None:
    """Raise DataError where there is no regular, readable file at `path`."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{path}: a link to {path.readlink()}, which does not exist; expected an HDF5 file"
            ) from error
        raise DataError(f"{path}: no such file{_near_files(path)}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at: {error.strerror}") from error
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    kind = next((name for test, name in kinds if test(mode)), "a device" if not stat.S_ISREG(mode) else "")
    if kind:
        raise DataError(f"{path}: is {kind}; expected an HDF5 file")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: permission denied; expected a file that can be read")


def _near_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist"
    guess = nearest(path.name, (entry.name for entry in folder.iterdir() if not entry.name.startswith(".")))
    return f"; did you mean '{guess}' in the same folder?" if guess else ""


def _why_not(path: Path, error: OSError) -> str:
    """Why a file could not be opened as HDF5, in words for the person who downloaded it."""
    reason = str(error)
    cut = re.search(r"eof = (\d+), sblock->base_addr = (\d+), stored_eof = (\d+)", reason)
    if cut:
        actual, base, expected = (int(number) for number in cut.groups())
        return f"is truncated: expected {expected:,} bytes, got {actual + base:,}; download or make it again"
    if isinstance(error, BlockingIOError):
        return "is locked by another process that writes it; wait for that, or close the file there"
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(SIGNATURE):
        return _damaged(path, reason)
    return f"is no HDF5 file: {why_pickled(path) or _looks_like(head)}"


def _damaged(path: Path, reason: str) -> str:
    return f"is a damaged HDF5 file ({reason}; {path.stat().st_size:,} bytes); download or make it again"


def _looks_like(head: bytes) -> str:
    if not head:
        return "it is empty (0 bytes); download or make it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-LFS pointer, the data themselves were not fetched; run `git lfs pull`"
    lowered = head.lstrip().lower()
    if lowered.startswith((b"<!doctype html", b"<html")):
        return f"it is a web page, probably an error message of a download (begins {_shown(head)}); download it again"
    kinds = ((b"PK\x03\x04", "a zip archive; unpack it"), (b"\x1f\x8b", "gzip-compressed; unpack it"))
    for magic, kind in (*kinds, (b"CDF", "a NetCDF-3 file; convert it to HDF5"), (b"\x93NUMPY", "a NumPy file")):
        if head.startswith(magic):
            return f"it is {kind}"
    kind = "text" if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "something else"
    return f"it looks like {kind} (begins {_shown(head)}); expected an HDF5 file, which begins {_shown(SIGNATURE)}"


def _shown(data: bytes) -> str:
    return repr(data[:24])[1:]


# ---------------------------------------------------------------------------------------------------------------------
# Arrays
# ---------------------------------------------------------------------------------------------------------------------
def find_array(file: h5py.File, name: str, allow_external: bool = False) -> h5py.Dataset:
    """The dataset with this name, in the file itself unless `allow_external`.

    Raises DataError: a missing one with the names and shapes that there are, one that lies elsewhere with where.
    """
    path = Path(file.filename)
    parts = name.strip("/").split("/")
    links = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for link in links:
        target = file.get(link, getlink=True)
        if isinstance(target, h5py.ExternalLink) and not allow_external:
            raise DataError(_elsewhere(path, link, f"is a link to {target.filename}:{target.path}"))
    try:
        found = file.get(name)
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"{path}: dataset '{name}' cannot be read ({error}); the file is damaged") from error
    if not isinstance(found, h5py.Dataset):
        raise DataError(_missing(file, path, name))
    if found.file.filename != file.filename and not allow_external:  # by a link inside the file to one that leaves it
        raise DataError(_elsewhere(path, name, f"is a link to {found.file.filename}:{found.name}"))
    if found.external and not allow_external:
        raise DataError(_elsewhere(path, name, f"keeps its values in {found.external[0][0]}"))
    if found.is_virtual and not allow_external:
        sources = ", ".join(sorted({source.file_name for source in found.virtual_sources()}))
        raise DataError(_elsewhere(path, name, f"is virtual, made of {sources}"))
    return found


def shapes(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the datasets that lie in the file itself, groups included."""
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found[name] = tuple(item.shape)

    file.visititems(visit)
    return found


def _elsewhere(path: Path, name: str, how: str) -> str:
    return (
        f"{path}: dataset '{name}' {how}: values outside the file are not read, "
        "as they can show any file of this machine; if you trust it, set dataset.allow_external = true"
    )


def _missing(file: h5py.File, path: Path, name: str) -> str:
    known = shapes(file)
    listed = ", ".join(f"{other} {list(shape)}" for other, shape in sorted(known.items())[:12]) or "none"
    return f"{path}: no dataset is called '{name}'{did_you_mean(name, known)} (datasets here: {listed})"


@define(eq=False)
class StoredArray:
    """One numeric array of a file, for any number of readers at once.

    Contiguous values are mapped by their offset in the file, so that the kernel's page cache holds them and this
    process keeps nothing. Chunked or compressed ones are read through h5py, by a handle that each process opens for
    itself.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None  # where the values begin, if they lie in one piece
    allow_external: bool = False
    stamp: Stamp | None = None  # of the file when it was opened
    _mapped: NDArray[Any] | None = field(default=None, init=False, repr=False)
    _handle: tuple[int, Any, _Unpacked | None] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, dataset: h5py.Dataset, allow_external: bool = False) -> StoredArray:
        """The array behind an open dataset. Raises DataError for a type that is no real number, or a truncated file."""
        path, name, dtype = Path(dataset.file.filename), str(dataset.name).strip("/"), dataset.dtype
        if dtype.newbyteorder("=") not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise DataError(f"{path}: dataset '{name}' holds values of type {dtype}; expected {SUPPORTED}")
        if dataset.shape is None:
            raise DataError(f"{path}: dataset '{name}' is empty: it has a type and no values; expected an array")
        _check_filters(dataset, path, name)
        _check_complete(dataset, path, name)
        plain = dataset.chunks is None and not dataset.external and not dataset.is_virtual
        offset = dataset.id.get_offset() if plain else None
        size = path.stat().st_size
        if dtype != np.float32:
            notice(f"note: {path} holds values of type {dtype.str}; they are read as float32")
        if offset is not None and offset + dataset.nbytes > size:
            raise DataError(
                f"{path}: is truncated: dataset '{name}' ends at byte {offset + dataset.nbytes:,}, and the file has "
                f"{size:,} bytes; download or make it again"
            )
        return cls(path, name, tuple(dataset.shape), dtype, offset, allow_external, Stamp.of(path))

    def gather(self, samples: NDArray[np.integer], frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """Frames of samples: `samples` (B,), `frames` (B, F), increasing along F; returns (B, F, ...) float32."""
        self._check_unchanged(samples)
        if self.offset is not None:
            return as_float32(self._contiguous()[samples[:, None], frames])
        unpacked = self._unpacked()
        if unpacked is not None:
            return chunks.gather(unpacked, samples, frames)
        steps = np.diff(frames, axis=1)
        if steps.size and (steps != steps[0, 0]).any():
            raise ValueError("frames of windows are evenly spaced")
        result = np.empty((*frames.shape, *self.shape[2:]), np.float32)
        block = _Block(self._open(), frames.shape[1], int(steps[0, 0]) if steps.size else 1)
        with damage_told(self.path):
            for row in np.lexsort((frames[:, 0], samples)):  # in the file's order, so that a chunk is unpacked once
                block.read(int(samples[row]), int(frames[row, 0]), result[row])
        return result

    def rows(self, samples: Sequence[int] | NDArray[np.integer], frames: slice) -> NDArray[np.float32]:
        """All values of a slice of frames of some samples, (samples, frames, ...) float32."""
        self._check_unchanged(samples)
        if self.offset is not None:
            return as_float32(self._contiguous()[:, frames][np.asarray(samples)])
        unpacked = self._unpacked()
        if unpacked is not None:
            wanted = np.asarray(samples, np.intp)
            numbers = np.arange(self.shape[1])[frames]
            return chunks.gather(unpacked, wanted, np.broadcast_to(numbers, (len(wanted), len(numbers))))
        start, stop, step = frames.indices(self.shape[1])
        count = len(range(start, stop, step))
        result = np.empty((len(samples), count, *self.shape[2:]), np.float32)
        block = _Block(self._open(), count, step)
        with damage_told(self.path):
            for row, sample in enumerate(samples):
                block.read(int(sample), start, result[row])
        return result

    def entries(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Entries of an array of one axis, which is small."""
        with damage_told(self.path):
            found: NDArray[np.float32] = as_float32(self._open()[()])[numbers]
        return found

    def entries_along(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Entries along the first axis of an array that has frames and no samples: (F, ...) float32."""
        self._check_unchanged(numbers)
        if self.offset is not None:
            return as_float32(self._contiguous()[numbers])
        unpacked = chunks.Led(self._unpacked() or _Unpacked(self, self._open()))
        found: NDArray[np.float32] = chunks.gather(unpacked, np.zeros(1, np.int64), numbers[None])[0]
        return found

    def gather_points(
        self, samples: NDArray[np.integer], frames: NDArray[np.integer], points: NDArray[np.integer], axes: int
    ) -> NDArray[np.float32]:
        """Frames (B, F) of samples at points (B, Q), numbers in the grid of the next `axes` axes: (B, F, Q, ...).

        Of a mapped array these values alone are read, of a chunked one the chunks that hold some of them.
        """
        self._check_unchanged(samples)
        if self.offset is None:
            return chunks.gather_points(
                self._unpacked() or _Unpacked(self, self._open()), samples, frames, points, axes
            )
        flat = self._contiguous().reshape(*self.shape[:2], -1, *self.shape[2 + axes :])
        return as_float32(flat[samples[:, None, None], frames[:, :, None], points[:, None, :]])

    def mapped(self) -> NDArray[Any] | None:
        """All values, not read yet, where they lie in one piece."""
        return None if self.offset is None else self._contiguous()

    def _check_unchanged(self, samples: Sequence[int] | NDArray[np.integer]) -> None:
        """Raise DataError where the file is not what was opened: a map of one that was cut would kill the process."""
        if self.stamp is None:
            return
        try:
            self.stamp.check()
        except DataError as error:
            shown = ", ".join(str(sample) for sample in samples[:8]) + (", …" if len(samples) > 8 else "")
            raise DataError(f"{error} (next to be read: '{self.name}', samples {shown})") from error

    def _contiguous(self) -> NDArray[Any]:
        if self._mapped is None:
            mapped = np.memmap(self.path, self.dtype, "r", self.offset or 0, self.shape)
            self._mapped = np.asarray(mapped)  # a plain view: the subclass costs more than a small read
        return self._mapped

    def _open(self) -> Any:
        if self._handle is None or self._handle[0] != os.getpid():
            # Without a cache, HDF5 reads of a plain chunk only what is asked for; unpacked ones are kept in `chunks`.
            file = h5py.File(self.path, "r", rdcc_nbytes=0)
            dataset = find_array(file, self.name, self.allow_external)
            packed = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() > 0
            self._handle = (os.getpid(), dataset, _Unpacked(self, dataset) if packed else None)
        return self._handle[1]

    def _unpacked(self) -> _Unpacked | None:
        """The array by whole chunks, where these have to be unpacked."""
        self._open()
        assert self._handle is not None
        return self._handle[2]

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.path, self.name, self.shape, self.dtype, self.offset, self.allow_external, self.stamp)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _check_filters(dataset: h5py.Dataset, path: Path, name: str) -> None:
    created = dataset.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, _, _, label = created.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise DataError(
                f"{path}: dataset '{name}' is compressed with filter {code} ({label.decode() or 'unnamed'}), which is "
                "not installed; `pip install hdf5plugin` has the usual ones, or store it uncompressed"
            )


def _check_complete(dataset: h5py.Dataset, path: Path, name: str) -> None:
    """Refuse an array of which chunks were never written: HDF5 reads them as zeros, without a word."""
    if dataset.is_virtual or dataset.external:
        return
    if dataset.chunks is None:
        if dataset.nbytes and not dataset.id.get_storage_size():
            raise DataError(
                f"{path}: dataset '{name}' {list(dataset.shape)} claims {dataset.nbytes:,} bytes, and none of them "
                "were written; they would read as zeros: download or make it again"
            )
        return
    expected = math.prod(-(-size // part) for size, part in zip(dataset.shape, dataset.chunks, strict=True))
    written = dataset.id.get_num_chunks()
    if written < expected:
        raise DataError(
            f"{path}: dataset '{name}' {list(dataset.shape)} claims {dataset.nbytes:,} bytes in {expected:,} chunks, "
            f"and {written:,} of them were written; the others would read as zeros: download or make it again"
        )


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The values in this machine's float32, copied only where they are not."""
    return np.asarray(values, dtype=np.float32)


class _Unpacked:
    """An array in chunks as `chunks` reads it: each is unpacked by HDF5, which does one thing at a time."""

    threads, plain = 1, False

    def __init__(self, array: StoredArray, dataset: Any) -> None:
        self._path, self._dataset, self.token = array.path, dataset, object()
        self.shape, self.dtype = array.shape, array.dtype.newbyteorder("=")
        self.chunk: tuple[int, ...] = self._dataset.chunks or (1, 1, *array.shape[2:])
        self._space, self._type = self._dataset.id.get_space(), h5py.h5t.py_create(self.dtype)

    def load(self, numbers: tuple[int, ...]) -> NDArray[Any]:
        """A whole chunk, zeros where it reaches over the array's end."""
        start = tuple(number * size for number, size in zip(numbers, self.chunk, strict=True))
        count = tuple(min(size, end - low) for size, end, low in zip(self.chunk, self.shape, start, strict=True))
        inside = count == self.chunk
        values = np.empty(self.chunk, self.dtype) if inside else np.zeros(self.chunk, self.dtype)
        part = values if inside else np.empty(count, self.dtype)
        self._space.select_hyperslab(start, count)
        with damage_told(self._path):  # h5py's high-level reading costs more than to unpack a small chunk
            self._dataset.id.read(h5py.h5s.create_simple(count), self._space, part, mtype=self._type)
        if not inside:
            values[tuple(slice(0, size) for size in count)] = part
        return values

    def load_rows(self, numbers: tuple[int, ...], start: int, stop: int) -> NDArray[Any]:
        chunk = self.load(numbers)
        return chunk.reshape(-1, *chunk.shape[2:])[start:stop]


class _Block:
    """Reads so many frames of a sample by h5py's low-level call: its high-level one costs more than a small read."""

    def __init__(self, dataset: Any, frames: int, step: int) -> None:
        rest = dataset.shape[2:]
        self._id, self._space = dataset.id, dataset.id.get_space()
        self._count, self._stride = (1, frames, *rest), (1, step, *(1 for _ in rest))
        self._rest = tuple(0 for _ in rest)
        self._memory = h5py.h5s.create_simple(self._count)

    def read(self, sample: int, frame: int, into: NDArray[np.float32]) -> None:
        """Fill `into` (frames, ...) with what begins at this frame."""
        self._space.select_hyperslab((sample, frame, *self._rest), self._count, self._stride)
        self._id.read(self._memory, self._space, into, mtype=h5py.h5t.NATIVE_FLOAT)
