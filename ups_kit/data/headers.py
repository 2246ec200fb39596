"""The headers of a data file (HDF5, Zarr store, .npz, .npy) as a `FileTree`: no values, and no link is followed.

A folder of HDF5 files with a `metadata.json` beside them is one data file, too.

What is wrong is collected, not raised: whoever looks into a file wants to see all of it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import h5py
import numpy as np
from attrs import define, evolve, field

from ..errors import DataError
from .guard import Sign
from .hdf5 import check_kind, opened
from .tree import INNER_LINK, ArrayInfo, FileTree, Format
from .zarr_headers import read_store

MESHES = (".vtu", ".vtk", ".msh", ".pvd", ".xdmf", ".xmf")  # read by `data convert`
METADATA, HDF5_FILES = "metadata.json", (".h5", ".hdf5")  # of a folder that is one data file
MOST_OBJECTS = 20_000  # that are listed of a file
MOST_ENTRIES = 256  # of an attribute that is an array
LONGEST_TEXT = 4096  # characters of an attribute
LARGEST_ATTRIBUTE = 2**20  # bytes that are read of one
BOMB = 1000  # a chunked array that claims so many times what it stores is told of
BOMB_BYTES = 2**30
# What h5py raises for a damaged object: nearly anything.
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, OverflowError, NotImplementedError)


@define
class Found:
    """A file's headers, and what is wrong or odd with them."""

    tree: FileTree
    problems: list[str] = field(factory=list)
    notes: list[str] = field(factory=list)


def read_tree(path: Path, sign: Sign = lambda what: None) -> FileTree:
    """The headers of a file, in this process. Raises DataError for what is no data file, or damaged."""
    return read_headers(path, sign).tree


def read_headers(path: Path, sign: Sign = lambda what: None) -> Found:
    """The same, with what is wrong. The path in the tree is absolute."""
    path = path.absolute()
    kind = file_format(path)
    if kind == "zarr":
        tree, problems, notes = read_store(path, sign)
        return Found(tree, problems, notes)
    return {"hdf5": _hdf5, "npz": _npz, "npy": _npy, "folder": _folder}[kind](path, sign)


def file_format(path: Path) -> Format:
    """What kind of data file this is, by its first bytes. Raises DataError for a device, or none."""
    with suppress(PermissionError):  # of its folder, as `check_kind` says
        if path.is_dir():
            return "folder" if _is_data(path) else "zarr"
    check_kind(path)
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK\x03\x04") and path.suffix == ".npz":
        return "npz"
    if path.suffix.lower() in MESHES and not head.startswith(b"\x89HDF"):
        raise DataError(f"{path}: is a file of a mesh; `upskit data convert {path} --to zarr` makes it a store")
    return "hdf5"  # or none at all, as its opening tells


def _is_data(folder: Path) -> bool:
    try:
        return (folder / METADATA).is_file() and bool(files_of(folder))
    except PermissionError:
        return False


def files_of(folder: Path) -> list[Path]:
    """The HDF5 files of a folder, in the order of their names."""
    return sorted(entry for entry in folder.iterdir() if entry.suffix in HDF5_FILES and entry.is_file())


def _folder(path: Path, sign: Sign) -> Found:
    """The files of a folder one after the other, each under its name."""
    found = Found(FileTree(path, "folder", {}))
    arrays: dict[str, ArrayInfo] = {}
    attributes: dict[str, Mapping[str, Any]] = {}
    for file in files_of(path):
        inner = _hdf5(file, lambda what: sign(f"{file.name}: {what}"))  # noqa: B023 - called before the next
        arrays |= {f"{file.name}/{name}": info for name, info in inner.tree.arrays.items()}
        attributes |= {f"{file.name}/{name}".rstrip("/"): own for name, own in inner.tree.attributes.items()}
        found.problems += [f"{file.name}: {problem}" for problem in inner.problems]
        found.notes += [f"{file.name}: {note}" for note in inner.notes]
    found.tree = evolve(found.tree, arrays=arrays, attributes=attributes)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# HDF5
# ---------------------------------------------------------------------------------------------------------------------
def _hdf5(path: Path, sign: Sign) -> Found:
    sign("its first bytes")
    found = Found(FileTree(path, "hdf5", {}))
    arrays: dict[str, ArrayInfo] = {}
    attributes: dict[str, Mapping[str, Any]] = {}
    with opened(path) as file:
        for name, item in _walk(file, sign, found):
            sign(name or "/")
            if isinstance(item, ArrayInfo):  # a link that leads elsewhere
                arrays[name] = item
            elif isinstance(item, h5py.Dataset):
                arrays[name] = _dataset(path, name, item, found, sign)
            else:
                attributes[name] = _attributes(item, name, found, sign)
    found.tree = evolve(found.tree, arrays=arrays, attributes=attributes)
    return found


def _walk(file: h5py.File, sign: Sign, found: Found) -> Iterator[tuple[str, Any]]:
    """The groups and datasets that lie in the file itself, each once, and links that leave it as `ArrayInfo`."""
    pending: list[tuple[str, Any]] = [("", file)]
    seen, count = set(), 0
    while pending:
        name, group = pending.pop()
        yield name, group
        inner: list[tuple[str, Any]] = []
        sign(name or "/")
        for child in _names(group, name, found):
            count += 1
            if count > MOST_OBJECTS:
                found.notes.append(f"has more than {MOST_OBJECTS:,} objects; the others are not listed")
                return
            where = f"{name}/{child}" if name else child
            link = group.get(child, getlink=True)
            if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):  # the former may lead to the latter
                leaves = isinstance(link, h5py.ExternalLink)
                target = f"link to {link.filename}:{link.path}" if leaves else f"{INNER_LINK} to {link.path}"
                yield where, ArrayInfo((), "", elsewhere=target)
                continue
            sign(where)
            try:
                item = group[child]
                address = h5py.h5o.get_info(item.id).addr
            except DAMAGE as error:
                found.problems.append(f"object '{where}' cannot be read ({_said(error)}); download or make it again")
                continue
            if address in seen:
                found.notes.append(f"'{where}' is another name of an object that is listed")
            elif isinstance(item, h5py.Group):
                seen.add(address)
                inner.append((where, item))
            elif isinstance(item, h5py.Dataset):
                seen.add(address)
                yield where, item
        pending += reversed(inner)


def _names(owner: Any, name: str, found: Found) -> list[str]:
    """The members of a group, or keys of attributes, whose list can be read."""
    try:
        return [key if isinstance(key, str) else repr(key) for key in owner]
    except DAMAGE as error:
        what = "attributes" if isinstance(owner, h5py.AttributeManager) else "members"
        found.problems.append(f"the {what} of '{name or '/'}' cannot be listed ({_said(error)})")
        return []


def _dataset(path: Path, name: str, dataset: h5py.Dataset, found: Found, sign: Sign) -> ArrayInfo:
    try:
        dtype = dataset.dtype.str if dataset.dtype.names is None else str(dataset.dtype)
        text = h5py.check_string_dtype(dataset.dtype)
        dtype = "string" if text is not None else "object" if dataset.dtype.hasobject else dtype
        shape = tuple(dataset.shape or ())
        filters = tuple(_filters(dataset, name, found))
        elsewhere = _elsewhere(dataset)
        if not elsewhere and dataset.shape is not None:
            _sizes(path, name, dataset, found)
        attributes = _attributes(dataset, name, found, sign)
        return ArrayInfo(shape, dtype, dataset.chunks, None, filters, elsewhere, attributes)
    except DAMAGE as error:
        found.problems.append(f"dataset '{name}' cannot be read ({_said(error)})")
        return ArrayInfo((), "unreadable")


def _elsewhere(dataset: h5py.Dataset) -> str:
    if dataset.external:
        return f"external ({dataset.external[0][0]})"
    if dataset.is_virtual:
        sources = sorted({str(source.file_name) for source in dataset.virtual_sources()[:MOST_ENTRIES]})
        return f"virtual ({', '.join(sources[:4])})"
    return ""


def _filters(dataset: h5py.Dataset, name: str, found: Found) -> Iterator[str]:
    created = dataset.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, _, options, label = created.get_filter(number)
        known = {1: f"gzip {options[0] if options else ''}".strip(), 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
        words = known.get(code, label.decode(errors="replace") or f"filter {code}")
        if not h5py.h5z.filter_avail(code):
            found.problems.append(
                f"dataset '{name}' is compressed with filter {code} ({words}), which is not installed; "
                "`pip install hdf5plugin` has the usual ones, or store it uncompressed"
            )
        yield words


def _sizes(path: Path, name: str, dataset: h5py.Dataset, found: Found) -> None:
    """Compare what a dataset claims to hold with what is stored of it."""
    claimed, size = math.prod(dataset.shape) * dataset.dtype.itemsize, path.stat().st_size
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is not None and offset + claimed > size:
            found.problems.append(
                f"dataset '{name}' claims {claimed:,} bytes from byte {offset:,}, and the file has {size:,}; "
                "it is truncated: download or make it again"
            )
        return
    stored = dataset.id.get_storage_size()
    if claimed > BOMB_BYTES and claimed > BOMB * max(stored, 1):
        found.problems.append(
            f"dataset '{name}' claims {list(dataset.shape)} values, {claimed:,} bytes, and stores {stored:,} bytes; "
            "what is not stored reads as a fill value: it was not written to its end, or is made to fill memory"
        )


def _attributes(owner: Any, name: str, found: Found, sign: Sign) -> dict[str, Any]:
    values = {}
    for key in _names(owner.attrs, name, found):
        sign(f"attribute '{key}' of '{name or '/'}'")
        try:
            identity = owner.attrs.get_id(key)
            claimed = math.prod(identity.shape or ()) * identity.dtype.itemsize
            if claimed > LARGEST_ATTRIBUTE:
                values[key] = f"({claimed:,} bytes, not read)"
            else:
                values[key] = plain(owner.attrs[key])
        except DAMAGE as error:
            found.problems.append(f"attribute '{key}' of '{name or '/'}' cannot be read ({_said(error)})")
    return values


def plain(value: Any) -> Any:
    """An attribute as JSON can hold it, cut where it is long."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]} …"
    if isinstance(value, np.ndarray):
        if value.size > MOST_ENTRIES:
            return f"({' x '.join(map(str, value.shape))} values of type {value.dtype})"
        return [plain(entry) for entry in value.tolist()] if value.ndim else plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value[:MOST_ENTRIES]]
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in list(value.items())[:MOST_ENTRIES]}
    if isinstance(value, np.generic):
        return plain(value.item())
    return value if isinstance(value, (bool, int, float)) or value is None else f"({type(value).__name__})"


def _said(error: Exception) -> str:
    return str(error.args[0] if error.args else type(error).__name__)[:200]


# ---------------------------------------------------------------------------------------------------------------------
# NumPy's files
# ---------------------------------------------------------------------------------------------------------------------
def _npy(path: Path, sign: Sign) -> Found:
    sign(path.stem)
    with path.open("rb") as file:
        info, start = _npy_header(file, path, path.name)
    found = Found(FileTree(path, "npy", {path.stem: info}, {"": {}}))
    claimed = math.prod(info.shape) * (np.dtype(info.dtype).itemsize if info.dtype != "object" else 0)
    size = path.stat().st_size
    if start + claimed > size:
        found.problems.append(
            f"claims {start + claimed:,} bytes for its {list(info.shape)} values, and the file has {size:,}; "
            "it is truncated: download or make it again"
        )
    _refuse_objects(found)
    return found


def _npz(path: Path, sign: Sign) -> Found:
    arrays = {}
    found = Found(FileTree(path, "npz", {}))
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist()[:MOST_OBJECTS]:
                name = member.filename.removesuffix(".npy")
                sign(name)
                with archive.open(member) as file:
                    info, start = _npy_header(file, path, member.filename)
                filters = () if member.compress_type == zipfile.ZIP_STORED else ("deflate",)
                arrays[name] = evolve(info, filters=filters)
                claimed = start + math.prod(info.shape) * (
                    0 if info.dtype == "object" else np.dtype(info.dtype).itemsize
                )
                if claimed > member.file_size:
                    found.problems.append(
                        f"array '{name}' claims {claimed:,} bytes, and the archive holds {member.file_size:,} of it"
                    )
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path}: is a damaged .npz file ({error}); download or make it again") from error
    found.tree = evolve(found.tree, arrays=arrays, attributes={"": {}})
    _refuse_objects(found)
    return found


def _npy_header(file: Any, path: Path, name: str) -> tuple[ArrayInfo, int]:
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except (ValueError, SyntaxError, TokenError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: '{name}' has no readable NumPy header ({error}); download or make it again"
        ) from error
    kind = "object" if dtype.hasobject else dtype.str if dtype.names is None else str(dtype)
    return ArrayInfo(tuple(shape), kind, filters=("Fortran order",) if fortran else ()), file.tell()


def _refuse_objects(found: Found) -> None:
    for name, info in found.tree.arrays.items():
        if info.dtype == "object":
            found.problems.append(
                f"array '{name}' holds pickled Python objects, which may run code when they are read; expected numbers"
            )
