"""Small galaxies, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ups_kit.data.making import make
from ups_tokens.config import GalaxiesConfig, TypedTokensConfig

TINY = GalaxiesConfig(
    trajectories=40,
    pixels=8,
    patch=4,
    wavelengths=32,
    segment=8,
    image_tokens=16,
    spectrum_tokens=16,
    scalar_tokens=8,
    fitted_on=60,
    missing=0.3,
)


@pytest.fixture(scope="session")
def tiny() -> GalaxiesConfig:
    return TINY


@pytest.fixture(scope="session")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of them."""
    path = tmp_path_factory.mktemp("galaxies") / "galaxies.h5"
    make(path, TINY)
    return path


@pytest.fixture
def settings(galaxies: Path) -> TypedTokensConfig:
    """The table that reads it."""
    return TypedTokensConfig(path=galaxies, validation=6, test=8)
