"""Made galaxies: parts, codebooks, sequences, files."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest

from ups_kit import DataError
from ups_kit.data.making import make
from ups_kit.interfaces import FitsFirst
from ups_tokens.config import GalaxiesConfig, TypedTokensConfig
from ups_tokens.galaxies.quantising import fit_bins, fit_centroids
from ups_tokens.galaxies.sequences import spec_of
from ups_tokens.galaxies.simulation import _fitted


def solved(config: GalaxiesConfig, start: int, stop: int) -> dict[str, np.ndarray]:
    return dict(config.build().solve(start, stop, lambda share: None))


def test_a_part_follows_from_the_seed_and_its_numbers_alone(tiny: GalaxiesConfig) -> None:
    whole = solved(tiny, 0, 10)
    _fitted.cache_clear()
    simulator = attrs.evolve(tiny, trajectories=10).build()
    assert isinstance(simulator, FitsFirst)
    simulator.fit()
    assert _fitted.cache_info().currsize == 1
    part = solved(attrs.evolve(tiny, trajectories=10), 4, 7)
    other = solved(attrs.evolve(tiny, seed=1), 4, 7)
    assert _fitted.cache_info().misses == 2  # that galaxies are fewer makes no difference, the seed does
    for name, values in part.items():
        assert np.array_equal(values, whole[name][4:7]), name
    assert not np.array_equal(other["tokens"], part["tokens"])


def test_sequences_are_as_described(tiny: GalaxiesConfig, settings: TypedTokensConfig) -> None:
    dataset = settings.build(0)
    assert attrs.evolve(dataset.description, codebooks={}) == tiny.describe() == spec_of(tiny)
    vocabulary = dataset.description.vocabulary
    assert dataset.description.length == 2 + 4 + 4 + 4
    batch = dataset.batch("train", np.arange(dataset.count("train")))
    missing = 0
    for tokens, types, length in zip(batch.tokens.numpy(), batch.types.numpy(), batch.mask.sum(1).tolist()):
        assert (tokens[0], tokens[length - 1]) == (vocabulary.id_of("BOS"), vocabulary.id_of("EOS"))
        assert (tokens[length:] == vocabulary.id_of("PAD")).all()
        assert (np.diff(types[1 : length - 1]) >= 0).all()
        absent = tokens[:length] == vocabulary.id_of("MISSING")
        missing += int(absent.sum())
        assert length == 14 - 3 * absent.sum()  # one MISSING for four pieces
        assert set(types[:length][absent]) <= {1, 2}
    assert 5 < missing < 30  # of 26 galaxies with two that may be missing, three in ten


def test_tokens_stand_for_the_nearest(settings: TypedTokensConfig) -> None:
    dataset = settings.build(0)
    numbers = np.arange(dataset.count("train"))
    batch, originals = dataset.batch("train", numbers), dataset.originals("train", numbers)
    vocabulary = dataset.description.vocabulary
    owners = vocabulary.modality_of(batch.tokens.numpy())
    for place, name in enumerate(vocabulary.names):
        values, book = originals[name], dataset.description.codebooks[name]
        own = batch.tokens.numpy()[owners == place] - vocabulary.base(name)
        distances = np.square(values[:, None] - book[None]).sum(2)
        assert np.allclose(distances[np.arange(len(own)), own], distances.min(1), atol=1e-5)
        assert distances.min(1).mean() < 0.5 * np.square(values - values.mean(0)).sum(1).mean(), name


def test_k_means_is_better_than_values_that_were_drawn() -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal((4000, 3)) * [3, 1, 0.3] + 5
    quantiser = fit_centroids(values, 32, seed=0)
    seen = quantiser.normalised(values)

    def error(codebook: np.ndarray) -> float:
        return float(np.square(seen[:, None] - codebook[None]).sum(2).min(1).mean())

    drawn = np.mean([error(seen[draw.permutation(4000)[:32]]) for _ in range(5)])
    assert error(quantiser.codebook) < 0.8 * drawn
    assert abs(seen.mean()) < 1e-5
    assert abs(seen.std() - 1) < 1e-5
    again = fit_centroids(values, 32, seed=0)
    assert np.array_equal(again.codebook, quantiser.codebook)
    bins = fit_bins(values[:, 0], 8)
    counts = np.bincount(bins.tokens(bins.normalised(values[:, :1])), minlength=8)
    assert counts.min() > 0.6 * 4000 / 8
    assert (np.diff(bins.codebook[:, 0]) > 0).all()


def test_modalities_inform_each_other() -> None:
    config = GalaxiesConfig(trajectories=300, fitted_on=60, image_tokens=16, spectrum_tokens=16, scalar_tokens=8)
    made = solved(config, 0, 300)
    redshift, magnitude = made["redshift"][:, 0, 0], made["magnitude"][:, 0, 0]
    assert np.corrcoef(made["image"].mean((1, 2)), magnitude)[0, 1] < -0.7  # bright ones have low magnitudes
    spectrum = made["spectrum"].reshape(300, -1)
    features = np.concatenate([spectrum, np.ones((300, 1))], 1)[:, ::2]
    weights = np.linalg.lstsq(features[:200], redshift[:200], rcond=None)[0]
    left = redshift[200:] - features[200:] @ weights
    assert left.std() < 0.7 * redshift[200:].std()  # by a straight line through the wavelengths


def test_it_is_made_by_a_recipe_and_held_against_it(tmp_path: Path, tiny: GalaxiesConfig) -> None:
    settings = TypedTokensConfig(path=tmp_path / "new.h5", simulate=tiny, validation=5, test=5)
    assert settings.describe() == tiny.describe()
    first = settings.build(0)
    assert first.count("train") == 30
    assert settings.build(0).fingerprint == first.fingerprint
    with pytest.raises(DataError, match=r"was made with missing = 0.3, and the recipe says 0.0"):
        attrs.evolve(settings, simulate=attrs.evolve(tiny, missing=0.0)).describe()
    _fitted.cache_clear()
    make(tmp_path / "again.h5", tiny)
    again = attrs.evolve(settings, path=tmp_path / "again.h5").build(0)
    assert again.splits.digest == first.splits.digest
    for name, book in again.description.codebooks.items():
        assert np.array_equal(book, first.description.codebooks[name])


def test_keys_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="patch = 5 does not cut pixels = 24 into even parts; nearest: patch = 4"):
        GalaxiesConfig(patch=5)
    with pytest.raises(ValueError, match="scalar_tokens = 64: fitted_on = 50 galaxies have 50 of them"):
        GalaxiesConfig(fitted_on=50)
