"""One look at all values of some trajectories: whether they are finite, and what normalisation has to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ups_kit import FieldSpec
from ups_kit.data.normalisation import Central, Moments, central_half, channels_of, scheme_of
from ups_kit.data.splits import content_hash

from .files import FileSet
from .kept import kept_central, kept_hashes, kept_moments
from .settings import TrajectorySettings
from .source import Header, Source

BLOCK_VALUES = 2**20  # values that are looked at together: what is kept of them in float64 stays under 20 MB


# ---------------------------------------------------------------------------------------------------------------------
# Of one file: pure functions of its values, whose results can be kept
# ---------------------------------------------------------------------------------------------------------------------
def hash_initial(source: Source, samples: NDArray[np.int64]) -> list[str]:
    """The hashes of what is given at first: the first frame and the static fields; of steady data the latter alone.

    Parameters are left out, so that one state under several of them has one hash.
    """
    header, hashes = source.header, []
    for block in _blocks(samples, _values(header, 1)):
        statics = source.statics(block) if header.statics else None
        first = None if header.steady else source.rows(block, slice(0, 1))[:, 0]
        for row in range(len(block)):
            parts = [part[row] for part in (first, statics) if part is not None]
            hashes.append(content_hash(parts[0] if len(parts) == 1 else np.concatenate(parts, -1)))
    return hashes


def moments_of(
    source: Source, samples: NDArray[np.int64], time_stride: int, space_stride: int
) -> tuple[Moments, Moments]:
    """Moments of each sample's targets and statics, (samples, channels), at these strides.

    A sample with a NaN or an infinity has moments that are not finite.
    """
    header = source.header
    frames = len(range(0, len(header.times), time_stride))
    together = max(1, BLOCK_VALUES // _values(header, 1))  # frames that are looked at together
    targets, statics = [], []
    for block in _blocks(samples, _values(header, frames)):
        parts = []
        for start in range(0, frames, together):
            stop = min(start + together, frames)
            values = source.rows(block, slice(start * time_stride, (stop - 1) * time_stride + 1, time_stride))
            parts.append(Moments.of(_strided(values, 2, header, space_stride)))
        targets.append(parts[0] if len(parts) == 1 else Moments.over(parts))
        if header.statics:
            statics.append(Moments.of(_strided(source.statics(block), 1, header, space_stride)))
        else:
            statics.append(Moments.empty(len(block), 0))
    return Moments.stacked(targets), Moments.stacked(statics)


def _blocks(samples: NDArray[np.int64], values: int) -> Iterator[NDArray[np.int64]]:
    count = max(1, BLOCK_VALUES // values)
    for start in range(0, len(samples), count):
        yield samples[start : start + count]


def _values(header: Header, frames: int) -> int:
    """Values of so many frames of a trajectory, and of its statics."""
    return int(np.prod(header.grid)) * (frames * header.target_channels + header.static_channels)


def _strided(values: NDArray[np.float32], axis: int, header: Header, stride: int) -> NDArray[np.float32]:
    if stride == 1:
        return values
    return values[(slice(None),) * axis + (slice(None, None, stride),) * len(header.grid)]


# ---------------------------------------------------------------------------------------------------------------------
# Of several files
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class Survey:
    """What has been found out of trajectories, by their numbers; `seen` says of which of them."""

    seen: NDArray[np.bool_]  # (trajectories,)
    targets: Moments  # (trajectories, C)
    statics: Moments  # (trajectories, static channels)

    @classmethod
    def empty(cls, files: FileSet) -> Survey:
        total, header = int(files.starts[-1]), files.header
        return cls(
            np.zeros(total, bool),
            Moments.empty(total, header.target_channels),
            Moments.empty(total, header.static_channels),
        )

    def not_finite(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the trajectories that hold a NaN or an infinity."""
        sound = np.isfinite(self.targets.squares[ids]).all(1) & np.isfinite(self.statics.squares[ids]).all(1)
        return ids[~sound]

    def merged(self, ids: NDArray[np.int64]) -> tuple[Moments, Moments | None]:
        """The moments of all of these trajectories together, of targets and of statics if there are any."""
        statics = self.statics[ids].merged() if self.statics.mean.shape[1] else None
        return self.targets[ids].merged(), statics


def initial_hashes(settings: TrajectorySettings, files: FileSet) -> dict[int, str]:
    """The hash of every trajectory's initial condition."""
    hashes: dict[int, str] = {}
    for start, file in zip(files.starts.tolist(), files.files, strict=False):
        every = np.arange(file.header.trajectories, dtype=np.int64)
        found = kept_hashes(settings, file.source, every, partial(hash_initial, file.source, every))
        hashes.update(enumerate(found, start))
    return hashes


def look_through(settings: TrajectorySettings, files: FileSet, ids: NDArray[np.int64], known: Survey) -> Survey:
    """What is known, and beside it what was not known yet of these trajectories, as the model sees them."""
    ids = ids[~known.seen[ids]]
    seen, targets, statics = known.seen.copy(), known.targets.copy(), known.statics.copy()
    for source, own, mine in files.parts(ids):
        look = partial(moments_of, source, own, settings.time_stride, settings.space_stride)
        found, given = kept_moments(settings, source, own, look)
        targets.put(ids[mine], found)
        statics.put(ids[mine], given)
    seen[ids] = True
    return Survey(seen, targets, statics)


def central_ranges(
    settings: TrajectorySettings, fields: FieldSpec, files: FileSet, survey: Survey, ids: NDArray[np.int64]
) -> Mapping[str, Central]:
    """The central halves of the values of those fields that the recipe wants normalised by them."""
    targets, statics = survey.merged(ids)
    found: dict[str, Central] = {}
    for group, moments, read in (
        (fields.targets, targets, partial(_target_values, settings, files, ids)),
        (fields.statics, statics, partial(_static_values, settings, files, ids)),
    ):
        wanted = [each for each in group if scheme_of(settings.normalisation, each.name) == "robust"]
        if moments is not None and wanted:
            channels = np.concatenate([channels_of(group, each.name) for each in wanted])
            low, high = moments.low[channels], moments.high[channels]
            parts = [(source, own) for source, own, _ in files.parts(ids)]
            names = [each.name for each in wanted]
            halves = kept_central(settings, parts, names, partial(central_half, partial(read, channels), low, high))
            first = 0
            for each in wanted:
                found[each.name] = halves[slice(first, first + each.channels)]
                first += each.channels
    return found


def _target_values(
    settings: TrajectorySettings, files: FileSet, ids: NDArray[np.int64], channels: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Values (…, channels) of these trajectories at the recipe's strides, a few at a time."""
    header, stride = files.header, settings.time_stride
    for block in _blocks(ids, _values(header, len(header.times[::stride]))):
        for frame in range(0, len(header.times), stride * _frames(header)):
            values = files.rows(block, slice(frame, frame + stride * _frames(header), stride))
            yield _strided(values, 2, header, settings.space_stride)[..., channels].reshape(-1, len(channels))


def _static_values(
    settings: TrajectorySettings, files: FileSet, ids: NDArray[np.int64], channels: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    for block in _blocks(ids, _values(files.header, 0)):
        values = files.statics(block)
        yield _strided(values, 1, files.header, settings.space_stride)[..., channels].reshape(-1, len(channels))


def _frames(header: Header) -> int:
    """Frames of one trajectory that are looked at together."""
    return max(1, BLOCK_VALUES // _values(header, 1))
