"""Statistics of data files in one pass, and what a pass has found kept beside the data until they change."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from .. import __version__
from ..errors import DataError, StorageError
from ..folder import write_text
from .guard import Sign

VERSION = 1
PAGE, PAGES = 4096, 64  # of a file's content that go into its fingerprint, spread over it, beside both its ends
MOST_PASSES = 31  # that are kept beside the one that is added, the newest ones
LARGEST_CACHE = 512 * 2**20  # bytes
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
KEPT_VALUES = 2**18  # of a field, from which quantiles are taken
SHORT = 12  # characters of a hash that a message shows


# ---------------------------------------------------------------------------------------------------------------------
# Fingerprints
# ---------------------------------------------------------------------------------------------------------------------
def fingerprint(paths: Path | Sequence[Path], more: str = "") -> str:
    """A hash of files or stores: sizes, times of the last change, and a spread of pages of their content.

    It takes milliseconds for any size. `more` is mixed in, such as shapes and offsets from headers.
    """
    digest = hashlib.sha256(f"{VERSION}\n{more}\n".encode())
    for path in [paths] if isinstance(paths, Path) else paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        pages = max(1, PAGES // len(files)) if files else 0
        for file in files:
            status = file.stat()
            name = str(file.relative_to(path)) if path.is_dir() else ""
            digest.update(f"{name}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
            if len(files) <= PAGES or file.name == "zarr.json":
                _update(digest, file, status.st_size, pages)
    return digest.hexdigest()


def _update(digest: Any, file: Path, size: int, pages: int) -> None:
    places = np.unique(np.linspace(0, max(size - PAGE, 0), min(pages, size // PAGE + 1)).astype(np.int64))
    with file.open("rb", buffering=0) as handle:
        for place in places:
            handle.seek(int(place))
            digest.update(handle.read(PAGE))


# ---------------------------------------------------------------------------------------------------------------------
# The cache beside the data
# ---------------------------------------------------------------------------------------------------------------------
@frozen
class Kept:
    """What a pass over files found, as it lies beside them in `.NAME.stats.json`."""

    found: Mapping[str, Any]
    fingerprint: str  # of the data that were passed over


def cache_path(data: Path) -> Path:
    """Where the passes over a file are kept."""
    return data.with_name(f".{data.name}.stats.json")


def kept(paths: Sequence[Path], key: str) -> Kept | None:
    """What was kept under a key beside the first of the files; whether it is of these data, its fingerprint says."""
    entry = _passes(cache_path(paths[0])).get(key)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("found"), Mapping):
        return None
    return Kept(entry["found"], str(entry.get("fingerprint")))


def keep(paths: Sequence[Path], key: str, found: Mapping[str, Any], of: str) -> None:
    """Keep what a pass found, whole or not at all; where the folder takes no files, it is not kept."""
    path = cache_path(paths[0])
    passes = {name: each for name, each in _passes(path).items() if name != key}
    passes = {name: passes[name] for name in list(passes)[-MOST_PASSES:]} | {key: {"fingerprint": of, "found": found}}
    with suppress(StorageError):
        write_text(path, json.dumps({"version": VERSION, "ups_kit": __version__, "passes": passes}) + "\n")


def cached_pass(
    paths: Sequence[Path], key: str, compute: Callable[[], Mapping[str, Any]], more: str = ""
) -> Mapping[str, Any]:
    """What `compute` finds in files, from the cache while they are unchanged: for passes that a dataset makes itself.

    What is found is what JSON holds, and `key` says all that it depends on beside the files. A cache that is of
    other data, damaged, or of another version is made anew.
    """
    now = fingerprint(paths, more)
    there = kept(paths, key)
    if there is not None and there.fingerprint == now:
        return there.found
    found = compute()
    if fingerprint(paths, more) == now:  # else they changed meanwhile, and nobody knows which were seen
        keep(paths, key, found, now)
    return found


def _passes(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_CACHE:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
        same = document["version"] == VERSION and document["ups_kit"] == __version__
        return dict(document["passes"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def check_of(paths: Sequence[Path], there: Kept, now: str, command: str) -> None:
    """Raise DataError where kept statistics are of other data: both hashes, and the command that makes them anew."""
    if there.fingerprint != now:
        raise DataError(
            f"{cache_path(paths[0])}: holds statistics of other data: their hash is {there.fingerprint[:SHORT]}…, and "
            f"that of {', '.join(path.name for path in paths)} is {now[:SHORT]}…; to compute them anew: {command}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# One pass
# ---------------------------------------------------------------------------------------------------------------------
@define
class Running:
    """Number, mean, deviation, range and quantiles of values that come in blocks; what is not finite is only counted.

    Moments are exact, in float64; quantiles are those of up to `KEPT_VALUES` values, spread over all.
    """

    expected: int  # values that will come, at most
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    bad: int = 0
    _kept: list[NDArray[np.float64]] = field(factory=list, repr=False)
    _draw: Any = field(factory=lambda: np.random.default_rng(0), repr=False)

    def add(self, values: NDArray[Any]) -> None:
        """Take a block of values of any shape."""
        flat = values.reshape(-1)
        if flat.dtype.kind == "f":
            finite = np.isfinite(flat)
            if not finite.all():
                self.bad += int((~finite).sum())
                flat = flat[finite]
        if flat.size == 0:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mine = float(flat.mean(dtype=np.float64))
            squares = float(np.square(flat - mine, dtype=np.float64).sum())
        both, shift = self.count + flat.size, mine - self.mean
        self.squares += squares + shift * shift * self.count * flat.size / both
        self.mean += shift * flat.size / both
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        self.count = both
        step = -(-self.expected // KEPT_VALUES)
        self._kept.append(flat[int(self._draw.integers(min(step, flat.size))) :: step].astype(np.float64))

    def result(self) -> dict[str, Any]:
        """The numbers, as JSON holds them; without a finite value only counts."""
        if not self.count:
            return {"count": 0, "not_finite": self.bad}
        kept = np.concatenate(self._kept)
        return {
            "count": self.count,
            "not_finite": self.bad,
            "mean": self.mean,
            "std": math.sqrt(self.squares / self.count),
            "min": self.low,
            "max": self.high,
            "quantiles": {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(kept, QUANTILES), strict=True)},
            "quantiles_from": len(kept),
        }


def statistics_task(sign: Sign, path: str) -> dict[str, Any]:
    """Statistics of every array of numbers of a file; arrays whose names differ in numbers alone are taken together."""
    from .headers import read_headers
    from .inspection import alike, blocks, check_chunk, is_readable, opened_arrays

    found = read_headers(Path(path), sign)
    if found.problems:
        raise DataError(f"{path}: " + "; ".join(found.problems))
    readable = {name: info for name, info in found.tree.arrays.items() if is_readable(info)}
    result = {}
    with opened_arrays(found.tree) as arrays:
        for label, names in alike(readable).items():
            running = Running(sum(math.prod(readable[name].shape) for name in names))
            for name in names:
                check_chunk(name, readable[name])
                for where in blocks(readable[name], None):
                    sign(name)
                    running.add(np.asarray(arrays[name][where]))
            result[label] = running.result()
    return {"fields": result, "of": "all values of the file"}


def statistics_of(fields: Iterable[tuple[str, int]], samples: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """Statistics of the fields (name, expected values) of samples that come one by one."""
    running = {name: Running(expected) for name, expected in fields}
    for sample in samples:
        for name, values in sample.items():
            running[name].add(values)
    return {name: each.result() for name, each in running.items()}
