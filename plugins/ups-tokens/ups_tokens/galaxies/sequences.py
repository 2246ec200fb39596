"""Which tokens a galaxy's sequence has: BOS, patches of the image, segments of the spectrum, scalars, EOS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..description import TokenSpec
from ..vocabulary import Modality, Vocabulary

if TYPE_CHECKING:
    from ..config import GalaxiesConfig

IMAGE, SPECTRUM = "image", "spectrum"
SCALARS = ("redshift", "magnitude", "size", "colour")
MAY_MISS = (IMAGE, SPECTRUM)


def counts(config: GalaxiesConfig) -> dict[str, int]:
    """How many tokens a galaxy has of each modality, in their order."""
    patches, segments = (config.pixels // config.patch) ** 2, config.wavelengths // config.segment
    return {IMAGE: patches, SPECTRUM: segments, **dict.fromkeys(SCALARS, 1)}


def spec_of(config: GalaxiesConfig) -> TokenSpec:
    """What the sequences are."""
    modalities = (
        Modality(IMAGE, "image", config.image_tokens, config.patch**2),
        Modality(SPECTRUM, "spectrum", config.spectrum_tokens, config.segment),
        *(Modality(name, "scalar", config.scalar_tokens) for name in SCALARS),
    )
    vocabulary = Vocabulary(modalities)
    return TokenSpec(vocabulary, 2 + sum(counts(config).values()), 1 + len(modalities))


@frozen(eq=False)
class Sequences:
    """Sequences of some galaxies, filled up with PAD."""

    tokens: NDArray[np.int64]  # (galaxies, L)
    types: NDArray[np.int64]
    lengths: NDArray[np.int64]  # (galaxies,)


def sequences(
    spec: TokenSpec, tokens: Mapping[str, NDArray[np.int64]], missing: Mapping[str, NDArray[np.bool_]]
) -> Sequences:
    """Put modalities' tokens (galaxies, n_m), counted from 0, together; of a missing one, a MISSING alone is there."""
    vocabulary = spec.vocabulary
    galaxies = len(next(iter(tokens.values())))
    ends = {name: np.full((galaxies, 1), vocabulary.id_of(name)) for name in ("BOS", "EOS")}
    columns, types, kept = [ends["BOS"]], [np.zeros((galaxies, 1), np.int64)], [np.ones((galaxies, 1), bool)]
    for name in vocabulary.names:
        absent = missing.get(name, np.zeros(galaxies, bool))[:, None]
        columns.append(np.where(absent, vocabulary.id_of("MISSING"), vocabulary.base(name) + tokens[name]))
        types.append(np.full(tokens[name].shape, spec.type_of(name)))
        kept.append(~absent | (np.arange(tokens[name].shape[1]) == 0))
    whole = np.concatenate([*columns, ends["EOS"]], 1)
    of_type = np.concatenate([*types, np.zeros((galaxies, 1), np.int64)], 1)
    real = np.concatenate([*kept, np.ones((galaxies, 1), bool)], 1)
    order = np.argsort(~real, axis=1, kind="stable")  # real ones first, in their order
    lengths = real.sum(1)
    padding = np.arange(whole.shape[1]) >= lengths[:, None]
    pad = vocabulary.id_of("PAD")
    return Sequences(
        np.where(padding, pad, np.take_along_axis(whole, order, 1)),
        np.where(padding, 0, np.take_along_axis(of_type, order, 1)),
        lengths,
    )
