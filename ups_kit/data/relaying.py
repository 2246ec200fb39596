"""What all ways of giving states on other points share (`interfaces.Relays`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 1 << 24
PROBED, PROBED_FRAMES = 4, 8  # trajectories and frames on which the error of interpolation is measured
ZERO = 1e-12  # the RMS of a field under which it has no error to speak of


def relative_error(found: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    """RMSE over RMS of fields (F, N, C) over their points; mean over frames and channels that are not zero."""
    there = np.asarray(true, np.float64)
    error = np.sqrt(((found - there) ** 2).mean(1))
    size = np.sqrt((there**2).mean(1))
    known = size > ZERO
    return float((error[known] / size[known]).mean()) if known.any() else 0.0


def probed_frames(frames: int) -> NDArray[np.int64]:
    """A few of so many frames, from the first to the last."""
    return np.unique(np.linspace(0, frames - 1, min(PROBED_FRAMES, frames)).round()).astype(np.int64)
