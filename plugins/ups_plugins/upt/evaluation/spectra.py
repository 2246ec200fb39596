"""Energy spectra: which scales a rollout keeps, loses or invents."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ups_kit.metrics import shell_energies

from .measurement import Measured
from .style import MODEL_STYLES, new_figure

TIMES_SHOWN = 3
LEAST_ENERGY = 1e-11  # of the largest: below lies single precision's noise


def draw_spectra(measured: Measured) -> Figure:
    """Energy per shell of wave numbers, truth and rollouts, at a few times; mean over samples, sum over channels."""
    truth = measured.truth
    shown = frames_shown(truth.given, truth.values.shape[1])
    figure, axes = new_figure(1, len(shown), height=3.6, sharey=True)
    forecasts = {"latent rollout": measured.forecasts.latent, "re-encoded rollout": measured.forecasts.reencoded}
    lowest = np.inf
    for axis, frame in zip(axes.flat, shown, strict=True):
        true = spectrum(truth.values[:, frame : frame + 1], measured)
        lowest = min(lowest, max(float(true[1:].min()) / 100, float(true[1:].max()) * LEAST_ENERGY))
        numbers = np.arange(len(true))[1:]
        axis.plot(numbers, true[1:], color="#333333", lw=3.2, alpha=0.35, label="truth")
        for label, values in forecasts.items():
            axis.plot(numbers, spectrum(values[:, frame : frame + 1], measured)[1:], label=label, **MODEL_STYLES[label])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"t = {truth.times[frame]:.3g}", fontsize="medium")
        axis.set_xlabel("wave number k [periods per domain]")
    axes.flat[0].set_ylim(bottom=max(lowest, 1e-300))
    axes.flat[0].set_ylabel("energy |û(k)|²")
    axes.flat[0].legend(frameon=False, fontsize="small")
    return figure


def frames_shown(given: int, frames: int) -> list[int]:
    """The first scored frame, one in the middle, and the last."""
    return sorted({int(frame) for frame in np.linspace(given, frames - 1, TIMES_SHOWN)})


def spectrum(values: Tensor, measured: Measured) -> np.ndarray:
    """(S, 1, N, C) -> energy per shell, mean over samples, sum over channels."""
    return np.asarray(shell_energies(values, measured.truth.fields)[:, 0].sum(1).mean(0).numpy())
