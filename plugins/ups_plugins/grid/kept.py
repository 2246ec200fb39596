"""What a pass over all values of a large file found, kept beside it until it changes: the next run begins at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups_kit.data.normalisation import Central, Moments
from ups_kit.data.statistics import cached_pass

from .settings import TrajectorySettings
from .source import Source

LEAST_VALUES = 2**24  # of a file for which it is worth to leave something beside it
MOST_SAMPLES = 100_000  # whose moments are kept
NAMES = ("count", "mean", "squares", "low", "high")


def kept_hashes(
    settings: TrajectorySettings, source: Source, samples: NDArray[np.int64], compute: Callable[[], list[str]]
) -> list[str]:
    """The samples' hashes that `compute` makes, from beside the file where it has been done before."""
    if not worth_keeping(settings, source, samples):
        return compute()
    key = _key("initial conditions", source, samples)
    found = cached_pass((source.header.path,), key, lambda: {"hashes": compute()})
    return [str(each) for each in found["hashes"]]


def kept_moments(
    settings: TrajectorySettings,
    source: Source,
    samples: NDArray[np.int64],
    compute: Callable[[], tuple[Moments, Moments]],
) -> tuple[Moments, Moments]:
    """The samples' moments at the recipe's strides that `compute` makes, from beside the file where they are kept."""
    if not worth_keeping(settings, source, samples):
        return compute()
    key = _key(f"moments {settings.time_stride} {settings.space_stride}", source, samples)
    found = cached_pass((source.header.path,), key, lambda: {"moments": [_plain(each) for each in compute()]})
    targets, statics = (_moments(each) for each in found["moments"])
    return targets, statics


def kept_central(
    settings: TrajectorySettings,
    parts: Sequence[tuple[Source, NDArray[np.int64]]],
    names: Sequence[str],
    compute: Callable[[], Central],
) -> Central:
    """The central halves of these fields' values, of some samples of each source, from beside the first file."""
    total = sum(_values(source, samples) for source, samples in parts)
    if total < LEAST_VALUES or not all(_alone(settings, source, samples) for source, samples in parts):
        return compute()
    strides = f"{settings.time_stride} {settings.space_stride} from {settings.first_frame}"
    every = hashlib.sha256("\n".join(_key("", source, samples) for source, samples in parts).encode()).hexdigest()
    key = f"central half of {json.dumps(list(names))} {strides} {every[:16]}"
    paths = tuple(source.header.path for source, _ in parts)

    def record() -> dict[str, Any]:
        found = compute()
        return {"quartiles": found.quartiles.tolist(), "mean": found.mean.tolist(), "std": found.std.tolist()}

    there = cached_pass(paths, key, record)
    return Central(*(np.asarray(there[name], np.float64) for name in ("quartiles", "mean", "std")))


def worth_keeping(settings: TrajectorySettings, source: Source, samples: NDArray[np.int64]) -> bool:
    """Whether a pass takes long, and the file alone says what it finds."""
    return _values(source, samples) >= LEAST_VALUES and _alone(settings, source, samples)


def _values(source: Source, samples: NDArray[np.int64]) -> int:
    header = source.header
    return int(np.prod(header.grid)) * len(header.times) * header.target_channels * len(samples)


def _alone(settings: TrajectorySettings, source: Source, samples: NDArray[np.int64]) -> bool:
    """Values in other files, and a store behind a network, would not be seen to change."""
    inside = not getattr(settings, "allow_external", False) and Path(source.header.path).exists()
    return inside and len(samples) <= MOST_SAMPLES


def _key(what: str, source: Source, samples: NDArray[np.int64]) -> str:
    """All that a pass depends on beside the file's content."""
    header = source.header
    names = [[field.name, field.channels] for field in (*header.targets, *header.statics)]
    record = [names, header.trajectories, header.grid, header.times[0], len(header.times), header.steady]
    digest = hashlib.sha256(json.dumps(record).encode() + np.ascontiguousarray(samples, "<i8").tobytes())
    return f"{what} {digest.hexdigest()[:16]}"


def _plain(moments: Moments) -> dict[str, Any]:
    return {name: getattr(moments, name).tolist() for name in NAMES}


def _moments(plain: Mapping[str, Any]) -> Moments:
    return Moments(*(np.asarray(plain[name], np.float64) for name in NAMES))
