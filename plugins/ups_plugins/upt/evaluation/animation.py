"""The median rollout as an animation: the truth beside the latent rollout, over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from .fields import Course
from .measurement import Measured
from .scenes import aspect, color_bar, draw_values
from .style import bare, new_figure

FRAMES = 40  # at most
SIZES = ((64, 1.0), (56, 0.7), (48, 0.5), (40, 0.3))  # dots per inch, share of the frames: the first that fits
LARGEST = 2 << 20  # bytes
SECONDS = 4.0  # that it takes
PANEL = 3.6  # inches


def animate(measured: Measured, path: Path) -> bytes | None:
    """Write the animation as a GIF and return its bytes; None where there is none: steady data, and one dimension.

    It is at most about 2 MB large, with fewer frames or dots where it would be larger.
    """
    fields = measured.truth.fields
    if fields.steady or fields.space_dims == 1:
        return None
    course = Course(measured, "median")
    aside = path.with_name(f"new_{path.name}")
    for dpi, share in SIZES:
        count = min(max(2, round(FRAMES * share)), len(course.times))
        shown = np.unique(np.linspace(0, len(course.times) - 1, count).round().astype(int))
        _write(measured, course, shown, aside, dpi)
        if aside.stat().st_size <= LARGEST:
            break
    aside.replace(path)
    return path.read_bytes()


def _write(measured: Measured, course: Course, shown: np.ndarray, path: Path, dpi: int) -> None:
    height = PANEL * aspect(measured.truth.fields) + 0.7
    figure, axes = new_figure(1, 2, height=height)
    figure.set_size_inches(2 * PANEL + 0.8, height)
    scale, _ = course.scales
    panels = list(zip(axes.flat, ("truth", "latent rollout"), (course.true, course.predicted), strict=True))
    writer = PillowWriter(fps=max(1, round(len(shown) / SECONDS)))
    for place, frame in enumerate(shown):
        images = []
        for axis, label, values in panels:
            images.append(
                draw_values(axis, course.scene(frame, label == "latent rollout"), values[frame], scale, PANEL)
            )
            axis.set_title(label, fontsize="medium")
            bare(axis)
        figure.suptitle(f"{course.name}, t = {course.times[frame]:.3g}", fontsize="medium", x=0.01, ha="left")
        if not place:
            color_bar(figure, axes.flat[1], images[1])
            _settle(figure)
            writer.setup(figure, path, dpi)
        writer.grab_frame()
        for image in images:
            image.remove()
    writer.finish()


def _settle(figure: Figure) -> None:
    """Lay everything out once: in an animation nothing may move but what is shown."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
