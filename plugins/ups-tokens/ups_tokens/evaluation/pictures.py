"""Pictures of the report: true and expected values of some sequences, and the course of the training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from .measuring import Drawn, Measured

if TYPE_CHECKING:
    from ups_kit.comparing.runs import History

    from ..description import TokenSpec

TRUE, EXPECTED, BEST = "#5d676e", "#0072b2", "#d55e00"


def draw(measured: Measured, spec: TokenSpec, history: History) -> dict[str, Figure]:
    """All pictures by their names; those of modalities by the modality's."""
    found = {}
    for name, drawn in measured.drawn.items():
        if drawn:
            found[name] = _images(drawn) if spec.vocabulary[name].kind == "image" else _spectra(drawn)
    if measured.scalars:
        found["scalars"] = _scalars(measured.scalars)
    return found | ({"training": _training(history)} if history else {})


def _columns(drawn: Drawn) -> Iterator[tuple[str, Any]]:
    if drawn.original is not None:
        yield "original", drawn.original
    yield from (("tokens", drawn.truth), ("expected", drawn.expected), ("arg-max", drawn.arg_max))


def picture_of(values: Any) -> np.ndarray:
    """Patches (n, d) as an image: a square of square patches where the numbers allow, row by row; else one per line."""
    patches, pixels = (math.isqrt(count) for count in values.shape)
    if patches**2 != values.shape[0] or pixels**2 != values.shape[1]:
        return np.asarray(values)
    image: np.ndarray = np.asarray(values).reshape(patches, patches, pixels, pixels).swapaxes(1, 2)
    return image.reshape(patches * pixels, patches * pixels)


def _images(drawn: list[Drawn]) -> Figure:
    titles = [title for title, _ in _columns(drawn[0])]
    figure = Figure((1.9 * len(titles), 1.95 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), len(titles), squeeze=False)
    for number, (row, one) in enumerate(zip(panels, drawn)):
        low, high = float(one.truth.min()), float(one.truth.max())
        for panel, (title, values) in zip(row, _columns(one)):
            panel.imshow(picture_of(values), vmin=low, vmax=high, cmap="magma", aspect="auto")
            panel.set_axis_off()
            if not number:
                panel.set_title(title, fontsize=10)
    return figure


def _spectra(drawn: list[Drawn]) -> Figure:
    figure = Figure((9, 1.9 * len(drawn)), layout="constrained")
    for number, one in enumerate(drawn):
        panel = figure.add_subplot(len(drawn), 1, number + 1)
        truth = one.truth if one.original is None else one.original
        panel.plot(
            np.asarray(truth).ravel(), color=TRUE, lw=0.8, label="tokens" if one.original is None else "original"
        )
        panel.plot(np.asarray(one.arg_max).ravel(), color=BEST, lw=0.7, alpha=0.6, label="arg-max")
        panel.plot(np.asarray(one.expected).ravel(), color=EXPECTED, lw=1.2, label="expected")
        if not number:
            panel.legend(ncols=3, fontsize=8, frameon=False)
    panel.set_xlabel("number along the spectrum")
    return figure


def _scalars(scalars: Mapping[str, Any]) -> Figure:
    figure = Figure((min(3.1 * len(scalars), 12.4), 3.1 * math.ceil(len(scalars) / 4)), layout="constrained")
    for number, (name, pairs) in enumerate(scalars.items()):
        panel = figure.add_subplot(math.ceil(len(scalars) / 4), min(len(scalars), 4), number + 1)
        truth, expected = np.asarray(pairs).T
        panel.plot(truth, expected, ".", ms=3, color=EXPECTED, alpha=0.5)
        panel.axline((float(truth.mean()), float(truth.mean())), slope=1, color=TRUE, lw=0.8)
        panel.set(title=name, xlabel="true", ylabel="expected")
    return figure


def _training(history: History) -> Figure:
    figure = Figure((9, 3.2 * len(history)), layout="constrained")
    for number, (stage, curves) in enumerate(history.items()):
        panel = figure.add_subplot(len(history), 1, number + 1)
        for name, curve in curves.items():
            steps, values = zip(*curve)
            thick = name == "validation/score"
            panel.plot(steps, values, lw=2 if thick else 1, label=name, color="black" if thick else None)
        panel.set(title=stage, xlabel="step", yscale="log")
        panel.legend(fontsize=8, frameon=False, ncols=2)
    return figure
