"""One trajectory of any file of a layout on regular grids, for `upskit predict`."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ups_kit import DataError
from ups_kit.data.discretisations import grid_points
from ups_kit.data.excerpts import Excerpt, check_sample, frames_up_to

from .files import field_spec, open_files
from .parameters import from_name
from .settings import TrajectorySettings
from .source import Header


def read_excerpt(settings: TrajectorySettings, path: Path, sample: int, frame: int | None) -> Excerpt:
    """The frames up to `frame` of a file's trajectory, read as the recipe reads its own. Raises DataError.

    Parameters are those of the file, then of its name, then of the recipe where that has one number for all files.
    """
    alone = evolve(
        settings,
        path=path,
        test_path=None,
        validation_path=None,
        parameters={},
        parameters_from_name=None,
        conditions=(),
        points=None,
        input_points=None,
        simulate=None,
    )
    files = open_files(alone)
    header, fields, source = files[0].header, field_spec(alone, files), files[0].source
    check_sample(sample, header.trajectories, str(path))
    times, where = header.times[:: settings.time_stride], f"{path}, sample {sample}"
    frames, numbers = frames_up_to(frame, fields, len(times), where), np.array([sample])
    statics = source.statics(numbers) if header.statics else np.empty((1, *header.grid, 0), np.float32)
    values = np.empty((0, *header.grid, header.target_channels), np.float32)
    if len(frames):
        values = source.gather(numbers, frames[None] * settings.time_stride)[0]
    axes = [axis[:: settings.space_stride] for axis in header.axes]
    return Excerpt(
        source=where + (f", frame {frames[-1]}" if len(frames) else ""),
        fields=fields,
        values=_flat(values, settings.space_stride),
        statics=_flat(statics, settings.space_stride)[0],
        positions=grid_points(axes).astype(np.float32),
        times=times[frames],
        parameters=_parameters(settings, header, path, sample),
    )


def _flat(values: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Values (S, *grid, channels) at every n-th point along each axis, the points as one axis."""
    every = (slice(None, None, stride),) * (values.ndim - 2)
    taken = values[(slice(None), *every)]
    return taken.reshape(len(taken), math.prod(taken.shape[1:-1]), taken.shape[-1])


def _parameters(settings: TrajectorySettings, header: Header, path: Path, sample: int) -> dict[str, float]:
    found = {name: value for name, value in settings.parameters.items() if not isinstance(value, tuple)}
    if settings.parameters_from_name is not None:
        with suppress(DataError):  # a file of another name
            found |= from_name(settings.parameters_from_name, path)
    known = {**header.attributes, **header.parameters}
    return {**found, **{name: float(values[sample]) for name, values in known.items()}}
