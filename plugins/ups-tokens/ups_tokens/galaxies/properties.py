"""What a galaxy is like: a few properties, from which its image, its spectrum and its scalars follow."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

HUBBLE_LENGTH = 4283.0  # Mpc, c over the Hubble constant
ARCSECONDS = 206_265.0  # of a radian
REDSHIFTS = (0.03, 0.35)
UNIFORMS, NORMALS = 12, 6  # that are drawn for each galaxy

Numbers = NDArray[np.float64]


@frozen(eq=False)
class Properties:
    """(galaxies,) each."""

    redshift: Numbers
    disc: Numbers  # 0 … 1, from an elliptical galaxy to a spiral one
    magnitude: Numbers  # apparent
    radius: Numbers  # half of the light is within it, in arcseconds
    flattening: Numbers  # axis ratio
    angle: Numbers  # of the long axis
    bulge: Numbers  # share of the light
    arms: Numbers  # strength of the spiral
    phase: Numbers  # of its arms
    winding: Numbers
    formation: Numbers  # of stars: strength of emission lines
    oxygen: Numbers  # strength of its line over that of hydrogen


@frozen(eq=False)
class Draws:
    """All that is drawn for some galaxies: a pure function of the seed and of each one's number."""

    uniforms: Numbers  # (galaxies, UNIFORMS), 0 … 1
    normals: Numbers  # (galaxies, NORMALS)
    image: Numbers  # (galaxies, pixels, pixels), normal
    spectrum: Numbers  # (galaxies, wavelengths), normal
    present: Numbers  # (galaxies, 2), 0 … 1: whether image and spectrum are missing


def draw(stream: tuple[int, ...], start: int, stop: int, pixels: int, wavelengths: int) -> Draws:
    """Draw galaxies `start` … `stop` - 1 of a stream, which is named by whole numbers."""
    generators = [np.random.default_rng([*stream, number]) for number in range(start, stop)]
    return Draws(
        np.stack([generator.random(UNIFORMS) for generator in generators]),
        np.stack([generator.standard_normal(NORMALS) for generator in generators]),
        np.stack([generator.standard_normal((pixels, pixels)) for generator in generators]),
        np.stack([generator.standard_normal(wavelengths) for generator in generators]),
        np.stack([generator.random(2) for generator in generators]),
    )


def properties(draws: Draws) -> Properties:
    """Most galaxies are clearly of one kind; discs are larger, bluer, and form stars."""
    u, n = draws.uniforms.T, draws.normals.T
    redshift = REDSHIFTS[0] + (REDSHIFTS[1] - REDSHIFTS[0]) * u[0]
    disc = np.where(u[1] < 0.4, 0.3 * u[2], 0.5 + 0.5 * u[2])
    absolute = -20.5 - 0.5 * (1 - disc) + 0.8 * n[0]
    luminous = HUBBLE_LENGTH * redshift * (1 + redshift / 2)  # distance by brightness, Mpc
    angular = luminous / (1 + redshift) ** 2  # distance by size
    kiloparsecs = 10 ** (0.55 + 0.2 * disc - 0.1 * (absolute + 20.5) + 0.08 * n[1])
    return Properties(
        redshift=redshift,
        disc=disc,
        magnitude=absolute + 5 * np.log10(luminous) + 25,
        radius=kiloparsecs / (1000 * angular) * ARCSECONDS,
        flattening=disc * np.sqrt(0.03 + 0.97 * u[3] ** 2) + (1 - disc) * (0.6 + 0.4 * u[3]),
        angle=np.pi * u[4],
        bulge=np.clip(0.85 * (1 - disc) + 0.15 * u[5], 0, 1),
        arms=np.clip((disc - 0.45) / 0.4, 0, 1) * (0.4 + 0.5 * u[6]),
        phase=2 * np.pi * u[7],
        winding=2.5 + 2.5 * u[8],
        formation=disc * (0.4 + 0.8 * u[9]),
        oxygen=0.3 + 1.2 * u[10],
    )


def scalars(found: Properties, draws: Draws) -> dict[str, Numbers]:
    """What is measured of each galaxy as one number, (galaxies,) each: redshift, magnitude, size, colour."""
    noise = draws.normals.T[2:]
    return {
        "redshift": found.redshift + 0.0005 * noise[0],
        "magnitude": found.magnitude + 0.05 * noise[1],
        "size": np.log10(found.radius) + 0.02 * noise[2],
        "colour": 0.35 + 0.4 * (1 - found.formation) + 0.9 * found.redshift + 0.03 * noise[3],
    }
