"""Codebooks: what each token of a modality stands for, (V_m, d_m), from files that may come from anywhere.

An .npz file holds it under one of `KEYS`, an .npy file holds nothing else. A .joblib file is a pickle: to open it is to
run whatever code it holds, so that is done only where the recipe says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.errors import did_you_mean

from .vocabulary import Modality

KEYS = ("centroids", "codebook", "centers", "bin_centers", "quantile_centers")
FITTED = "cluster_centers_"  # where scikit-learn keeps them
ENDINGS = (".npz", ".npy", ".joblib")
NUMPY = (b"\x93NUMPY", b"PK")  # how its files begin: arrays, archives
SHOWN = 8  # names that a message lists


def load_codebook(path: Path, modality: Modality, key: str, allow_pickle: bool = False) -> NDArray[np.float32]:
    """The codebook in a file, (V_m, d_m) float32. `key` is that of the recipe, for messages. Raises DataError."""
    check_file(path, modality.name, key, allow_pickle)
    return checked(_content(path, modality, key), modality, str(path), key)


def check_file(path: Path, name: str, key: str, allow_pickle: bool) -> None:
    """Raise DataError for a file that is not there, or that would not be opened; nothing of it is read."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{path}: expected a codebook that ends in {', '.join(ENDINGS)}; got '{ending}'", key)
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no regular file; expected the codebook of '{name}'", key)
    if not path.is_file():
        near = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file{near}; expected the codebook of '{name}'", key)
    if ending == ".joblib" and not allow_pickle:
        raise DataError(
            f"{path}: is a pickled file, which runs whatever code it holds when it is opened, so it is not; if you "
            "trust who made it, set dataset.allow_pickle = true; better, save the centroids there with numpy.savez("
            "'codebook.npz', centroids=…)",
            key,
        )


def _content(path: Path, modality: Modality, key: str) -> Any:
    if path.suffix.lower() == ".joblib":
        return _unpickled(path, key)
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if not head.startswith(NUMPY):
            raise ValueError(_what_begins(head))
        found = np.load(path, mmap_mode="r", allow_pickle=False)  # nothing is held of what a header claims
        if not isinstance(found, np.lib.npyio.NpzFile):
            return found
        with found:
            name = _name(list(found), path, key)
            _check_shape(_shape_in(found, name), modality, str(path), key)
            return found[name]
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything
        if any(word in str(error) for word in ("pickle", "Python objects")):
            raise DataError(
                f"{path}: holds pickled Python objects, which may run code when they are read, so they are not; "
                "expected an array of numbers, saved with numpy.save or numpy.savez",
                key,
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: is no readable {path.suffix} file ({reason}); make it again", key) from error


def _what_begins(head: bytes) -> str:
    """What a file is that begins as none of NumPy's does."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-LFS pointer, the file itself was not fetched: run `git lfs pull`"
    if head.startswith(b"\x80"):
        return "it is a pickle"
    return f"it begins {head[:12]!r}" if head else "it is empty"


def _shape_in(archive: np.lib.npyio.NpzFile, name: str) -> tuple[int, ...]:
    """The shape of one of an archive's arrays, by its header: what is packed there may unpack to anything."""
    member = name if name in archive.zip.namelist() else f"{name}.npy"
    with archive.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        one = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        return tuple(read(file)[0])


def _name(names: list[str], path: Path, key: str) -> str:
    """The one of an archive's arrays that is the codebook."""
    fitting = [name for name in KEYS if name in names]
    if len(fitting) == 1:
        return fitting[0]
    near = did_you_mean(names[0], KEYS) if len(names) == 1 else ""
    listed = (", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")) or "no array"
    raise DataError(f"{path}: expected one array of the names {', '.join(KEYS)}; got {listed}{near}", key)


def _unpickled(path: Path, key: str) -> Any:
    """What a .joblib file holds: an array, a table with one of `KEYS`, or a fitted k-means of scikit-learn."""
    try:
        import joblib
    except ImportError as error:
        raise DataError(
            f"{path}: to open it takes joblib, which is not installed: pip install 'ups-tokens[joblib]'", key
        ) from error
    try:
        found = joblib.load(path)
    except (Exception, SystemExit) as error:  # a pickle may raise anything
        raise DataError(f"{path}: could not be opened ({type(error).__name__}: {error}); make it again", key) from error
    if isinstance(found, Mapping):
        return found[_name([str(name) for name in found], path, key)]
    return getattr(found, FITTED, found)


def checked(found: Any, modality: Modality, where: str, key: str) -> NDArray[np.float32]:
    """A codebook, (V_m, d_m) float32, of finite numbers. Raises DataError, which begins with `where`."""
    if not isinstance(found, np.ndarray):
        got = f"an object of the type {type(found).__name__}"
        raise DataError(f"{where}: {_expected(modality)}; got {got}", key)
    if found.dtype.kind not in "fiu":
        raise DataError(f"{where}: {_expected(modality)}; got values of the type {found.dtype}", key)
    _check_shape(found.shape, modality, where, key)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
        values = np.ascontiguousarray(found.reshape(len(found), -1), dtype=np.float32)
    finite = np.isfinite(values).all(1)
    if not finite.all():
        raise DataError(
            f"{where}: expected finite numbers; got NaN or infinity in {int((~finite).sum())} of {len(values)} tokens "
            f"(as float32), the first is token {int(np.argmin(finite))} of '{modality.name}'",
            key,
        )
    return values


def _expected(modality: Modality) -> str:
    size, dims = modality.size, modality.dims
    return f"expected ({size}, {dims}), as '{modality.name}' has {size} tokens of {dims} numbers"


def _check_shape(shape: tuple[int, ...], modality: Modality, where: str, key: str) -> None:
    """Raise DataError where an array of this shape is no codebook; values of one number may lack their axis."""
    expected = (modality.size, modality.dims)
    if shape == expected or (modality.dims == 1 and shape == expected[:1]):
        return
    turned = "; it is the other way round" if shape == expected[::-1] else ""
    got = ", ".join(map(str, shape))
    raise DataError(f"{where}: {_expected(modality)}; got the shape ({got}){turned}", key)
