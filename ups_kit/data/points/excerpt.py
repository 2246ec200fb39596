"""One trajectory of any file of a layout on points, for `upskit predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attrs import evolve

from ..excerpts import Excerpt, check_sample, frames_up_to
from .describing import field_spec
from .files import joined, open_files
from .settings import PointSettings


def read_excerpt(settings: PointSettings, path: Path, sample: int, frame: int | None) -> Excerpt:
    """The frames up to `frame` of a file's trajectory, read as the recipe reads its own. Raises DataError."""
    alone = evolve(
        settings, path=path, test_path=None, validation_path=None, points=None, input_points=None, simulate=None
    )
    opened = open_files(evolve(alone, conditions=()))
    files = joined(evolve(alone, conditions=()), opened)
    source, fields = files.first, field_spec(alone, files)
    check_sample(sample, files.total, str(path))
    where = f"{path}, sample {sample}"
    frames = frames_up_to(frame, fields, int(files.frames[sample]), where)
    at = frames if len(frames) else np.zeros(1, np.int64)
    places = source.positions(sample, at)
    return Excerpt(
        source=where + (f", frame {frames[-1]}" if len(frames) else ""),
        fields=fields,
        values=source.values(sample, frames) if len(frames) else np.empty(0, np.float32),
        statics=source.given(sample),
        positions=places[-1] if places.ndim == 3 else places,
        times=source.times(sample)[frames],
        parameters=dict(zip(source.conditions, np.asarray(source.parameters, np.float64)[sample].tolist())),
    )
