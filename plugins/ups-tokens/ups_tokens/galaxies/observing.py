"""What a galaxy looks like: its image, and its spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .properties import Numbers, Properties

PIXEL = 0.8  # arcseconds
SERSIC = 7.67  # of de Vaucouleurs' profile, so that half of the light is within the radius
EXPONENTIAL = 1.678  # the same of a disc
SOFTENING = 0.3  # counts under which the stretch of images is linear
COUNTS = 400.0  # of a galaxy of magnitude 17.5
WAVELENGTHS = (3800.0, 9200.0)  # Ångström, of what is observed
LINE_WIDTH = 22.0  # Ångström, at rest
# (wavelength at rest, strength over star formation, share that follows the oxygen)
EMISSION = ((3727.0, 0.9, 0.5), (4861.0, 0.5, 0.0), (4959.0, 0.3, 1.0), (5007.0, 0.9, 1.0), (6563.0, 1.6, 0.0))
EMISSION_WEAK = ((6724.0, 0.35, 0.0),)
ABSORPTION = ((3934.0, 0.35), (3969.0, 0.35), (4304.0, 0.2), (5175.0, 0.25), (5894.0, 0.2))  # over what is no disc
BREAK = 4000.0  # Ångström: old stars are fainter below it


def images(found: Properties, pixels: int, noise: float, drawn: Numbers) -> NDArray[np.float64]:
    """Bulges and discs with spiral arms, stretched by asinh: (galaxies, pixels, pixels)."""
    fine = 2  # points along each side of a pixel
    offsets = (np.arange(pixels * fine) + 0.5) / fine - pixels / 2
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    cosine, sine = (part(found.angle)[:, None, None] for part in (np.cos, np.sin))
    along, across = x * cosine + y * sine, (y * cosine - x * sine) / found.flattening[:, None, None]
    scale = (found.radius / PIXEL)[:, None, None]
    distance = np.hypot(along, across) / scale
    bulge = _normalised(np.exp(-SERSIC * np.maximum(distance, 0.05) ** 0.25))
    turned = found.winding[:, None, None] * np.log(np.maximum(distance, 0.05)) + found.phase[:, None, None]
    wave = found.arms[:, None, None] * np.cos(2 * (np.arctan2(across, along) - turned)) * np.tanh(distance)
    disc = _normalised(np.exp(-EXPONENTIAL * distance) * (1 + wave))
    share = found.bulge[:, None, None]
    light = share * bulge + (1 - share) * disc
    light = light.reshape(len(light), pixels, fine, pixels, fine).sum((2, 4))
    counts = COUNTS * 10 ** (-0.4 * (found.magnitude - 17.5))[:, None, None] * light + noise * drawn
    stretched: NDArray[np.float64] = np.arcsinh(counts / SOFTENING)
    return stretched


def _normalised(light: NDArray[np.float64]) -> NDArray[np.float64]:
    whole: NDArray[np.float64] = light / light.sum((1, 2), keepdims=True)
    return whole


def spectra(found: Properties, wavelengths: int, noise: float, drawn: Numbers) -> NDArray[np.float64]:
    """A continuum with lines at the galaxies' redshifts, over its value at 5500 Å at rest: (galaxies, wavelengths)."""
    observed = np.geomspace(*WAVELENGTHS, wavelengths)
    rest = observed / (1 + found.redshift)[:, None]
    old, young = 1 - found.disc[:, None], found.formation[:, None]
    flux = (rest / 5500) ** (1.2 * old - 1.2 * young)
    flux = flux * (1 - 0.45 * old / (1 + np.exp((rest - BREAK) / 60)))
    for centre, depth in ABSORPTION:
        flux = flux * (1 - depth * old * _line(rest, centre))
    for centre, strength, share in (*EMISSION, *EMISSION_WEAK):
        flux = flux + strength * young * (1 - share + share * found.oxygen[:, None]) * _line(rest, centre)
    faint = 1 + 10 ** (0.3 * (found.magnitude - 19))[:, None]  # faint galaxies have noisy spectra
    noisy: NDArray[np.float64] = flux + noise * faint * drawn
    return noisy


def _line(rest: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    shape: NDArray[np.float64] = np.exp(-0.5 * np.square((rest - centre) / LINE_WIDTH))
    return shape
