"""Data from one format to another: read and written in a child process, compared, and only then given their name."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import attrs
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StorageError, UsageError
from ..folder import held, sync_folder
from .conversion_options import MeshOptions, Plain
from .guard import MEMORY, SECONDS, Sign, guarded
from .tree import INNER_LINK, ArrayInfo, FileTree

ENDINGS: Mapping[str, Literal["hdf5", "zarr", "npz"]] = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "zarr",
    ".npz": "npz",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SPARE_BYTES = 2**20  # of the disk, beyond the values
CHUNK_BYTES = 2**20  # of copied arrays in a store
SHARD_CHUNKS = 64


# ---------------------------------------------------------------------------------------------------------------------
# The parent's side
# ---------------------------------------------------------------------------------------------------------------------
def convert_file(
    source: Path,
    out: Path,
    plain: Plain | None = None,
    memory: int = MEMORY,
    as_is: bool = False,
    meshes: MeshOptions | None = None,
) -> dict[str, Any]:
    """Write what is in `source` to `out`, whose ending says the format. Returns counts and notes.

    Plain arrays as trajectories; a layout that a dataset knows as one that a dataset knows; with `meshes`, files of
    meshes as a store of these; else, or with `as_is`, arrays and attributes as they are.

    Raises UsageError for an ending that is not known, StorageError where something is at `out` already or the disk
    does not take it, DataError for a source that cannot be read. What was there is not touched in any case.
    """
    kind = ENDINGS.get(out.suffix)
    if kind is None:
        raise UsageError(f"--out {out}: expected a name that ends in {', '.join(ENDINGS)}")
    out = out.absolute()
    _refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: its folder cannot be made: {error.strerror}; choose another --out") from error
    aside = out.with_name(f".{out.name}.{os.getpid()}.part{out.suffix}")
    request = {
        "source": str(source.absolute()),
        "aside": str(aside),
        "kind": kind,
        "plain": None if plain is None else attrs.asdict(plain),
        "as_is": as_is,
        "meshes": None if meshes is None else attrs.asdict(meshes),
    }
    try:
        with _cleaning_up(), _alone(out), _nothing_left(out):
            _refuse_existing(out)
            aside.touch()  # what cannot be written here is told before anything is read
            aside.unlink()
            done: dict[str, Any] = guarded("convert", source.absolute(), request, SECONDS * 3, memory, streaming=True)
            _refuse_existing(out)
            aside.rename(out)
            sync_folder(out.parent)
    except OSError as error:
        raise StorageError(f"{out}: could not be written: {error.strerror or error}; choose another --out") from error
    return done


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """A process that is told to end does so by way of its cleaning up: what is written aside may be large."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold `out` for writing. Raises StorageError where another process does."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(out.with_name(f".{out.name}.lock"), wait=False))
        except BlockingIOError as error:
            raise StorageError(
                f"{out}: is being written by another process; wait for it, or choose another --out"
            ) from error
        yield


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Remove what was written aside, at the end, and before what a process that was killed has left."""

    def remove() -> None:
        name = escape(out.name)
        # a store is itself written aside
        for rest in (
            *out.parent.glob(f".{name}.*.part{out.suffix}"),
            *out.parent.glob(f"..{name}.*.part{out.suffix}.*"),
        ):
            with suppress(OSError):
                shutil.rmtree(rest) if rest.is_dir() and not rest.is_symlink() else rest.unlink()

    remove()
    try:
        yield
    finally:
        remove()


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise StorageError(f"{out}: is there already, and nothing is overwritten; remove it, or choose another --out")


# ---------------------------------------------------------------------------------------------------------------------
# In the child
# ---------------------------------------------------------------------------------------------------------------------
def convert_task(
    sign: Sign,
    source: str,
    aside: str,
    kind: Literal["hdf5", "zarr", "npz"],
    plain: Mapping[str, Any] | None,
    as_is: bool = True,
    meshes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `aside` from `source`, read it again and compare. Raises StorageError where it cannot be written."""
    try:
        if meshes is not None:
            return _meshes(sign, source, aside, meshes)
        return _converted(sign, source, aside, kind, plain, as_is)
    except (OSError, RuntimeError) as error:  # HDF5 closes a file that it could not write with a RuntimeError
        words = str(error)
        if aside not in words and getattr(error, "errno", None) not in FULL:
            raise
        said = re.search(r"error message = '([^']*)'", words)
        reason = said[1] if said else getattr(error, "strerror", None) or words
        raise StorageError(f"{Path(aside).parent}: cannot be written to: {reason}; choose another --out") from error


def _converted(
    sign: Sign,
    source: str,
    aside: str,
    kind: Literal["hdf5", "zarr", "npz"],
    plain: Mapping[str, Any] | None,
    as_is: bool,
) -> dict[str, Any]:
    from .headers import read_headers

    found = read_headers(Path(source), sign)
    if found.problems:
        raise DataError(f"{source}: " + "; ".join(found.problems))
    if plain is not None:
        from .plain_arrays import convert_plain

        options = Plain(
            **{
                **plain,
                **{key: None if plain[key] is None else tuple(plain[key]) for key in ("axes", "arrays", "names")},
                "domain": None if plain["domain"] is None else tuple((low, high) for low, high in plain["domain"]),
            }
        )
        return convert_plain(sign, found.tree, Path(aside), kind, options)
    if not as_is:
        from .gridded import convert_grid, known_grid
        from .particle_conversion import convert_particles, known_particles

        grid = known_grid(found.tree)
        if grid is not None:
            return convert_grid(sign, found.tree, grid[1], Path(aside), kind)
        particles = known_particles(found.tree) if kind == "zarr" else None
        if particles is not None:
            return convert_particles(sign, found.tree, particles[1], Path(aside))
    return _copy(sign, found.tree, Path(aside), kind)


def _meshes(sign: Sign, source: str, aside: str, meshes: Mapping[str, Any]) -> dict[str, Any]:
    from .mesh_conversion import convert_meshes

    lists = {key: None if meshes[key] is None else tuple(meshes[key]) for key in ("arrays", "names", "statics")}
    return convert_meshes(sign, Path(source), Path(aside), MeshOptions(**{**meshes, **lists}))


def check_space(path: Path, needed: int) -> None:
    """HDF5 may end the process when the disk fills up, so there is a look before. Raises StorageError."""
    free = shutil.disk_usage(path.parent).free
    if needed + SPARE_BYTES > free:
        raise StorageError(
            f"{path.parent}: {needed / 2**20:,.0f} MiB are to be written, and {free / 2**20:,.0f} MiB are free; free "
            "some, or choose another --out"
        )


def _copy(sign: Sign, tree: FileTree, aside: Path, kind: str) -> dict[str, Any]:
    from .inspection import is_readable, opened_arrays

    links = {name for name, info in tree.arrays.items() if info.elsewhere.startswith(INNER_LINK)}
    away = [f"'{n}' ({info.elsewhere})" for n, info in tree.arrays.items() if info.elsewhere and n not in links]
    if away:
        raise DataError(
            f"{tree.path}: {', '.join(away[:4])}: values outside the file are not read, as they can show any file of "
            "this machine; copy them into the file first"
        )
    taken = {name: info for name, info in tree.arrays.items() if is_readable(info)}
    notes = [f"'{name}' is a {tree.arrays[name].elsewhere}: left out" for name in sorted(links)]
    notes += [
        f"'{name}' holds values of type {info.dtype}, shape {list(info.shape)}: left out, only numbers are converted"
        for name, info in tree.arrays.items()
        if name not in taken and name not in links
    ]
    if not taken:
        raise DataError(f"{tree.path}: there is no array of numbers in it; expected at least one")
    for name in taken:
        if name != "." and any(part in ("", ".", "..") for part in name.split("/")):
            raise DataError(
                f"{tree.path}: array {name!r}: expected a name without empty parts, '.' and '..'; rename it"
            )
    if kind == "npz" and any(tree.attributes.values()):
        notes.append("an .npz file has no attributes: those of the source are left out")
    check_space(aside, sum(_bytes(info) for info in taken.values()))
    with opened_arrays(tree) as source:
        writing = {"hdf5": _write_hdf5, "zarr": _write_zarr, "npz": _write_npz}[kind]
        writing(sign, tree, taken, source, aside)
        sync_all(aside)
        _compare(sign, taken, source, aside)
    return {"arrays": len(taken), "values": sum(math.prod(i.shape) for i in taken.values()), "notes": notes}


def _bytes(info: ArrayInfo) -> int:
    return math.prod(info.shape) * np.dtype(info.dtype).itemsize


def _blocks(sign: Sign, name: str, info: ArrayInfo) -> Iterator[tuple[slice, ...]]:
    from .inspection import blocks, check_chunk

    check_chunk(name, info)
    for where in blocks(info, None):
        sign(name)
        yield where


def _kept(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that the target can hold; a list of texts and numbers mixed is written as JSON."""
    return {key: value for key, value in attributes.items() if value is not None}


def _write_hdf5(sign: Sign, tree: FileTree, taken: Mapping[str, ArrayInfo], source: Any, aside: Path) -> None:
    import json

    import h5py

    def keep(owner: Any, attributes: Mapping[str, Any]) -> None:
        for key, value in _kept(attributes).items():
            try:
                owner.attrs[key] = value
            except (TypeError, ValueError):
                owner.attrs[key] = json.dumps(value)

    with h5py.File(aside, "w", libver="latest") as file:
        for name, attributes in tree.attributes.items():
            keep(file.require_group(name) if name else file, attributes)
        for name, info in taken.items():
            array = file.create_dataset("array" if name == "." else name, info.shape, info.dtype)
            for where in _blocks(sign, name, info):
                array[where] = source[name][where]
            keep(array, info.attributes)


def _write_zarr(sign: Sign, tree: FileTree, taken: Mapping[str, ArrayInfo], source: Any, aside: Path) -> None:
    import zarr

    from . import mesh_store
    from .grid_store import seal
    from .particle_store import seal as seal_particles

    with zarr.config.set({"array.write_empty_chunks": True}):
        root = zarr.open_group(str(aside), mode="w-", attributes=dict(tree.attributes.get("", {})))
        for name, attributes in tree.attributes.items():
            if name:
                root.require_group(name).attrs.update(dict(attributes))
        for name, info in taken.items():
            array = created(root, "array" if name == "." else name, info)
            for where in _shards(array, info):
                sign(name)
                array[where] = np.asarray(source[name][where])
            array.attrs.update(dict(info.attributes))
    seal(aside)  # the source's checksum is of its own metadata
    seal_particles(aside)
    mesh_store.seal(aside)


def created(root: Any, name: str, info: ArrayInfo) -> Any:
    """An array of a store: Zstandard with checksums, NaN where nothing was written, several chunks to a file."""
    from zarr.codecs import ZstdCodec

    dtype = np.dtype(info.dtype)
    chunks, shards = _chunking(info.shape, dtype.itemsize)
    return root.create_array(
        name,
        shape=info.shape,
        chunks=chunks if info.shape else (),
        shards=shards if info.shape else None,
        dtype=dtype.newbyteorder("=").name,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=math.nan if dtype.kind == "f" else 0,
    )


def _chunking(shape: Sequence[int], itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Whole last axes up to about `CHUNK_BYTES`; a shard holds several of them along the first axis that is cut."""
    chunks, room = [1] * len(shape), CHUNK_BYTES // itemsize
    for axis in reversed(range(len(shape))):
        chunks[axis] = max(1, min(shape[axis], room))
        room //= chunks[axis]
    shards, left = list(chunks), SHARD_CHUNKS
    for axis in reversed(range(len(shape))):
        times = min(left, -(-shape[axis] // chunks[axis]))
        shards[axis], left = chunks[axis] * times, left // times
    return tuple(chunks), tuple(shards)


def _shards(array: Any, info: ArrayInfo) -> Iterator[tuple[slice, ...]]:
    """Slices of whole shards: each file is written once."""
    from itertools import product

    if not info.shape:
        yield ()
        return
    steps = array.shards
    for place in product(*(range(-(-size // step)) for size, step in zip(info.shape, steps, strict=True))):
        yield tuple(
            slice(index * step, min((index + 1) * step, size))
            for index, step, size in zip(place, steps, info.shape, strict=True)
        )


def _write_npz(sign: Sign, tree: FileTree, taken: Mapping[str, ArrayInfo], source: Any, aside: Path) -> None:
    import zipfile

    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in taken:
            sign(name)
            with archive.open(f"{'array' if name == '.' else name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(source[name][()]), allow_pickle=False)


def sync_all(path: Path) -> None:
    """Everything that was written to the disk itself."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _compare(sign: Sign, taken: Mapping[str, ArrayInfo], source: Any, aside: Path) -> None:
    """Read what was written, and hold it against the source. Raises StorageError where a value differs."""
    from .headers import read_tree
    from .inspection import opened_arrays

    with opened_arrays(read_tree(aside, sign)) as written:
        for name, info in taken.items():
            there = "array" if name == "." else name
            for where in _blocks(sign, f"{name}, written", info):
                same(name, np.asarray(source[name][where]), np.asarray(written[there][where]), where)


def same(name: str, before: NDArray[Any], after: NDArray[Any], where: tuple[slice, ...]) -> None:
    """Raise StorageError where two blocks differ; NaN is NaN."""
    if before.shape != after.shape or not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
        place = ", ".join(f"{part.start}:{part.stop}" for part in where)
        raise StorageError(
            f"array '{name}' [{place}]: what was read again differs from what was written; the disk may be failing, "
            "nothing was kept"
        )
