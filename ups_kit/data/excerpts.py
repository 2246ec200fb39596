"""A few frames of one trajectory of any file of a layout, without splits: what a forecast starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..interfaces import FieldSpec


class Excerpt(NamedTuple):
    """As many frames of a trajectory as a model is given, in physical units."""

    source: str  # file, sample and frame, for messages
    fields: FieldSpec  # of the file, as the recipe's strides and names have it
    values: NDArray[np.float32]  # (history, N, C); no frame of steady data
    statics: NDArray[np.float32]  # (N, static channels)
    positions: NDArray[np.float32]  # (N, D), at the newest of the frames
    times: NDArray[np.float64]  # (history,)
    parameters: Mapping[str, float]  # all that the file, its name or the recipe says


@runtime_checkable
class ReadsExcerpts(Protocol):
    """The config of a dataset that can read a trajectory of any file of its layout: for `upskit predict`."""

    def excerpt(self, path: Path, sample: int, frame: int | None) -> Excerpt:
        """`history` frames up to and with `frame`, the first ones where it is not given. Raises DataError.

        Samples are counted from 0 in the file, frames from 0 at the recipe's `first_frame` and `time_stride`.
        """
        ...


def check_sample(sample: int, samples: int, where: str) -> None:
    """Raise DataError where a file has no sample of this number."""
    if not 0 <= sample < samples:
        near = min(max(sample, 0), samples - 1)
        raise DataError(f"{where}: there is no sample {sample}; expected 0 … {samples - 1}, nearest: --sample {near}")


def frames_up_to(frame: int | None, fields: FieldSpec, frames: int, where: str) -> NDArray[np.int64]:
    """The numbers of the frames that are given, the last of them `frame`; none of steady data. Raises DataError."""
    if fields.steady:
        if frame is not None:
            raise DataError(f"{where}: the fields are steady, and no frame is given; leave --frame {frame} out")
        return np.empty(0, np.int64)
    first = fields.history - 1
    last = first if frame is None else frame
    if not first <= last < frames:
        near = min(max(last, first), frames - 1)
        why = "" if not first else f" ({fields.history} frames are given, the last of them being this)"
        raise DataError(
            f"{where}: there is no frame {last} to start from{why}; expected {first} … {frames - 1}, nearest: --frame "
            f"{near}"
        )
    return np.arange(last - first, last + 1)
