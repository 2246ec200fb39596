"""TensorBoard shows each step once, also after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ups_kit.trackers import Trackers
from ups_plugins.trackers import TensorBoardConfig


def _points(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]


def test_a_resumed_stage_shows_each_step_once_and_leaves_others_alone(tmp_path: Path) -> None:
    first = TensorBoardConfig().build(tmp_path)
    for step in (10, 20, 30):
        first.scalars("codec", step, {"loss": 1.0})
        first.scalars("operator", step, {"loss": 2.0})
    first.close()
    resumed = Trackers([TensorBoardConfig().build(tmp_path)])
    resumed.forget_after("operator", 15)
    for step in (20, 30, 40):
        resumed.scalars("operator", step, {"loss": 3.0})
    resumed.close()
    assert _points(tmp_path / "tensorboard" / "operator", "loss") == [(10, 2.0), (20, 3.0), (30, 3.0), (40, 3.0)]
    assert _points(tmp_path / "tensorboard" / "codec", "loss") == [(10, 1.0), (20, 1.0), (30, 1.0)]


def test_figures_are_pictures(tmp_path: Path) -> None:
    tracker = TensorBoardConfig().build(tmp_path)
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    tracker.figure("evaluate", 0, "rollout", figure)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "evaluate"))
    events.Reload()
    assert events.Images("rollout")[0].encoded_image_string.startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_written_switches_it_off(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    trackers = Trackers([TensorBoardConfig().build(tmp_path)])
    with pytest.warns(UserWarning, match="TensorBoard failed and is switched off"):
        trackers.scalars("operator", 1, {"loss": 1.0})
    trackers.scalars("operator", 2, {"loss": 1.0})
