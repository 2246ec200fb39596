"""From values to tokens: the nearest of centroids that k-means has found, or of the means of quantile bins."""

from __future__ import annotations

import warnings

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

MOST = 20_000  # values that centroids are fitted to
ROUNDS = 12


@frozen(eq=False)
class Quantiser:
    """A modality's mean and deviation, and what its tokens stand for, in values that are normalised by these."""

    mean: float
    scale: float
    codebook: NDArray[np.float32]  # (V, d)

    def normalised(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values (…, d) without mean, in units of their deviation."""
        return ((values - self.mean) / self.scale).astype(np.float32)

    def tokens(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """The nearest token of normalised values (…, d), counted from 0: (…)."""
        flat = values.reshape(-1, values.shape[-1])
        nearest, _ = vq(flat, self.codebook)
        return np.asarray(nearest, np.int64).reshape(values.shape[:-1])


def fit_centroids(values: NDArray[np.float64], size: int, seed: int) -> Quantiser:
    """k-means on values (k, d)."""
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    generator = np.random.default_rng([seed, size, values.shape[1]])
    chosen = generator.permutation(len(values))[:MOST]
    sample = (values[chosen] - mean) / scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a centroid that is nearest to nothing stays where it was
        centroids, _ = kmeans2(sample, _spread(sample, size, generator), iter=ROUNDS, minit="matrix", missing="warn")
    return Quantiser(mean, scale, centroids.astype(np.float32))


def _spread(values: NDArray[np.float64], size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Values to begin with, each drawn by its squared distance to those before (k-means++)."""
    chosen = [int(generator.integers(len(values)))]
    nearest = np.full(len(values), np.inf)
    for _ in range(size - 1):
        nearest = np.minimum(nearest, np.square(values - values[chosen[-1]]).sum(1))
        sums = np.cumsum(nearest)
        place = np.searchsorted(sums, generator.random() * sums[-1])
        chosen.append(min(int(place), len(values) - 1))
    return values[chosen]


def fit_bins(values: NDArray[np.float64], size: int) -> Quantiser:
    """Means of bins that hold equally many of the values (k,)."""
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    ordered = np.sort((values - mean) / scale)
    centres = np.array([part.mean() for part in np.array_split(ordered, size)])
    return Quantiser(mean, scale, centres[:, None].astype(np.float32))
