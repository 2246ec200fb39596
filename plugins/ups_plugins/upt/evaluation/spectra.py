"""Energy spectra: which scales a rollout keeps, loses or invents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ups_kit.metrics import shell_energies

from .scores import field_channels
from .style import MODEL_STYLES, new_figure
from .truth import Truth

TIMES_SHOWN = 3
FIELDS_SHOWN = 6
LEAST_ENERGY = 1e-11  # of the largest: below lies single precision's noise


@frozen(eq=False)
class Spectra:
    """Energy per shell of wave numbers at a few frames, mean over samples, by forecast ("truth" among them)."""

    times: tuple[float, ...] | None  # of the frames; None for steady data
    fields: tuple[str, ...]
    energies: Mapping[str, NDArray[np.float64]]  # (frames, fields, shells)

    @classmethod
    def of(cls, sums: Mapping[str, Tensor], truth: Truth) -> Spectra:
        """From sums over all samples, (frames, C, shells); a field's energy is the sum of its channels'."""
        channels = field_channels(truth.fields)
        means = {name: np.asarray((total / truth.samples).numpy()) for name, total in sums.items()}
        energies = {
            name: np.stack([mean[:, own].sum(1) for own in channels.values()], 1) for name, mean in means.items()
        }
        times = None if truth.fields.steady else tuple(truth.times[frames_shown(truth)].tolist())
        return cls(times, tuple(channels), energies)


def frames_shown(truth: Truth) -> list[int]:
    """The first scored frame, one in the middle, and the last."""
    return sorted({int(frame) for frame in np.linspace(truth.given, truth.values.shape[1] - 1, TIMES_SHOWN)})


def shell_sums(values: Tensor, truth: Truth, frames: list[int]) -> Tensor:
    """(S, frames, N, C) -> energy per shell of some frames, summed over samples, (shown frames, C, shells)."""
    parts = [shell_energies(values[rows][:, frames], truth.fields).sum(0) for rows in truth.blocks()]
    total: Tensor = sum(parts[1:], parts[0])
    return total


def draw_spectra(spectra: Spectra) -> Figure:
    """One row per field, one column per time."""
    fields = spectra.fields[:FIELDS_SHOWN]
    columns = spectra.energies["truth"].shape[0]
    figure, axes = new_figure(
        len(fields), columns, height=0.6 + (3.0 if len(fields) == 1 else 2.3 * len(fields)), sharey="row", sharex=True
    )
    for row, name in enumerate(fields):
        for column, axis in enumerate(axes[row]):
            _draw_spectrum(axis, spectra, column, row)
            if row == 0 and spectra.times is not None:
                axis.set_title(f"t = {spectra.times[column]:.3g}", fontsize="medium")
            if row == len(fields) - 1:
                axis.set_xlabel("wave number k [periods per domain]")
        of = f" of {name}" if len(spectra.fields) > 1 else ""
        axes[row, 0].set_ylabel(f"energy{of}, |û(k)|²")
    axes[0, 0].legend(frameon=False, fontsize="small")
    return figure


def _draw_spectrum(axis: Axes, spectra: Spectra, frame: int, field: int) -> None:
    truth = spectra.energies["truth"][frame, field]
    numbers = np.arange(len(truth))[1:]
    axis.plot(numbers, truth[1:], color="#333333", lw=3.2, alpha=0.35, label="truth")
    for label, energies in spectra.energies.items():
        if label != "truth":
            axis.plot(numbers, energies[frame, field, 1:], label=label, **MODEL_STYLES[label])
    axis.set_xscale("log")
    axis.set_yscale("log")
    every = spectra.energies["truth"][:, field, 1:]
    lowest = max(float(every.min()) / 100, float(every.max()) * LEAST_ENERGY, 1e-300)
    axis.set_ylim(bottom=lowest)
