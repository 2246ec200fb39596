"""The picture of the README: python docs/pictures/rollout.py runs/burgers_upt/1

Three test trajectories of a finished run: of the third with the lowest, the middle and the highest viscosities the one
whose error is the median of its third. Beneath each other the truth, the forecast from frame 0 alone, and their
difference; beside them how the error grows, and the floors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ups_kit
from ups_kit.bundle import Bundle
from ups_kit.interfaces import Trajectories

OUT = Path(__file__).with_suffix(".png")
FLOORS = {"persistence": "copy the input", "spatial_mean": "its mean", "encode_decode": "codec alone"}
THIRDS = 3


def forecasts(bundle: Bundle, found: Trajectories) -> torch.Tensor:
    """All frames after the given one, (samples, frames, points)."""
    names, steps = bundle.fields.conditions, found.values.shape[1] - 1
    parts = [
        bundle.predict(frames[:1], dict(zip(names, row.tolist(), strict=True)), steps)[0]
        for frames, row in zip(found.values, found.parameters, strict=True)
    ]
    return torch.stack(parts)[..., 0]


def draw(
    figure: Figure, row: list[Axes], truth: np.ndarray, guess: np.ndarray, title: str, extent: tuple[float, ...]
) -> None:
    """One trajectory: truth, forecast and difference over space and time."""
    span = float(np.abs(truth).max())
    pictures = ((truth, "RdBu_r", span), (guess, "RdBu_r", span), (guess - truth, "PuOr", span / 5))
    for axes, (values, colours, limit) in zip(row, pictures, strict=True):
        shown = axes.imshow(
            values.T, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", origin="lower", extent=extent
        )
        figure.colorbar(shown, ax=axes, pad=0.02)
        axes.set_yticks([])
    row[0].set_title(title, fontsize=10)


def main(run: Path) -> None:
    """Draw a run of one field on a line, with one given frame."""
    bundle, summary = ups_kit.load(run), json.loads((run / "summary.json").read_text())
    found = bundle.recipe.dataset.build(bundle.recipe.run.seed).trajectories("test")
    truth, guess = found.values[:, 1:, :, 0], forecasts(bundle, found)
    errors = ((guess - truth).square().mean(-1).sqrt() / truth.square().mean(-1).sqrt()).mean(1)
    thirds = np.array_split(found.parameters[:, 1].argsort().numpy(), THIRDS)
    chosen = [int(third[errors[third].argsort()[len(third) // 2]]) for third in thirds]

    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, grid = plt.subplots(3, 4, figsize=(11, 5.2), layout="constrained", width_ratios=(1, 1, 1, 1.15))
    times = found.times[1:].numpy()
    for column, sample in enumerate(chosen):
        value = float(found.parameters[sample, 1])
        title = f"ε = {value:.2g}: nRMSE {float(errors[sample]):.3f}"
        axes, extent = list(grid[:, column]), (float(times[0]), float(times[-1]), 0.0, 1.0)
        draw(figure, axes, truth[sample].numpy(), guess[sample].numpy(), title, extent)
        axes[-1].set_xlabel("time")
    for row, name in enumerate(("truth", "forecast", "difference, × 5")):
        grid[row, 0].set_ylabel(f"{name}\nx")

    side = grid[0, 3].get_gridspec()
    for axes in grid[:, 3]:
        axes.remove()
    curves = figure.add_subplot(side[:, 3])
    curves.plot(times, summary["metrics"]["latent_rollout"]["curve_nrmse"], "k", lw=2, label="forecast")
    for name, label in FLOORS.items():
        curves.plot(times, summary["floors"][name]["rollout"]["curve_nrmse"], lw=1, label=label)
    curves.set(yscale="log", xlabel="time", title=f"mean nRMSE of {len(truth)} unseen")
    curves.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.42))
    figure.savefig(OUT, dpi=110, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
