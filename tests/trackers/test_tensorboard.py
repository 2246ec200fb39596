"""What TensorBoard shows, read back from its files: each step once, also after a resume."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ups_kit.interfaces import FollowsRuns, FollowsStages, KeepsTables, StageEvent, Table, TrackedRun
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


def _of_the_run(folder: Path, plugin: str) -> dict[str, bytes]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return dict(events.PluginTagToContent(plugin))


def _run(folder: Path, resumed: bool = False) -> TrackedRun:
    recipe = {"run": {"seed": 3, "threads": None}, "latent": {"width": 32}, "decoder": {"use": "local", "even": True}}
    return TrackedRun("waves", folder, resumed, recipe)


def _hparams(folder: Path) -> tuple[dict[str, object], set[str]]:
    """The values of the session, and the metrics that the tab shows."""
    content = _of_the_run(folder, "hparams")
    session = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    values = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in session.hparams.items()}
    return values, {info.name.tag for info in experiment.metric_infos}


def test_the_recipes_values_stand_beside_the_final_metrics(tmp_path: Path) -> None:
    tracker = TensorBoardConfig().build(tmp_path)
    assert isinstance(tracker, FollowsRuns)
    tracker.begin(_run(tmp_path))
    tracker.end("finished", {"one_step/nrmse": 0.25})
    tracker.close()
    values, metrics = _hparams(tmp_path / "tensorboard")
    assert values == {"run.seed": 3, "latent.width": 32, "decoder.use": "local", "decoder.even": True} | {
        "status": "finished"
    }
    assert metrics == {"one_step/nrmse"}
    assert _points(tmp_path / "tensorboard", "one_step/nrmse") == [(0, 0.25)]


def test_a_run_that_goes_on_has_one_set_of_values(tmp_path: Path) -> None:
    """Not of a process that was stopped; and of one that failed, until another one goes on."""
    for status, found in (("preempted", None), ("failed", "failed"), ("finished", "finished")):
        tracker = TensorBoardConfig().build(tmp_path)
        assert isinstance(tracker, FollowsRuns)
        tracker.begin(_run(tmp_path, resumed=found is not None))
        tracker.scalars("operator", 1, {"loss": 1.0})
        tracker.end(status, {})
        tracker.close()
        values = _hparams(tmp_path / "tensorboard")[0] if found else {}
        assert values.get("status") == found
        assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1


def test_the_layout_shows_what_a_training_tells(tmp_path: Path) -> None:
    tracker = TensorBoardConfig(hparams=False).build(tmp_path)
    assert isinstance(tracker, FollowsRuns)
    tracker.begin(_run(tmp_path))
    tracker.end("finished", {})
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "hparams" not in events.summary_metadata
    (event,) = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: chart.multiline.tag for category in layout.category for chart in category.chart}
    told = ["loss", "losses/forward", "validation/score", "lr", "grad_norm", "samples_per_second", "data_wait"]
    shown = [[tag for tag in told if any(re.match(form, tag) for form in forms)] for forms in charts.values()]
    assert shown == [
        ["loss", "losses/forward"],
        ["validation/score"],
        ["lr"],
        ["grad_norm"],
        *([each] for each in told[-2:]),
        [],
    ]


def test_tables_are_texts(tmp_path: Path) -> None:
    tracker = TensorBoardConfig().build(tmp_path)
    assert isinstance(tracker, KeepsTables)
    tracker.table("evaluate", 0, "card", Table(("forecast", "one step"), (("latent | rollout", 0.25), ("mean", None))))
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard" / "evaluate"))
    events.Reload()
    text = events.Tensors("card/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines() == [
        "| forecast | one step |",
        "| --- | --- |",
        "| latent \\| rollout | 0.25 |",
        "| mean |  |",
    ]


def test_numbers_are_on_the_disk_when_a_stage_ends(tmp_path: Path) -> None:
    tracker = TensorBoardConfig(flush_seconds=1000).build(tmp_path)
    assert isinstance(tracker, FollowsStages)
    for step in range(5):
        tracker.scalars("operator", step, {"loss": 1.0})
    tracker.event("operator", StageEvent("diverged", "loss: nan"))
    assert len(_points(tmp_path / "tensorboard" / "operator", "loss")) == 5
    tracker.close()
