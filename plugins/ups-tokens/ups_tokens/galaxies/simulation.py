"""Makes galaxies part by part, and writes them as token sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ..layout import About, Part, write_hdf5
from .observing import images, spectra
from .properties import draw, properties, scalars
from .quantising import Quantiser, fit_bins, fit_centroids
from .sequences import IMAGE, MAY_MISS, SCALARS, SPECTRUM, counts, sequences, spec_of

if TYPE_CHECKING:
    from ..config import GalaxiesConfig

PART = 500
OTHERS = 1  # names the stream of galaxies that are in no file
HEADER_BYTES = 2**20


@frozen
class Galaxies:
    """Solves and stores; a pure function of its config.

    Galaxy i follows from the seed and from i alone: not from how many there are. The galaxies that centroids and bins
    are fitted to are drawn from a stream of their own, and are in no file.
    """

    config: GalaxiesConfig

    @property
    def trajectories(self) -> int:
        return self.config.trajectories

    @property
    def part(self) -> int:
        return PART

    @property
    def bytes(self) -> int:
        spec, many = spec_of(self.config), counts(self.config)
        values = sum(many[modality.name] * modality.dims for modality in spec.vocabulary.modalities)
        return self.config.trajectories * (5 * spec.length + 4 * values) + HEADER_BYTES

    def fit(self) -> None:
        """Fit centroids and bins, which takes longer than to make hundreds of galaxies."""
        fitted(self.config)

    def solve(self, start: int, stop: int, report: Callable[[float], None]) -> Mapping[str, np.ndarray]:
        """Sequences `start` … `stop` - 1, and by modality the normalised values (galaxies, n_m, d_m)."""
        config, spec = self.config, spec_of(self.config)
        quantisers = fitted(config)
        report(0.2)
        observed = _observed(config, (config.seed,), start, stop)
        values = {name: quantisers[name].normalised(each) for name, each in observed.values.items()}
        report(0.7)
        tokens = {name: quantisers[name].tokens(each) for name, each in values.items()}
        made = sequences(spec, tokens, observed.missing)
        types = made.types.astype(np.uint8)
        return {"tokens": made.tokens.astype(np.int32), "types": types, "lengths": made.lengths, **values}

    def write(self, path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Write the HDF5 file from all parts."""
        spec, quantisers = spec_of(self.config), fitted(self.config)
        about = About(
            vocabulary=spec.vocabulary,
            sequences=self.config.trajectories,
            length=spec.length,
            codebooks={name: quantiser.codebook for name, quantiser in quantisers.items()},
            originals=spec.vocabulary.names,
            attributes={
                "written_by": "ups-tokens simulator galaxies",
                **{f"{name}_mean": quantiser.mean for name, quantiser in quantisers.items()},
                **{f"{name}_scale": quantiser.scale for name, quantiser in quantisers.items()},
            },
        )
        write_hdf5(path, about, self._stored(parts))

    def _stored(self, parts: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Part]:
        """Parts as they are stored: the values of tokens that are there."""
        vocabulary = spec_of(self.config).vocabulary
        for part in parts:
            owners = vocabulary.modality_of(part["tokens"])
            rows = {name: part[name] for name in ("tokens", "types", "lengths")}
            values = {
                f"values/{name}": part[name][(owners == place).any(1)].reshape(-1, vocabulary[name].dims)
                for place, name in enumerate(vocabulary.names)
            }
            yield {**rows, **values}


# ---------------------------------------------------------------------------------------------------------------------
# What is observed, and what it is quantised by
# ---------------------------------------------------------------------------------------------------------------------
@frozen(eq=False)
class Observed:
    """What is seen of some galaxies."""

    values: dict[str, NDArray[np.float64]]  # (galaxies, n_m, d_m) by modality
    missing: dict[str, NDArray[np.bool_]]  # (galaxies,) by modality


def _observed(config: GalaxiesConfig, stream: tuple[int, ...], start: int, stop: int) -> Observed:
    draws = draw(stream, start, stop, config.pixels, config.wavelengths)
    found = properties(draws)
    image = images(found, config.pixels, config.image_noise, draws.image)
    spectrum = spectra(found, config.wavelengths, config.spectrum_noise, draws.spectrum)
    values = {
        IMAGE: _patches(image, config.patch),
        SPECTRUM: spectrum.reshape(len(spectrum), -1, config.segment),
        **{name: number[:, None, None] for name, number in scalars(found, draws).items()},
    }
    missing = {name: draws.present[:, place] < config.missing for place, name in enumerate(MAY_MISS)}
    return Observed(values, missing)


def _patches(image: NDArray[np.float64], patch: int) -> NDArray[np.float64]:
    """Images (galaxies, pixels, pixels) as patches (galaxies, patches, patch²), row by row."""
    galaxies, side = len(image), image.shape[1] // patch
    cut = image.reshape(galaxies, side, patch, side, patch).transpose(0, 1, 3, 2, 4)
    return cut.reshape(galaxies, side * side, patch * patch)


def fitted(config: GalaxiesConfig) -> Mapping[str, Quantiser]:
    """Centroids and bins by modality, fitted to galaxies that are in no file."""
    return _fitted(evolve(config, trajectories=1, missing=0.0))  # which they do not depend on


@lru_cache(maxsize=2)
def _fitted(config: GalaxiesConfig) -> Mapping[str, Quantiser]:
    seen = _observed(config, (config.seed, OTHERS), 0, config.fitted_on).values
    sizes = {IMAGE: config.image_tokens, SPECTRUM: config.spectrum_tokens}
    found = {
        name: fit_centroids(seen[name].reshape(-1, seen[name].shape[2]), size, config.seed)
        for name, size in sizes.items()
    }
    return {**found, **{name: fit_bins(seen[name].ravel(), config.scalar_tokens) for name in SCALARS}}
